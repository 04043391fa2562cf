//! Which macvlan containers the host should reach, and by which interface of its own.
//!
//! The kernel keeps a macvlan's parent apart from what hangs on it, so the host can't reach its own macvlan containers. Another
//! macvlan interface on the same parent can, if both bridge: the host gets one, and a route to each container.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{docker::DockerModel, host::HostModel, model::IfIndex};
use crate::{
    report::{MacvlanContainer, MacvlanParent},
    subnet::Subnet,
};

/// What the names of the host's own macvlan interfaces begin with; the number of the parent follows.
const NAME: &str = "np-macvlan";

/// The host's own macvlan interface on a parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// The containers that are reached by it, and the host's address that each of them sees.
    pub containers: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// The interfaces that the host should have, by parent.
pub type Wanted = BTreeMap<IfIndex, Beside>;

/// The name of the host's own macvlan interface on a parent.
#[must_use]
pub fn name(parent: IfIndex) -> String {
    format!("{NAME}{parent}")
}

/// Whether an interface's name says that it is one of these.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What the host should have. Only containers in a subnet of the parent's addresses count: others couldn't answer.
#[must_use]
pub fn wanted(docker: &DockerModel, host: &HostModel) -> Wanted {
    let mut wanted = Wanted::new();
    for interface in docker.containers.values().flat_map(|container| &container.interfaces) {
        let parent = docker.networks.get(&interface.network).map_or("", |network| network.parent.as_str());
        let Some((parent, _)) = host.link_named(parent) else { continue };
        let holds = |(address, length): &(Ipv4Addr, u8)| Subnet::new(*address, *length).contains(interface.address);
        if let Some((source, _)) = host.masquerade_addresses(parent).into_iter().find(holds) {
            wanted.entry(parent).or_default().containers.insert(interface.address, source);
        }
    }
    wanted
}

/// The parents of what could be reached, each with the host's own interface there, if it is there.
#[must_use]
pub fn parents(wanted: &Wanted, host: &HostModel) -> Vec<MacvlanParent> {
    let parents = wanted.iter().map(|(parent, beside)| MacvlanParent {
        parent: host.links.get(parent).map(|link| link.name.clone()).unwrap_or_default(),
        ifindex: *parent,
        interface: host.link_named(&name(*parent)).map(|(_, link)| link.name.clone()),
        containers: beside
            .containers
            .iter()
            .map(|(address, host_address)| MacvlanContainer { address: *address, host_address: *host_address })
            .collect(),
    });
    parents.collect()
}

/// The same from interfaces' numbers and names alone, which know no containers.
#[must_use]
pub fn parents_of_links(links: &[(IfIndex, String)]) -> Vec<MacvlanParent> {
    let of = |text: &String| text.strip_prefix(NAME).filter(|_| is_ours(text)).and_then(|rest| rest.parse().ok());
    let own = links.iter().filter_map(|(_, text)| Some((text, of(text)?)));
    own.map(|(text, ifindex): (_, IfIndex)| MacvlanParent {
        parent: links.iter().find(|(number, _)| *number == ifindex).map(|(_, name)| name.clone()).unwrap_or_default(),
        ifindex,
        interface: Some(text.clone()),
        containers: Vec::new(),
    })
    .collect()
}

/// Interfaces that are there although, or because, they are the host's own.
#[must_use]
pub fn present(host: &HostModel) -> BTreeSet<IfIndex> {
    host.links.iter().filter(|(_, link)| is_ours(&link.name)).map(|(ifindex, _)| *ifindex).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{
        docker::{Container, Interface, Network},
        host::{Address, Link},
    };

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const CONTAINER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

    fn host() -> HostModel {
        let link = Link { name: "eth0".to_owned(), ..Link::default() };
        let address = Address { ifindex: 2, address: HOST, prefix_length: 24, masquerades: true };
        HostModel { links: [(2, link)].into(), addresses: vec![address], ..HostModel::default() }
    }

    fn docker(parent: &str, address: Ipv4Addr) -> DockerModel {
        let network = Network { driver: "macvlan".to_owned(), parent: parent.to_owned(), ..Network::default() };
        let interface = Interface {
            network: "n".to_owned(),
            endpoint: "e".to_owned(),
            address,
            gateway: None,
            has_ipv6_gateway: false,
            gateway_priority: 0,
            peer: None,
        };
        let container = Container { interfaces: vec![interface], ..Container::default() };
        DockerModel {
            networks: [("n".to_owned(), network)].into(),
            containers: [("c".to_owned(), container)].into(),
            ..DockerModel::default()
        }
    }

    #[test]
    fn a_container_in_the_hosts_subnet_is_reached_from_the_address_there() {
        let expected = Wanted::from([(2, Beside { containers: [(CONTAINER, HOST)].into() })]);
        assert_eq!(wanted(&docker("eth0", CONTAINER), &host()), expected);
    }

    #[test]
    fn parents_show_the_hosts_interface_once_it_is_there() {
        let mut host = host();
        let wanted = wanted(&docker("eth0", CONTAINER), &host);
        let shown = |host: &HostModel| parents(&wanted, host).remove(0);
        assert_eq!((shown(&host).parent.as_str(), shown(&host).interface), ("eth0", None));
        host.links.insert(9, Link { name: name(2), ..Link::default() });
        assert_eq!(shown(&host).interface.as_deref(), Some("np-macvlan2"));
        assert_eq!(shown(&host).containers, [MacvlanContainer { address: CONTAINER, host_address: HOST }]);
        let links: Vec<_> = host.links.iter().map(|(ifindex, link)| (*ifindex, link.name.clone())).collect();
        assert_eq!(parents_of_links(&links), [MacvlanParent { containers: Vec::new(), ..shown(&host) }]);
        assert!(parents_of_links(&links[..1]).is_empty());
    }

    #[test]
    fn others_are_not() {
        for (parent, address) in [("", CONTAINER), ("eth1", CONTAINER), ("eth0", Ipv4Addr::new(198, 51, 100, 1))] {
            assert_eq!(wanted(&docker(parent, address), &host()), Wanted::new(), "{parent} {address}");
        }
    }

    #[test]
    fn only_names_with_a_number_are_ours() {
        assert!(is_ours(&name(12)));
        assert!(name(u32::from(u16::MAX)).len() <= 15, "the kernel's limit");
        for other in ["np-macvlan", "np-macvlan0x", "eth0"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
