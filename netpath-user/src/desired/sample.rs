//! A stock host for tests: eth0 with the default route, docker0 with the container `web` that publishes port 8080.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    docker::{Binding, Container, DockerModel, Engine, Interface, Network, Peer},
    host::{Address, HostModel, Link},
    model::{IfIndex, Protocol},
};

pub(crate) const ETH0: IfIndex = 2;
pub(crate) const DOCKER0: IfIndex = 3;
pub(crate) const VETH: IfIndex = 7;
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

pub(crate) fn link(name: &str, last: u8, controller: Option<IfIndex>) -> Link {
    Link {
        name: name.to_owned(),
        mac: Some([2, 0, 0, 0, 0, last]),
        mtu: 1500,
        controller,
        is_veth: controller.is_some(),
        is_bridge: false,
    }
}

pub(crate) fn host_address(ifindex: IfIndex, address: Ipv4Addr, prefix_length: u8) -> Address {
    Address { ifindex, address, prefix_length, masquerades: true }
}

pub(crate) fn network(name: &str, bridge: &str) -> Network {
    let driver = "bridge".to_owned();
    Network { name: name.to_owned(), driver, bridge: bridge.to_owned(), ..Network::default() }
}

pub(crate) fn interface(network: &str, address: Ipv4Addr, host_ifindex: IfIndex) -> Interface {
    Interface {
        network: network.to_owned(),
        endpoint: format!("{network}-{address}"),
        address,
        gateway: Some(GATEWAY),
        has_ipv6_gateway: false,
        gateway_priority: 0,
        peer: Some(Peer { host_ifindex, mac: [2, 66, 172, 17, 0, 2], mtu: 1500, takes_frames: false }),
    }
}

pub(crate) fn docker() -> DockerModel {
    let binding =
        Binding { host_address: Ipv4Addr::UNSPECIFIED, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    let web = Container {
        name: "web".to_owned(),
        interfaces: vec![interface("default", WEB, VETH)],
        published: vec![binding],
        ..Container::default()
    };
    DockerModel {
        engine: Engine::default(),
        networks: [("default".to_owned(), network("bridge", "docker0"))].into(),
        containers: [("web".to_owned(), web)].into(),
    }
}

/// The host's IPv6 address.
pub(crate) const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

pub(crate) fn host() -> HostModel {
    let links = [
        (1, Link { name: "lo".to_owned(), mac: None, mtu: 65536, ..Link::default() }),
        (ETH0, link("eth0", 1, None)),
        (DOCKER0, link("docker0", 2, None)),
        (VETH, link("veth0", 3, Some(DOCKER0))),
    ];
    HostModel {
        links: links.into(),
        addresses: vec![
            host_address(1, Ipv4Addr::LOCALHOST, 8),
            host_address(ETH0, HOST, 24),
            host_address(DOCKER0, GATEWAY, 16),
        ],
        ipv6_addresses: [HOST_IPV6].into(),
        default_routes: vec![ETH0],
        gateways: [(ETH0, ROUTER)].into(),
        bridge_asks_rules: true,
    }
}
