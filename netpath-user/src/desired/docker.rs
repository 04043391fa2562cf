//! Docker as netpath sees it: networks and running containers, as values.
//!
//! [`crate::watch::docker`] fills these in from the API; nothing of the API's own types gets past it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::model::{IfIndex, Protocol};

/// A network's or a container's full id.
pub type Id = String;

/// The driver of the networks that netpath manages.
pub const BRIDGE_DRIVER: &str = "bridge";

/// The network by which swarm's tasks get out.
const SWARM_GATEWAY: &str = "docker_gwbridge";

/// All that Docker said in one complete list, kept current by its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerModel {
    /// dockerd itself.
    pub engine: Engine,
    /// Networks of every driver.
    pub networks: BTreeMap<Id, Network>,
    /// Running and paused containers.
    pub containers: BTreeMap<Id, Container>,
}

/// What matters of dockerd itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// Whether it knows gateway modes (27.0).
    pub knows_gateway_modes: bool,
    /// Whether the default network masquerades, as dockerd was told (`--ip-masq`).
    pub masquerades_default: bool,
    /// Whether it was told to leave containers' addresses open to who routes to them (`--allow-direct-routing`).
    pub allows_direct_routing: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self { knows_gateway_modes: false, masquerades_default: true, allows_direct_routing: false }
    }
}

/// What a network's gateway does (`com.docker.network.bridge.gateway_mode_ipv4`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Translates, and lets in what is published.
    #[default]
    Nat,
    /// Translates, and lets everything in that is sent to containers' addresses.
    NatUnprotected,
    /// Doesn't translate; lets in what is published, by the containers' addresses.
    Routed,
    /// There is none.
    Isolated,
}

/// A Docker network.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Whether it is Docker's default network.
    pub is_default: bool,
    /// Whether its containers reach each other (`enable_icc`).
    pub icc: bool,
    /// Whether what leaves it is translated (`enable_ip_masquerade`).
    pub masquerades: bool,
    /// What its gateway does for IPv4.
    pub gateway_mode: GatewayMode,
    /// Interfaces of the host behind which its containers are reached by their own addresses.
    pub trusted: Vec<String>,
    /// Of a macvlan network that bridges: the interface that it hangs on; else empty.
    pub parent: String,
    /// Whether it is left to Docker because of the firewall's rules; set by the daemon, not by Docker.
    pub refused: bool,
}

impl Default for Network {
    /// A network without options.
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: String::new(),
            internal: false,
            bridge: String::new(),
            subnets: Vec::new(),
            gateway: None,
            masquerade: None,
            full_cone: None,
            is_default: false,
            icc: true,
            masquerades: true,
            gateway_mode: GatewayMode::Nat,
            trusted: Vec::new(),
            parent: String::new(),
            refused: false,
        }
    }
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
    /// Ports that it exposes, the published ones included.
    pub exposed: Vec<(u16, Protocol)>,
    /// Names of the containers that it is linked to (`--link`, on the default network).
    pub links: Vec<String>,
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
    /// Whether it has a gateway for IPv6 too.
    pub has_ipv6_gateway: bool,
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
    /// Host port; 0: none, the port is open on the container's own address (gateway mode `routed`).
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl DockerModel {
    /// The interface that a container's published ports lead to: the one with its default gateway, in Docker's order
    /// (`(*Endpoint).Less` in libnetwork/sandbox.go): the highest priority, networks with a way out before swarm's own and
    /// internal ones, those with gateways of both families first, then by name.
    #[must_use]
    pub fn gateway_interface<'a>(&'a self, container: &'a Container) -> Option<(&'a Network, &'a Interface)> {
        container
            .interfaces
            .iter()
            .filter(|interface| interface.gateway.is_some())
            .filter_map(|interface| Some((self.networks.get(&interface.network)?, interface)))
            .min_by_key(|(network, interface)| {
                let is_swarms = network.name == SWARM_GATEWAY;
                let is_single = !interface.has_ipv6_gateway;
                (-i128::from(interface.gateway_priority), is_swarms, network.internal, is_single, &network.name)
            })
    }

    /// The id of the managed network with this name or id; of an id, as much as Docker shows is enough.
    #[must_use]
    pub fn managed_network(&self, text: &str) -> Option<&str> {
        /// The length of an id as Docker shows it.
        const SHORT_ID: usize = 12;
        let is_id = |id: &Id| text.len() >= SHORT_ID && id.starts_with(text);
        let mut managed = self.networks.iter().filter(|(_, network)| network.is_managed());
        let named = managed.clone().find(|(_, network)| network.name == text);
        named.or_else(|| managed.find(|(id, _)| is_id(id))).map(|(id, _)| id.as_str())
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
