//! The state of the dataplane as values: what should be in the maps and where programs should be attached.
//!
//! The same type describes what is wanted and what is there. It knows nothing of Docker, of aya or of map layouts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use netpath_common::abi::Mode;
use serde::{Deserialize, Serialize};

use super::{
    policy::Policy,
    ports::{PortBlock, PublishedTarget},
};

/// An interface index in the daemon's network namespace.
pub type IfIndex = u32;

/// What ports can be published for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol; carried where host port and container port are the same.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol with an IP protocol number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A container's address on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host side of the container's veth.
    pub ifindex: IfIndex,
    /// The network's bridge.
    pub bridge_ifindex: IfIndex,
    /// The container's Ethernet address.
    pub mac: [u8; 6],
    /// The bridge's Ethernet address.
    pub bridge_mac: [u8; 6],
    /// The network's number, never 0, the same for all endpoints of one network.
    pub network: u16,
    /// The host's address on the network; 0.0.0.0: it has none.
    pub gateway: Ipv4Addr,
    /// The address that its flows to the world leave with; 0.0.0.0: the route decides.
    pub masquerade: Ipv4Addr,
    /// What its network allows: bits of [`netpath_common::abi::Terms`].
    pub terms: u16,
    /// Whether its UDP ports are cones.
    pub full_cone: bool,
    /// The largest IPv4 packet that the veth takes.
    pub mtu: u32,
    /// Whether XDP may send frames into the container.
    pub takes_frames: bool,
}

/// Something of an interface that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entrance {
    /// A container's veth: the container is known.
    Veth(IfIndex),
    /// By a container's veth, the address that it has on another network.
    Address(IfIndex, Ipv4Addr),
    /// An uplink that a network, by its number, trusts.
    Trusted(IfIndex, u16),
    /// By a container's veth: what a link lets it send to a neighbour although their network keeps them apart.
    Linked(IfIndex, LinkEnd),
}

/// One side of Docker's legacy link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkEnd {
    /// The neighbour's address.
    pub neighbour: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// The exposed port.
    pub port: u16,
    /// Whether the port is the sender's, whose answers these are.
    pub answers: bool,
}

/// How something is let in by an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admission {
    /// Of a veth: its network's number.
    pub network: u16,
    /// Of a veth: what its network allows.
    pub terms: u16,
    /// Of a veth: whether its container may send with any address that nobody has.
    pub any_source: bool,
}

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Addresses and prefix lengths, primary ones in the kernel's order; none while the interface has none.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// The largest IPv4 packet that the uplink takes.
    pub mtu: u32,
    /// The gateway of its first default route, of the main table or else of another; 0.0.0.0: it has none.
    pub gateway: Ipv4Addr,
}

/// Which program runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `np_uplink` at tc ingress.
    Uplink,
    /// `np_egress` at tc egress of an uplink.
    Egress,
    /// `np_xdp_uplink`; the mode is the dataplane's choice.
    XdpUplink,
    /// `np_container` at tc ingress.
    Container,
    /// `np_bridge` at tc egress.
    Bridge,
    /// `np_loopback` at tc egress.
    Loopback,
}

/// One program on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The interface.
    pub ifindex: IfIndex,
    /// The program.
    pub hook: Hook,
}

/// All that the dataplane holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How netpath shares the host with dockerd.
    pub mode: Mode,
    /// Who may open flows to published ports.
    pub policy: Policy,
    /// Endpoints by address.
    pub endpoints: BTreeMap<Ipv4Addr, Endpoint>,
    /// What interfaces let in.
    pub admitted: BTreeMap<Entrance, Admission>,
    /// Blocks of published ports, and where their first ones lead.
    pub published: BTreeMap<PortBlock, PublishedTarget>,
    /// Uplinks by interface.
    pub uplinks: BTreeMap<IfIndex, Uplink>,
    /// Every address of the host itself, bridges' gateways included.
    pub host_addresses: BTreeSet<Ipv4Addr>,
    /// The host's IPv6 addresses, but for those of one link and ::1.
    pub host_addresses_ipv6: BTreeSet<Ipv6Addr>,
    /// Where programs are attached.
    pub attachments: BTreeSet<Attachment>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            mode: Mode::Takeover,
            policy: Policy::default(),
            endpoints: BTreeMap::new(),
            admitted: BTreeMap::new(),
            published: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            host_addresses: BTreeSet::new(),
            host_addresses_ipv6: BTreeSet::new(),
            attachments: BTreeSet::new(),
        }
    }
}

impl State {
    /// Makes one change. Setting what is there replaces it; removing what isn't there does nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::SetMode(mode) => self.mode = *mode,
            Change::SetPolicy(policy) => self.policy.clone_from(policy),
            Change::SetEndpoint(address, endpoint) => {
                self.endpoints.insert(*address, endpoint.clone());
            }
            Change::RemoveEndpoint(address) => {
                self.endpoints.remove(address);
            }
            Change::SetAdmitted(entrance, admission) => {
                self.admitted.insert(*entrance, *admission);
            }
            Change::RemoveAdmitted(entrance) => {
                self.admitted.remove(entrance);
            }
            Change::SetPublished(blocks) => self.published.extend(blocks.iter().copied()),
            Change::RemovePublished(blocks) => self.published.retain(|block, _| !blocks.contains(block)),
            Change::SetUplink(ifindex, uplink) => {
                self.uplinks.insert(*ifindex, uplink.clone());
            }
            Change::RemoveUplink(ifindex) => {
                self.uplinks.remove(ifindex);
            }
            Change::AddHostAddress(address) => {
                self.host_addresses.insert(*address);
            }
            Change::RemoveHostAddress(address) => {
                self.host_addresses.remove(address);
            }
            Change::AddHostAddressIpv6(address) => {
                self.host_addresses_ipv6.insert(*address);
            }
            Change::RemoveHostAddressIpv6(address) => {
                self.host_addresses_ipv6.remove(address);
            }
            Change::Attach(attachment) => {
                self.attachments.insert(*attachment);
            }
            Change::Detach(attachment) => {
                self.attachments.remove(attachment);
            }
        }
    }
}

/// One step from the state that is to the state that should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set the mode.
    SetMode(Mode),
    /// Put another policy in force.
    SetPolicy(Policy),
    /// Add or replace an endpoint.
    SetEndpoint(Ipv4Addr, Endpoint),
    /// Remove an endpoint; its flows end.
    RemoveEndpoint(Ipv4Addr),
    /// Add or replace what an interface lets in.
    SetAdmitted(Entrance, Admission),
    /// Let something in no more.
    RemoveAdmitted(Entrance),
    /// Add or replace published ports, in one batch.
    SetPublished(Vec<(PortBlock, PublishedTarget)>),
    /// Remove published ports, in one batch.
    RemovePublished(Vec<PortBlock>),
    /// Add or replace an uplink.
    SetUplink(IfIndex, Uplink),
    /// Remove an uplink; flows that leave by it end.
    RemoveUplink(IfIndex),
    /// Add one of the host's addresses.
    AddHostAddress(Ipv4Addr),
    /// Remove one of the host's addresses.
    RemoveHostAddress(Ipv4Addr),
    /// Add one of the host's IPv6 addresses.
    AddHostAddressIpv6(Ipv6Addr),
    /// Remove one of the host's IPv6 addresses.
    RemoveHostAddressIpv6(Ipv6Addr),
    /// Attach a program.
    Attach(Attachment),
    /// Detach a program.
    Detach(Attachment),
}
