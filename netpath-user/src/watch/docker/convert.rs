//! From the API's answers to the model. Fields that Docker leaves out, leaves empty or fills with IPv6 are skipped.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
};

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage, Network as ApiNetwork, PortMap,
};

use crate::{
    desired::{
        docker::{Binding, Container, GatewayMode, Id, Interface, Network},
        model::Protocol,
    },
    watch::{
        dockerd::parse_bool,
        netns::{Search, Sought},
    },
};

mod option {
    pub(super) const NAME: &str = "com.docker.network.bridge.name";
    pub(super) const DEFAULT: &str = "com.docker.network.bridge.default_bridge";
    pub(super) const FULL_CONE: &str = "netpath.full_cone";
    pub(super) const HOST_IPV4: &str = "com.docker.network.host_ipv4";
    pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub(super) const GATEWAY_MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    pub(super) const PARENT: &str = "parent";
    pub(super) const MACVLAN_MODE: &str = "macvlan_mode";
    pub(super) const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
}

/// The bridge of the default network, where it has no other name.
const DEFAULT_BRIDGE: &str = "docker0";

/// A running container and how to look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The container; its interfaces' peers aren't known yet.
    pub(super) container: Container,
    /// Where to find the interfaces' peers, in the same order.
    pub(super) search: Search,
}

/// A network.
pub(super) fn network(api: &ApiNetwork) -> Option<(Id, Network)> {
    let id = api.id.clone()?;
    let options = api.options.clone().unwrap_or_default();
    let configurations = api.ipam.as_ref().and_then(|ipam| ipam.config.as_deref()).unwrap_or_default();
    let subnets = configurations.iter().filter_map(|configuration| subnet(configuration.subnet.as_deref()?));
    let gateway = configurations.iter().find_map(|configuration| configuration.gateway.as_deref()?.parse().ok());
    let network = Network {
        name: api.name.clone().unwrap_or_default(),
        driver: api.driver.clone().unwrap_or_default(),
        internal: api.internal.unwrap_or(false),
        bridge: bridge(&id, &options),
        subnets: subnets.collect(),
        gateway,
        masquerade: options.get(option::HOST_IPV4).and_then(|address| address.parse().ok()),
        full_cone: options.get(option::FULL_CONE).cloned(),
        is_default: is_default(&options),
        icc: is_on(&options, option::ICC),
        masquerades: is_on(&options, option::MASQUERADE),
        gateway_mode: gateway_mode(&options),
        trusted: trusted(&options),
        parent: parent(api.driver.as_deref(), &options),
        refused: false,
    };
    Some((id, network))
}

fn bridge(id: &str, options: &HashMap<String, String>) -> String {
    match options.get(option::NAME) {
        Some(name) if !name.is_empty() => name.clone(),
        _ if is_default(options) => DEFAULT_BRIDGE.to_owned(),
        _ => format!("br-{}", id.get(..12).unwrap_or(id)),
    }
}

fn is_default(options: &HashMap<String, String>) -> bool {
    options.get(option::DEFAULT).is_some_and(|value| value == "true")
}

/// An option that is on unless it is switched off.
fn is_on(options: &HashMap<String, String>, name: &str) -> bool {
    options.get(name).and_then(|value| parse_bool(value)).unwrap_or(true)
}

/// The gateway's mode; dockerd refuses what it doesn't know, an old one knows none.
fn gateway_mode(options: &HashMap<String, String>) -> GatewayMode {
    match options.get(option::GATEWAY_MODE).map(String::as_str) {
        Some("nat-unprotected") => GatewayMode::NatUnprotected,
        Some("routed") => GatewayMode::Routed,
        Some("isolated") => GatewayMode::Isolated,
        _ => GatewayMode::Nat,
    }
}

/// Names with colons between them.
fn trusted(options: &HashMap<String, String>) -> Vec<String> {
    let names = options.get(option::TRUSTED).map(String::as_str).unwrap_or_default();
    names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The interface that a macvlan network hangs on, if it bridges, which it does unless it is told otherwise.
fn parent(driver: Option<&str>, options: &HashMap<String, String>) -> String {
    let bridges = matches!(options.get(option::MACVLAN_MODE).map(String::as_str), None | Some("" | "bridge"));
    let parent = options.get(option::PARENT).filter(|_| driver == Some("macvlan") && bridges);
    parent.cloned().unwrap_or_default()
}

fn subnet(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok().filter(|length| *length <= 32)?))
}

/// `enable_ip_masquerade` of the default network, which dockerd forces to false when it manages no rules.
pub(super) fn default_masquerades(networks: &[ApiNetwork]) -> Option<bool> {
    let mut options = networks.iter().filter_map(|network| network.options.as_ref());
    let default = options.find(|options| is_default(options))?;
    default.get(option::MASQUERADE).map(|value| value != "false")
}

/// A container, if it runs.
pub(super) fn container(api: &ContainerInspectResponse) -> Option<Sighting> {
    let state = api.state.as_ref()?;
    let pid = state.pid.filter(|pid| *pid > 0)?;
    state.running.filter(|running| *running)?;
    let settings = api.network_settings.as_ref();
    let endpoints = settings.and_then(|settings| settings.networks.as_ref());
    let mut found: Vec<(Interface, Sought)> =
        endpoints.into_iter().flatten().filter_map(|(_, at)| interface(at)).collect();
    found.sort_by(|(left, _), (right, _)| left.network.cmp(&right.network));
    let (interfaces, sought) = found.into_iter().unzip();
    let name = api.name.as_deref().unwrap_or_default();
    let container = Container {
        name: name.strip_prefix('/').unwrap_or(name).to_owned(),
        interfaces,
        published: settings.and_then(|settings| settings.ports.as_ref()).map(bindings).unwrap_or_default(),
        exposed: exposed(api),
        links: links(api),
    };
    let sandbox = settings.and_then(|settings| settings.sandbox_key.clone()).filter(|key| !key.is_empty());
    let process = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let namespaces = std::iter::once(process).chain(sandbox.map(PathBuf::from)).collect();
    Some(Sighting { container, search: Search { namespaces, interfaces: sought } })
}

fn interface(api: &EndpointSettings) -> Option<(Interface, Sought)> {
    let address = api.ip_address.as_deref()?.parse().ok()?;
    let interface = Interface {
        network: api.network_id.clone()?,
        endpoint: api.endpoint_id.clone()?,
        address,
        gateway: api.gateway.as_deref().and_then(|gateway| gateway.parse().ok()),
        has_ipv6_gateway: api.ipv6_gateway.as_deref().is_some_and(|gateway| !gateway.is_empty()),
        gateway_priority: api.gw_priority.unwrap_or(0),
        peer: None,
    };
    Some((interface, Sought { address, mac: api.mac_address.as_deref().and_then(ethernet_address) }))
}

fn ethernet_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn bindings(ports: &PortMap) -> Vec<Binding> {
    let mut bindings = Vec::new();
    for (port, hosts) in ports {
        let Some((container_port, protocol)) = container_port(port) else { continue };
        for host in hosts.iter().flatten() {
            let host_address = match host.host_ip.as_deref() {
                None | Some("") => Some(Ipv4Addr::UNSPECIFIED),
                Some(address) => address.parse().ok(),
            };
            // A port of a routed network has none of the host's.
            let host_port = match host.host_port.as_deref() {
                None | Some("") => Some(0),
                Some(port) => port.parse().ok(),
            };
            if let (Some(host_address), Some(host_port)) = (host_address, host_port) {
                bindings.push(Binding { host_address, host_port, container_port, protocol });
            }
        }
    }
    bindings.sort();
    bindings
}

/// The ports that a container exposes: those of its configuration, and those that are published.
fn exposed(api: &ContainerInspectResponse) -> Vec<(u16, Protocol)> {
    let configured = api.config.as_ref().and_then(|config| config.exposed_ports.as_ref());
    let published = api.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    let words = configured.into_iter().flatten().chain(published.into_iter().flat_map(HashMap::keys));
    let ports: BTreeSet<_> = words.filter_map(|word| container_port(word)).collect();
    ports.into_iter().collect()
}

/// The names of the containers that one is linked to: `/db:/web/alias` leads to `db`.
fn links(api: &ContainerInspectResponse) -> Vec<String> {
    let links = api.host_config.as_ref().and_then(|config| config.links.as_ref());
    let names = links.into_iter().flatten().filter_map(|link| link.split(':').next());
    names.map(|name| name.trim_start_matches('/').to_owned()).collect()
}

/// `80/tcp`.
fn container_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

/// What a list of containers says of one of them that changes when its interfaces do: name and endpoints.
pub(super) type Fingerprint = (String, Vec<(Id, Id)>);

/// The fingerprint in a list of containers.
pub(super) fn summary(api: &ContainerSummary) -> Option<(Id, Fingerprint)> {
    let id = api.id.clone()?;
    // Links of other containers to this one show as further names, `/other/alias`.
    let names = api.names.as_deref().unwrap_or_default();
    let own = names.iter().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/'));
    let endpoints = api.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let interfaces = endpoints.into_iter().flatten().filter_map(|(_, at)| interface(at));
    let mut endpoints: Vec<(Id, Id)> =
        interfaces.map(|(interface, _)| (interface.network, interface.endpoint)).collect();
    endpoints.sort();
    Some((id, (own.unwrap_or_default().to_owned(), endpoints)))
}

/// The fingerprint of a container in the model.
pub(super) fn fingerprint(container: &Container) -> Fingerprint {
    let interfaces = container.interfaces.iter();
    let mut endpoints: Vec<(Id, Id)> =
        interfaces.map(|interface| (interface.network.clone(), interface.endpoint.clone())).collect();
    endpoints.sort();
    (container.name.clone(), endpoints)
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mention {
    /// A container.
    Container(Id),
    /// The list of networks.
    Networks,
}

/// What an event is about, if that can matter.
pub(super) fn mention(event: &EventMessage) -> Option<Mention> {
    use bollard::models::EventMessageTypeEnum::{CONTAINER, NETWORK};
    let actor = event.actor.as_ref();
    // Of a container whose start failed, dockerd tells that nobody has left a network.
    let container = |id: String| Some(id).filter(|id| !id.is_empty()).map(Mention::Container);
    match (event.typ?, event.action.as_deref()?) {
        (CONTAINER, _) => actor?.id.clone().and_then(container),
        (NETWORK, "connect" | "disconnect") => {
            actor?.attributes.as_ref()?.get("container").cloned().and_then(container)
        }
        (NETWORK, _) => Some(Mention::Networks),
        _ => None,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
