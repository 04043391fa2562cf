//! Docker as netpath sees it: networks and running containers, as values.
//!
//! [`crate::watch::docker`] fills these in from the API; nothing of the API's own types gets past it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::model::{IfIndex, Protocol};

/// A network's or a container's full id.
pub type Id = String;

/// The driver of the networks that netpath manages.
pub const BRIDGE_DRIVER: &str = "bridge";

/// All that Docker said in one complete list, kept current by its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerModel {
    /// Networks of every driver.
    pub networks: BTreeMap<Id, Network>,
    /// Running and paused containers.
    pub containers: BTreeMap<Id, Container>,
}

/// A Docker network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Docker's name.
    pub name: String,
    /// Docker's driver.
    pub driver: String,
    /// Made with `--internal`: no way to the world.
    pub internal: bool,
    /// The bridge's interface name; meaningless for other drivers.
    pub bridge: String,
    /// IPv4 subnets.
    pub subnets: Vec<(Ipv4Addr, u8)>,
    /// The IPv4 gateway, where Docker says it (old versions don't for the default network).
    pub gateway: Option<Ipv4Addr>,
    /// The address that flows to the world leave with, where an option of the network says it.
    pub masquerade: Option<Ipv4Addr>,
    /// What the option `netpath.full_cone` says, word for word.
    pub full_cone: Option<String>,
    /// Whether it is left to Docker because of the firewall's rules; set by the daemon, not by Docker.
    pub refused: bool,
}

impl Network {
    /// Whether netpath carries this network.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.driver == BRIDGE_DRIVER && !self.refused
    }
}

/// A running or paused container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Docker's name, without the leading slash.
    pub name: String,
    /// Its own interfaces, one per network with an IPv4 address; none with `--network host`, `none` or `container:X`.
    pub interfaces: Vec<Interface>,
    /// Ports published on IPv4.
    pub published: Vec<Binding>,
}

/// A container's interface on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The network.
    pub network: Id,
    /// Docker's id of the endpoint.
    pub endpoint: Id,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The gateway on this network; none on internal ones.
    pub gateway: Option<Ipv4Addr>,
    /// Docker's `GwPriority`.
    pub gateway_priority: i64,
    /// The other end of the veth; none while it couldn't be found.
    pub peer: Option<Peer>,
}

/// What the container's network namespace says about an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The host side of the veth.
    pub host_ifindex: IfIndex,
    /// The container's Ethernet address.
    pub mac: [u8; 6],
    /// The MTU of the container's side.
    pub mtu: u32,
    /// Whether its side takes frames that XDP sends on the host's.
    pub takes_frames: bool,
}

/// A published port as Docker lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Host address; 0.0.0.0 for any.
    pub host_address: Ipv4Addr,
    /// Host port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl DockerModel {
    /// The interface that a container's published ports lead to: the one with its default gateway, in Docker's order
    /// (highest priority, networks with a way out before internal ones, then by name).
    #[must_use]
    pub fn gateway_interface<'a>(&'a self, container: &'a Container) -> Option<(&'a Network, &'a Interface)> {
        container
            .interfaces
            .iter()
            .filter(|interface| interface.gateway.is_some())
            .filter_map(|interface| Some((self.networks.get(&interface.network)?, interface)))
            .min_by_key(|(network, interface)| {
                (-i128::from(interface.gateway_priority), network.internal, &network.name)
            })
    }

    /// Who has which address on a managed network.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<Ipv4Addr, Owner<'_>> {
        let mut owners = BTreeMap::new();
        for (id, container) in &self.containers {
            for interface in &container.interfaces {
                if let Some(network) = self.networks.get(&interface.network).filter(|network| network.is_managed()) {
                    owners.entry(interface.address).or_insert(Owner { id, container, interface, network });
                }
            }
        }
        owners
    }
}

/// Who has an address.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The container's id.
    pub id: &'a Id,
    /// The container.
    pub container: &'a Container,
    /// Its interface with the address.
    pub interface: &'a Interface,
    /// The network of that interface.
    pub network: &'a Network,
}
