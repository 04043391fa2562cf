//! The wanted state, made from what Docker and the kernel say.
//!
//! Pure, so that every rule is a table row in a test. An object is wanted only when everything it refers to exists:
//! an endpoint when its veth is a port of its network's bridge, a published port when its endpoint is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use netpath_common::abi::{Mode, Terms};

use super::{
    docker::{Container, DockerModel, GatewayMode, Interface, Network},
    host::{HostModel, Link},
    links,
    model::{Admission, Attachment, Endpoint, Entrance, Hook, IfIndex, Protocol, State},
    network::terms,
    numbers::{self, Numbers},
    policy,
    ports::{self, PublishedPort, PublishedTarget},
    uplinks::{self, UplinkChoice},
};
use crate::settings;

/// Whether uplinks get the XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xdp {
    /// Attach it.
    Attach,
    /// `--xdp off`.
    Off,
}

/// The operator's wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Which interfaces are uplinks.
    pub uplinks: UplinkChoice,
    /// Whether they get the XDP program.
    pub xdp: Xdp,
    /// Addresses that flows of a network leave with, by its name or id.
    pub masquerade: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Whether a network has cones, by its name or id, before what Docker's option says.
    pub full_cone: BTreeMap<String, bool>,
    /// Networks, by name or id, whose containers may send with addresses that aren't theirs.
    pub foreign_sources: BTreeSet<String>,
    /// Whether containers reach ports that other networks publish.
    pub reach_published_of_others: bool,
    /// Who may open flows to published ports.
    pub policy: settings::policy::Policy,
}

impl Default for Wishes {
    /// No wishes.
    fn default() -> Self {
        Self {
            uplinks: UplinkChoice::DefaultRoutes,
            xdp: Xdp::Attach,
            masquerade: BTreeMap::new(),
            full_cone: BTreeMap::new(),
            foreign_sources: BTreeSet::new(),
            reach_published_of_others: true,
            policy: settings::policy::Policy::default(),
        }
    }
}

/// What [`build`] makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The wanted state.
    pub state: State,
    /// The number of each managed bridge's network.
    pub numbers: Numbers,
    /// One sentence for each thing that can't be had as things are.
    pub refused: Vec<String>,
    /// One sentence for each network that the policy names and that doesn't exist.
    pub missing_networks: Vec<String>,
    /// What is expected to solve itself soon (object, reason); the daemon isn't in step with Docker until then.
    pub unresolved: Vec<(String, String)>,
}

/// Each published port by itself. Of two containers that publish the same one, which Docker refuses, the first has it.
type Published = BTreeMap<PublishedPort, PublishedTarget>;

/// The wanted state. `actual` gives what must survive a restart: networks' numbers and the uplinks so far.
#[must_use]
pub fn build(docker: &DockerModel, host: &HostModel, mode: Mode, wishes: &Wishes, actual: &State) -> Wanted {
    let bridges = bridges(docker, host);
    let bridge_indexes: BTreeSet<IfIndex> = bridges.values().copied().collect();
    let mut wanted =
        Wanted { numbers: numbers::assign(&bridge_indexes, &numbers::in_use(actual)), ..Wanted::default() };
    wanted.state.mode = mode;
    add_policy(&mut wanted, docker, &bridges, wishes, actual);
    let mut beside = uplinks::stay(docker, host, attached(actual, Hook::Uplink));
    // In takeover the kernel carries what goes by other interfaces, with Docker's rules.
    if mode == Mode::Sole {
        beside.extend(uplinks::beside(docker, host));
    }
    add_uplinks(&mut wanted, host, &bridge_indexes, wishes, actual, &beside);
    add_host_addresses(&mut wanted.state, host);
    add_loopback(&mut wanted.state, host);
    add_bridges(&mut wanted.state, host, &bridge_indexes);
    refuse_options(&mut wanted, docker);
    for container in docker.containers.values() {
        add_endpoints(&mut wanted, docker, host, &bridges, wishes, container);
    }
    let mut published = Published::new();
    for container in docker.containers.values() {
        add_published(&mut wanted, &mut published, docker, container);
        add_senders(&mut wanted, docker, wishes, container);
        links::add(&mut wanted, docker, container);
    }
    wanted.state.published = ports::blocks(&published);
    add_trusted(&mut wanted, docker, host, &bridges);
    wanted
}

/// The wanted state while Docker's list hasn't come since the start: what is there, with the uplinks and addresses that
/// the host has now. Nothing of Docker's is added or removed.
#[must_use]
pub fn build_without_docker(host: &HostModel, wishes: &Wishes, actual: &State) -> Wanted {
    let mut wanted = Wanted { numbers: numbers::in_use(actual), ..Wanted::default() };
    let of_docker = |attachment: &&Attachment| matches!(attachment.hook, Hook::Container | Hook::Bridge);
    wanted.state.mode = actual.mode;
    // Names of networks are Docker's to tell; until then the list in force stays.
    let needs_names = wishes.policy.rules.iter().any(|rule| !rule.network.is_empty());
    wanted.state.policy =
        if needs_names { actual.policy.clone() } else { policy::resolve(&wishes.policy, |_| None, &actual.policy) };
    wanted.state.endpoints = actual.endpoints.clone();
    wanted.state.admitted = actual.admitted.clone();
    wanted.state.published = actual.published.clone();
    wanted.state.attachments = actual.attachments.iter().filter(of_docker).copied().collect();
    let bridges = actual.endpoints.values().map(|endpoint| endpoint.bridge_ifindex);
    let bridges = bridges.chain(actual.attachments.iter().filter(|at| at.hook == Hook::Bridge).map(|at| at.ifindex));
    // Which bridges are Docker's it hasn't said yet: what is beside the default routes stays as it was.
    let beside = uplinks::stay(&DockerModel::default(), host, attached(actual, Hook::Uplink));
    add_uplinks(&mut wanted, host, &bridges.collect(), wishes, actual, &beside);
    add_host_addresses(&mut wanted.state, host);
    add_loopback(&mut wanted.state, host);
    wanted
}

/// The policy, with the numbers of the networks that exist now.
fn add_policy(
    wanted: &mut Wanted,
    docker: &DockerModel,
    bridges: &BTreeMap<&str, IfIndex>,
    wishes: &Wishes,
    actual: &State,
) {
    let number = |text: &str| {
        let bridge = bridges.get(docker.managed_network(text)?)?;
        wanted.numbers.get(bridge).copied()
    };
    let missing = policy::missing(&wishes.policy, number).into_iter().map(|(line, name)| {
        format!(
            "the policy's rule in line {line} names the network {name}, which doesn't exist; until it does, the rule fits \
             nothing there"
        )
    });
    let missing: Vec<_> = missing.collect();
    wanted.state.policy = policy::resolve(&wishes.policy, number, &actual.policy);
    wanted.refused.extend(missing.iter().cloned());
    wanted.missing_networks = missing;
}

/// The managed networks' bridges that exist, by network id.
fn bridges<'a>(docker: &'a DockerModel, host: &HostModel) -> BTreeMap<&'a str, IfIndex> {
    let managed = docker.networks.iter().filter(|(_, network)| network.is_managed());
    managed
        .filter_map(|(id, network)| {
            let (ifindex, link) = host.link_named(&network.bridge)?;
            link.mac.map(|_| (id.as_str(), ifindex))
        })
        .collect()
}

/// Where a program is attached.
fn attached(actual: &State, hook: Hook) -> impl Iterator<Item = IfIndex> {
    let attachments = actual.attachments.iter().filter(move |attachment| attachment.hook == hook);
    attachments.map(|attachment| attachment.ifindex)
}

/// Uplinks and their programs. XDP is for where the world is, or what is named; what is an uplink only because nobody else
/// would translate for it may be a bridge of virtual machines as well, for which no driver has it. Where it is it stays with the
/// uplink: a driver may set its queues up anew when it comes or goes, and lose packets meanwhile.
fn add_uplinks(
    wanted: &mut Wanted,
    host: &HostModel,
    bridges: &BTreeSet<IfIndex>,
    wishes: &Wishes,
    actual: &State,
    beside: &BTreeSet<IfIndex>,
) {
    let mut chosen = uplinks::choose(&wishes.uplinks, host, bridges, beside);
    let has_xdp: BTreeSet<IfIndex> = attached(actual, Hook::XdpUplink).collect();
    if wanted.state.mode == Mode::Takeover {
        chosen.leave_to_rules(host);
    }
    wanted.refused.extend(chosen.refused);
    wanted.unresolved.extend(chosen.missing);
    for ifindex in chosen.interfaces {
        if let Some(uplink) = uplinks::uplink(ifindex, host) {
            wanted.state.uplinks.insert(ifindex, uplink);
        }
        wanted.state.attachments.insert(Attachment { ifindex, hook: Hook::Uplink });
        wanted.state.attachments.insert(Attachment { ifindex, hook: Hook::Egress });
        let takes_xdp = !chosen.beside.contains(&ifindex) || has_xdp.contains(&ifindex);
        if wishes.xdp == Xdp::Attach && takes_xdp {
            wanted.state.attachments.insert(Attachment { ifindex, hook: Hook::XdpUplink });
        }
    }
}

/// Every veth on a managed bridge gets its program as soon as it is there, long before Docker says whose it is: then
/// the container's first packet finds it, and attaching, which takes the kernel a grace period, is over when the
/// container starts.
fn add_bridges(state: &mut State, host: &HostModel, bridges: &BTreeSet<IfIndex>) {
    state.attachments.extend(bridges.iter().map(|bridge| Attachment { ifindex: *bridge, hook: Hook::Bridge }));
    let on_bridge = |link: &Link| link.is_veth && link.controller.is_some_and(|bridge| bridges.contains(&bridge));
    let veths = host.links.iter().filter(|(_, link)| on_bridge(link));
    state.attachments.extend(veths.map(|(ifindex, _)| Attachment { ifindex: *ifindex, hook: Hook::Container }));
}

/// The loopback interface, by the name that the kernel gives it in every network namespace.
fn add_loopback(state: &mut State, host: &HostModel) {
    let loopback = host.link_named("lo").map(|(ifindex, _)| Attachment { ifindex, hook: Hook::Loopback });
    state.attachments.extend(loopback);
}

fn add_host_addresses(state: &mut State, host: &HostModel) {
    state.host_addresses = host.addresses.iter().map(|address| address.address).collect();
    state.host_addresses.insert(Ipv4Addr::LOCALHOST);
    state.host_addresses_ipv6.clone_from(&host.ipv6_addresses);
}

fn add_endpoints(
    wanted: &mut Wanted,
    docker: &DockerModel,
    host: &HostModel,
    bridges: &BTreeMap<&str, IfIndex>,
    wishes: &Wishes,
    container: &Container,
) {
    for interface in &container.interfaces {
        let managed = docker.networks.get(&interface.network).filter(|network| network.is_managed());
        let Some(network) = managed else { continue };
        if wanted.state.endpoints.contains_key(&interface.address) {
            wanted.refused.push(format!(
                "{} of container {} on network {} is another container's address too; only one can have it",
                interface.address, container.name, network.name
            ));
            continue;
        }
        match endpoint(host, bridges, &wanted.numbers, interface) {
            Ok(mut endpoint) => {
                let of_bridge = || host.first_address(endpoint.bridge_ifindex);
                endpoint.gateway = network.gateway.or_else(of_bridge).unwrap_or(Ipv4Addr::UNSPECIFIED);
                endpoint.masquerade = masquerade(wishes, &interface.network, network, interface.address);
                endpoint.full_cone = has_cones(wishes, &interface.network, network);
                if network.gateway_mode == GatewayMode::Isolated && wanted.state.mode == Mode::Sole {
                    // An old dockerd gives the bridge an address all the same.
                    endpoint.gateway = Ipv4Addr::UNSPECIFIED;
                }
                endpoint.terms = terms(network, &docker.engine, wanted.state.mode, host, wishes);
                if container.interfaces.len() > 1 {
                    endpoint.terms |= Terms::ON_SEVERAL;
                }
                wanted.state.endpoints.insert(interface.address, endpoint);
            }
            Err(reason) => {
                let object = format!("container {} on network {}", container.name, network.name);
                wanted.unresolved.push((object, reason.to_owned()));
            }
        }
    }
}

fn endpoint(
    host: &HostModel,
    bridges: &BTreeMap<&str, IfIndex>,
    numbers: &Numbers,
    interface: &Interface,
) -> Result<Endpoint, &'static str> {
    let bridge_ifindex = *bridges.get(interface.network.as_str()).ok_or("the network's bridge doesn't exist")?;
    let bridge_mac = host.links.get(&bridge_ifindex).and_then(|link| link.mac).ok_or("the bridge has no address")?;
    let network = *numbers.get(&bridge_ifindex).ok_or("all 65,535 network numbers are taken")?;
    let peer = interface.peer.ok_or("the host side of its veth isn't known yet")?;
    let veth = host.links.get(&peer.host_ifindex).ok_or("the host side of its veth doesn't exist")?;
    if !veth.is_veth || veth.controller != Some(bridge_ifindex) {
        return Err("the host side of its veth isn't a port of the network's bridge");
    }
    let mtu = veth.mtu.min(peer.mtu);
    let (gateway, masquerade) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    Ok(Endpoint {
        ifindex: peer.host_ifindex,
        bridge_ifindex,
        mac: peer.mac,
        bridge_mac,
        network,
        gateway,
        masquerade,
        terms: 0,
        full_cone: false,
        mtu,
        takes_frames: peer.takes_frames,
    })
}

/// The address that a container's flows leave with. Of several it keeps to one, as RFC 4787 asks (REQ-2), over restarts
/// too: which one follows from its own address.
fn masquerade(wishes: &Wishes, id: &str, network: &Network, address: Ipv4Addr) -> Ipv4Addr {
    let pool = wishes.masquerade.get(&network.name).or_else(|| wishes.masquerade.get(id));
    match pool.map(Vec::as_slice) {
        Some(pool @ [_, ..]) => pool[address.to_bits() as usize % pool.len()],
        _ => network.masquerade.unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

/// Whether the UDP ports of a network's containers are cones.
fn has_cones(wishes: &Wishes, id: &str, network: &Network) -> bool {
    let wish = wishes.full_cone.get(&network.name).or_else(|| wishes.full_cone.get(id));
    wish.copied().unwrap_or_else(|| network.full_cone.as_deref().and_then(switch).unwrap_or(false))
}

/// A switch as `docker network create --opt` takes it: the name alone switches on.
fn switch(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn refuse_options(wanted: &mut Wanted, docker: &DockerModel) {
    for network in docker.networks.values().filter(|network| network.is_managed()) {
        if let Some(value) = network.full_cone.as_deref().filter(|value| switch(value).is_none()) {
            wanted.refused.push(format!(
                "the option netpath.full_cone of network {} is {value:?}; it can be true or false, and is taken for false",
                network.name
            ));
        }
    }
}

/// Published ports lead to the container's address on the network with its default gateway, as Docker's own do; when
/// that network is internal or of another driver, none of them is netpath's. Where containers are reached by their own
/// addresses, their ports are published on those too, or instead.
fn add_published(wanted: &mut Wanted, published: &mut Published, docker: &DockerModel, container: &Container) {
    let gateway = docker.gateway_interface(container).map(|(_, interface)| interface.address);
    for interface in &container.interfaces {
        let Some(endpoint) = wanted.state.endpoints.get(&interface.address) else { continue };
        let (terms, is_gateway) = (endpoint.terms, gateway == Some(interface.address));
        if terms & Terms::INTERNAL != 0 {
            continue;
        }
        let is_alone = wanted.state.mode == Mode::Sole;
        if is_alone && (terms & Terms::ROUTED != 0 || is_gateway && terms & (Terms::DIRECT | Terms::TRUSTED) != 0) {
            add_open(published, container, interface.address);
        }
        if is_gateway && !is_routed(terms) {
            add_translated(wanted, published, container, interface.address);
        }
    }
}

/// Whether dockerd translates nothing for a network; in takeover one that doesn't know the mode still does.
const fn is_routed(terms: u16) -> bool {
    terms & Terms::ROUTED != 0
}

/// Ports on the container's own address.
fn add_open(published: &mut Published, container: &Container, address: Ipv4Addr) {
    for binding in &container.published {
        let port = PublishedPort { address, port: binding.container_port, protocol: binding.protocol };
        published.entry(port).or_insert(PublishedTarget { address, port: binding.container_port });
    }
}

/// Ports on the host's addresses.
fn add_translated(wanted: &mut Wanted, published: &mut Published, container: &Container, address: Ipv4Addr) {
    for binding in container.published.iter().filter(|binding| binding.host_port != 0) {
        if binding.protocol == Protocol::Sctp && binding.host_port != binding.container_port {
            wanted.refused.push(format!(
                "the SCTP port {} of container {} can't lead to its port {}: SCTP's checksum covers the ports; publish it \
                 under the same number",
                binding.host_port, container.name, binding.container_port
            ));
            continue;
        }
        let port = PublishedPort { address: binding.host_address, port: binding.host_port, protocol: binding.protocol };
        let target = PublishedTarget { address, port: binding.container_port };
        published.entry(port).or_insert(target);
    }
}

/// By which veth a container may send with which address, besides each endpoint's own: with the one that it has on another
/// network, where neither network keeps its containers' packets in or their addresses as they are.
fn add_senders(wanted: &mut Wanted, docker: &DockerModel, wishes: &Wishes, container: &Container) {
    let endpoints = &wanted.state.endpoints;
    let known = || {
        let interfaces = container.interfaces.iter();
        interfaces.filter_map(|interface| Some((interface, endpoints.get(&interface.address)?)))
    };
    let may_mix = |endpoint: &Endpoint| endpoint.terms & (Terms::INTERNAL | Terms::NO_MASQUERADE) == 0;
    let mut admitted = BTreeMap::new();
    for (interface, endpoint) in known() {
        let name = docker.networks.get(&interface.network).map(|network| &network.name);
        let any_source = name.into_iter().chain([&interface.network]).any(|name| wishes.foreign_sources.contains(name));
        let admission = Admission { network: endpoint.network, terms: endpoint.terms, any_source };
        admitted.insert(Entrance::Veth(endpoint.ifindex), admission);
        let others =
            known().filter(|(other, at)| other.address != interface.address && may_mix(at) && may_mix(endpoint));
        let own = others.map(|(other, _)| (Entrance::Address(endpoint.ifindex, other.address), Admission::default()));
        admitted.extend(own);
    }
    wanted.state.admitted.extend(admitted);
}

/// Uplinks that networks trust. In sole mode nothing else carries a container's own address, so an interface must be an
/// uplink to be trusted.
fn add_trusted(wanted: &mut Wanted, docker: &DockerModel, host: &HostModel, bridges: &BTreeMap<&str, IfIndex>) {
    for (id, bridge) in bridges {
        let (Some(network), Some(number)) = (docker.networks.get(*id), wanted.numbers.get(bridge)) else { continue };
        for name in &network.trusted {
            let uplink = host.link_named(name).map(|(ifindex, _)| ifindex);
            match uplink.filter(|ifindex| wanted.state.uplinks.contains_key(ifindex)) {
                Some(ifindex) => {
                    wanted.state.admitted.insert(Entrance::Trusted(ifindex, *number), Admission::default());
                }
                None if wanted.state.mode == Mode::Sole => wanted.refused.push(format!(
                    "network {} trusts the interface {name}, which is no uplink: nothing comes in by it; name it with --uplink",
                    network.name
                )),
                None => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
