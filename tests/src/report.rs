//! What the tests read of netpath's JSON: the fields that scripts may rely on, declared apart from the program's own types
//! so that a renamed field fails here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

/// What the tests read of `netpath status`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// Whether programs are attached.
    pub attached: bool,
    /// Whether all that Docker has is in the dataplane.
    pub in_sync: bool,
    /// `takeover` or `sole`.
    pub mode: String,
    /// The host's own way to published ports.
    pub host_access: HostAccess,
    /// The uplinks.
    pub uplinks: Vec<Uplink>,
    /// Containers' addresses.
    pub endpoints: Vec<Endpoint>,
    /// Packets and bytes by the way they took.
    pub traffic: BTreeMap<String, Traffic>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// The flow table.
    pub flows: Flows,
    /// What becomes of datagrams to ports of the host that nobody listens on.
    pub closed_ports: ClosedPorts,
}

/// What becomes of datagrams to closed ports in `netpath status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ClosedPorts {
    /// Whether they are dropped early.
    pub dropped: bool,
    /// Why they aren't.
    pub because: Vec<String>,
}

/// The host's own way to published ports in `netpath status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HostAccess {
    /// Whether the programs are attached.
    pub attached: bool,
    /// Why they aren't.
    pub error: Option<String>,
}

/// An uplink in `netpath status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Uplink {
    /// Interface name.
    pub name: String,
    /// `tcx` or `clsact`.
    pub hook: Option<String>,
    /// The same of the program at egress.
    pub egress: Option<String>,
    /// `native` or `generic`; none when no XDP program is attached.
    pub xdp_mode: Option<String>,
}

/// A container's address in `netpath status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// Whether netpath carries what the container sends.
    pub attached: bool,
}

/// A counter in `netpath status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The flow table in `netpath status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Flows {
    /// Flows in the table.
    pub used: u64,
    /// Flows that it holds at most.
    pub capacity: u64,
    /// Whether status warns.
    pub nearly_full: bool,
}

/// A flow in `netpath ct ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// As conntrack names them.
    pub state: String,
    /// The packets of who began it, as they arrive.
    pub original: FlowEnds,
    /// The answers, as they arrive.
    pub reply: FlowEnds,
}

/// One direction of a flow in `netpath ct ls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FlowEnds {
    /// Source address.
    pub source: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub destination_port: u16,
}

/// A published port in `netpath ports`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Host address.
    pub host_address: Ipv4Addr,
    /// Host port.
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The container's address.
    pub container_address: Ipv4Addr,
    /// The container's port.
    pub container_port: u16,
}
