//! What the daemon says about itself: the answers of the control socket, and what the command line prints.
//!
//! Plain values with stable field names (`snake_case`), part of the interface: fields are added, never renamed. Nothing
//! here reads a map or asks Docker; the daemon fills these in after each round.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::desired::model::{IfIndex, Protocol};

/// The daemon as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DaemonStatus {
    /// netpath's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// `takeover`, `sole`, or empty while it isn't known yet.
    pub mode: String,
    /// True when everything wanted is in the dataplane, Docker is connected and its last list has been applied.
    pub in_sync: bool,
    /// The connection to Docker.
    pub docker: DockerStatus,
    /// Uplinks, the ones that were asked for and aren't there included.
    pub uplinks: Vec<UplinkStatus>,
    /// Networks that netpath manages.
    pub networks: Vec<NetworkStatus>,
    /// Containers' addresses on those networks.
    pub endpoints: Vec<EndpointStatus>,
    /// Published ports.
    pub published: Vec<PublishedStatus>,
    /// Changes that failed and will be tried again.
    pub pending: Vec<PendingFailure>,
    /// The host's own way to published ports.
    pub host_access: HostAccessStatus,
    /// Who may open connections to published ports.
    pub policy: PolicyStatus,
    /// The firewall's rules that netpath would pass by.
    pub firewall: FirewallStatus,
    /// What becomes of datagrams to ports of the host that nobody listens on.
    pub closed_ports: ClosedPortsStatus,
    /// The host's own way to macvlan containers.
    pub macvlan: MacvlanStatus,
    /// Interfaces by which netpath carries nothing: in sole mode those that can't be uplinks, in takeover mode bridges whose packets
    /// Docker's rules get first.
    pub uncovered: Vec<UncoveredInterface>,
}

/// An interface of the host's that netpath doesn't work on. In sole mode containers reach nobody by it, and nobody published
/// ports; in takeover mode Docker's rules carry what goes by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UncoveredInterface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: IfIndex,
    /// The host's addresses on it, with the lengths of their subnets.
    pub addresses: Vec<String>,
    /// Why netpath can't work on it.
    pub because: String,
    /// What to do where containers need it.
    pub advice: String,
}

/// The host's own way to its macvlan containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct MacvlanStatus {
    /// Whether the host is to have one (`[macvlan] host_access`).
    pub host_access: bool,
    /// What went wrong when it was last made or looked after; absent when nothing did, and when only the kernel speaks.
    pub error: Option<String>,
    /// The interfaces that macvlan containers hang on, as far as the host has an address in their subnet.
    pub parents: Vec<MacvlanParent>,
}

/// An interface that macvlan containers hang on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct MacvlanParent {
    /// Its name.
    pub parent: String,
    /// Its index.
    pub ifindex: IfIndex,
    /// The host's own interface beside the containers; absent: there is none.
    pub interface: Option<String>,
    /// The containers; none when only the kernel speaks.
    pub containers: Vec<MacvlanContainer>,
}

/// A macvlan container that the host reaches, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MacvlanContainer {
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's address that it sees.
    pub host_address: Ipv4Addr,
}

/// What becomes of datagrams to ports of the host that nobody listens on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ClosedPortsStatus {
    /// Whether they are dropped early, but for those that the kernel may answer; else all of them are the kernel's.
    pub dropped: bool,
    /// Why not; empty when they are, and when only the pins speak.
    pub because: Vec<String>,
}

/// Who may open connections to published ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PolicyStatus {
    /// The file that it comes from; empty when there is none, and when only the pins speak.
    pub file: String,
    /// `allow` or `deny`: what becomes of what no rule fits.
    pub default: String,
    /// Nothing is denied, only counted.
    pub dry_run: bool,
    /// Packets that no rule fitted.
    pub default_packets: u64,
    /// Bytes of those packets.
    pub default_bytes: u64,
    /// The rules in their order.
    pub rules: Vec<PolicyRuleStatus>,
}

/// A rule of the policy; empty lists stand for any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PolicyRuleStatus {
    /// Its place in the list, from 1 on.
    pub number: usize,
    /// Its line in the file; 0 when only the pins speak.
    pub line: usize,
    /// `allow` or `deny`.
    pub action: String,
    /// Clients' addresses.
    pub source: Vec<String>,
    /// `wire` or `container`; absent: both.
    pub from: Option<String>,
    /// Networks by the names that the file has, or by `#` and their number when only the pins speak.
    pub network: Vec<String>,
    /// Those of the networks that don't exist now.
    pub missing: Vec<String>,
    /// Ports of the host.
    pub port: Vec<String>,
    /// Protocols.
    pub protocol: Vec<String>,
    /// Packets that it fitted: those that asked to open a connection, and all that were denied.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Where the programs count for it.
    pub counter: u16,
}

/// What `netpath policy apply` has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PolicyApplied {
    /// The file that the policy comes from.
    pub file: String,
    /// How many rules it has.
    pub rules: usize,
    /// How many connections it has ended.
    pub ended: u64,
    /// What the operator should know of it.
    pub warnings: Vec<String>,
}

/// The firewall's rules that netpath would pass by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FirewallStatus {
    /// Whether rules have been read since the daemon's start.
    pub checked: bool,
    /// Whether netpath was told to take networks over in spite of them (`--ignore-user-rules`).
    pub ignored: bool,
    /// What couldn't be read; rules may be there that aren't shown.
    pub errors: Vec<String>,
    /// The rules.
    pub rules: Vec<BypassedRule>,
}

/// A rule that somebody put into the firewall and that what netpath carries doesn't pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BypassedRule {
    /// `iptables-nft`, `iptables-legacy` or `nft`.
    pub backend: String,
    /// Its table, such as `filter`, or `inet mine`.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The rule as its tool prints it.
    pub rule: String,
    /// `restricts` or `changes`: networks are refused because of it; `counts`: it only counts or logs.
    pub effect: String,
    /// Names of the networks whose packets it may be about.
    pub networks: Vec<String>,
}

/// The host's own way to published ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HostAccessStatus {
    /// Whether the host's own sockets are led to published ports.
    pub attached: bool,
    /// Why not; absent when they are, and when only the pins speak.
    pub error: Option<String>,
}

/// The connection to Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DockerStatus {
    /// The socket's path.
    pub socket: String,
    /// Whether the event stream is open.
    pub connected: bool,
    /// Whether Docker's last list is what the daemon works from; false from the moment that Docker goes away.
    pub in_sync: bool,
    /// The negotiated API version, such as `1.41`.
    pub api_version: Option<String>,
    /// Why the last attempt failed; absent once connected.
    pub last_error: Option<String>,
    /// When the last complete list came, in milliseconds since 1970 (UTC).
    pub last_sync_unix_ms: Option<u64>,
}

/// An uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UplinkStatus {
    /// Interface name.
    pub name: String,
    /// Interface index; absent while the interface doesn't exist.
    pub ifindex: Option<IfIndex>,
    /// Primary addresses with prefix length, `192.0.2.1/24`.
    pub addresses: Vec<String>,
    /// How `np_uplink` is attached, `tcx` or `clsact`; absent: it isn't.
    pub hook: Option<String>,
    /// How `np_egress` is attached, `tcx` or `clsact`; absent: it isn't.
    pub egress: Option<String>,
    /// How `np_xdp_uplink` is attached, `native` or `generic`; absent: it isn't.
    pub xdp_mode: Option<String>,
}

/// A Docker network that netpath manages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NetworkStatus {
    /// Docker's id, in full.
    pub id: String,
    /// Docker's name.
    pub name: String,
    /// Docker's driver; always `bridge` so far.
    pub driver: String,
    /// The bridge's interface name.
    pub bridge: String,
    /// The bridge's interface index; absent while the bridge doesn't exist.
    pub bridge_ifindex: Option<IfIndex>,
    /// IPv4 subnets, `172.17.0.0/16`.
    pub subnets: Vec<String>,
    /// The IPv4 gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Made with `--internal`.
    pub internal: bool,
    /// The number that the dataplane knows the network by; 0 while the bridge doesn't exist.
    pub number: u16,
    /// How many endpoints of this network are in the dataplane.
    pub endpoints: usize,
    /// What the network was made with that matters to its packets, by the words of netpath's own configuration.
    pub options: BTreeMap<String, String>,
    /// The firewall's rules because of which netpath leaves the network to Docker; empty when it carries it.
    pub refused: Vec<String>,
}

/// A container's address on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndpointStatus {
    /// Docker's id of the endpoint, in full.
    #[serde(default)]
    pub endpoint_id: String,
    /// Docker's container id, in full.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// The network's id, in full.
    pub network_id: String,
    /// The network's name.
    pub network_name: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The container's Ethernet address, `02:42:ac:11:00:02`.
    pub mac: String,
    /// The host side of the veth; empty when the interface has no name that is known.
    pub veth: String,
    /// Interface index of the host side of the veth.
    pub ifindex: IfIndex,
    /// Whether `np_container` is attached to it.
    pub attached: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublishedStatus {
    /// Host address; 0.0.0.0 stands for each of the host's.
    pub host_address: Ipv4Addr,
    /// Host port.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Docker's container id, in full.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The container's port.
    pub port: u16,
}

/// A change that failed and will be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PendingFailure {
    /// What it is about, such as `published port 0.0.0.0:80/tcp`.
    pub object: String,
    /// What failed.
    pub error: String,
    /// How often it has been tried.
    pub attempts: u32,
}
