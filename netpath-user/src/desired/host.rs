//! The host's own network as netpath sees it: links, addresses and default routes, as values.
//!
//! [`crate::watch::netlink`] fills these in from rtnetlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::model::IfIndex;

/// The host's network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostModel {
    /// Links.
    pub links: BTreeMap<IfIndex, Link>,
    /// IPv4 addresses in the kernel's order.
    pub addresses: Vec<Address>,
    /// IPv6 addresses, but for link-local ones, which mean nothing without their link, and ::1.
    pub ipv6_addresses: BTreeSet<Ipv6Addr>,
    /// Output interfaces of the default routes in the main table, each once, in the kernel's order.
    pub default_routes: Vec<IfIndex>,
    /// The first default route's gateway of each of them, where it has one.
    pub gateways: BTreeMap<IfIndex, Ipv4Addr>,
    /// Whether bridges ask iptables' rules for what they carry from port to port (`net.bridge.bridge-nf-call-iptables`).
    pub bridge_asks_rules: bool,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface name.
    pub name: String,
    /// Ethernet address; none for links that aren't Ethernet.
    pub mac: Option<[u8; 6]>,
    /// MTU.
    pub mtu: u32,
    /// The bridge or bond that it is a port of.
    pub controller: Option<IfIndex>,
    /// Whether it is one end of a veth.
    pub is_veth: bool,
    /// Whether it is a bridge.
    pub is_bridge: bool,
}

/// An IPv4 address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: IfIndex,
    /// The address itself, not a peer's.
    pub address: Ipv4Addr,
    /// The subnet's prefix length.
    pub prefix_length: u8,
    /// Whether the kernel's masquerade would choose it: primary and of global scope.
    pub masquerades: bool,
}

impl HostModel {
    /// The link with this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<(IfIndex, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(ifindex, link)| (*ifindex, link))
    }

    /// The first address of an interface.
    #[must_use]
    pub fn first_address(&self, ifindex: IfIndex) -> Option<Ipv4Addr> {
        self.addresses.iter().find(|address| address.ifindex == ifindex).map(|address| address.address)
    }

    /// The addresses that masqueraded flows may leave an interface with.
    #[must_use]
    pub fn masquerade_addresses(&self, ifindex: IfIndex) -> Vec<(Ipv4Addr, u8)> {
        let of_interface = self.addresses.iter().filter(|address| address.ifindex == ifindex && address.masquerades);
        of_interface.map(|address| (address.address, address.prefix_length)).collect()
    }
}
