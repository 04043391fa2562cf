//! The rules of the wanted state, one row each. All rows vary one host: eth0 with the default route, docker0 with one
//! container that publishes port 8080.

use super::*;
use crate::desired::{
    host::Address,
    model::{LinkEnd, Uplink},
    sample::{
        self, DOCKER0, ETH0, GATEWAY, HOST, HOST_IPV6, ROUTER, VETH, WEB, host_address, interface, link, network,
    },
};

struct Case {
    docker: DockerModel,
    host: HostModel,
    wishes: Wishes,
    actual: State,
}

impl Case {
    fn build(&self) -> Wanted {
        build(&self.docker, &self.host, Mode::Takeover, &self.wishes, &self.actual)
    }

    fn web(&mut self) -> &mut Container {
        self.docker.containers.get_mut("web").unwrap()
    }

    fn hooks(&self, hook: Hook) -> Vec<IfIndex> {
        let wanted = self.build().state.attachments;
        wanted.into_iter().filter(|attachment| attachment.hook == hook).map(|attachment| attachment.ifindex).collect()
    }
}

fn case() -> Case {
    Case {
        docker: sample::docker(),
        host: sample::host(),
        wishes: Wishes { uplinks: UplinkChoice::DefaultRoutes, xdp: Xdp::Attach, ..Wishes::default() },
        actual: State::default(),
    }
}

/// Makes the case's container one of two networks, the second of which is called `name`.
fn with_second_network(name: &str) -> Case {
    let mut case = case();
    case.docker.networks.insert("second".to_owned(), network(name, "br-second"));
    case.host.links.insert(4, link("br-second", 4, None));
    case.host.links.insert(8, link("veth1", 5, Some(4)));
    case.web().interfaces.push(interface("second", Ipv4Addr::new(172, 18, 0, 2), 8));
    case
}

#[test]
fn a_stock_host_with_one_container() {
    let wanted = case().build();
    let endpoint = Endpoint {
        ifindex: VETH,
        bridge_ifindex: DOCKER0,
        mac: [2, 66, 172, 17, 0, 2],
        bridge_mac: [2, 0, 0, 0, 0, 2],
        network: 3,
        gateway: GATEWAY,
        masquerade: Ipv4Addr::UNSPECIFIED,
        terms: 0,
        full_cone: false,
        mtu: 1500,
        takes_frames: false,
    };
    let port = PublishedPort { address: Ipv4Addr::UNSPECIFIED, protocol: Protocol::Tcp, port: 8080 };
    let at = |ifindex, hook| Attachment { ifindex, hook };
    let expected = State {
        mode: Mode::Takeover,
        policy: policy::Policy::default(),
        endpoints: [(WEB, endpoint)].into(),
        admitted: [(Entrance::Veth(VETH), Admission { network: 3, ..Admission::default() })].into(),
        published: [(port.into(), PublishedTarget { address: WEB, port: 80 })].into(),
        uplinks: [(ETH0, Uplink { addresses: vec![(HOST, 24)], mtu: 1500, gateway: ROUTER })].into(),
        host_addresses: [Ipv4Addr::LOCALHOST, HOST, GATEWAY].into(),
        host_addresses_ipv6: [HOST_IPV6].into(),
        attachments: [
            at(ETH0, Hook::Uplink),
            at(ETH0, Hook::Egress),
            at(ETH0, Hook::XdpUplink),
            at(VETH, Hook::Container),
            at(DOCKER0, Hook::Bridge),
            at(1, Hook::Loopback),
        ]
        .into(),
    };
    assert_eq!(wanted.state, expected);
    assert_eq!((wanted.refused, wanted.unresolved), (vec![], vec![]));
}

#[test]
fn without_xdp_the_uplink_gets_only_its_tc_program() {
    let mut case = case();
    case.wishes.xdp = Xdp::Off;
    assert_eq!((case.hooks(Hook::Uplink), case.hooks(Hook::XdpUplink)), (vec![ETH0], vec![]));
}

#[test]
fn an_uplink_without_an_address_is_attached_but_masquerades_nothing() {
    let mut case = case();
    case.host.addresses.retain(|address| address.ifindex != ETH0);
    let uplinks = case.build().state.uplinks;
    assert_eq!((uplinks[&ETH0].addresses.len(), case.hooks(Hook::Uplink)), (0, vec![ETH0]));
}

#[test]
fn secondary_addresses_are_the_hosts_but_masquerade_nothing() {
    let mut case = case();
    let secondary = Ipv4Addr::new(192, 0, 2, 9);
    case.host.addresses.push(Address { masquerades: false, ..host_address(ETH0, secondary, 24) });
    let state = case.build().state;
    assert_eq!(state.uplinks[&ETH0].addresses, [(HOST, 24)]);
    assert!(state.host_addresses.contains(&secondary));
}

#[test]
fn a_named_uplink_replaces_the_default_routes() {
    let mut case = case();
    case.host.links.insert(5, link("eth1", 9, None));
    case.wishes.uplinks = UplinkChoice::Named(vec!["eth1".to_owned()]);
    assert_eq!(case.hooks(Hook::Uplink), [5]);
}

#[test]
fn a_named_uplink_that_vanished_is_missed_until_it_is_back() {
    let mut case = case();
    case.wishes.uplinks = UplinkChoice::Named(vec!["eth0".to_owned()]);
    let eth0 = case.host.links.remove(&ETH0).unwrap();
    let missing = ("uplink eth0".to_owned(), "the interface doesn't exist; it is used once it appears".to_owned());
    assert_eq!((case.hooks(Hook::Uplink), case.build().unresolved), (vec![], vec![missing]));
    case.host.links.insert(11, eth0);
    assert_eq!((case.hooks(Hook::Uplink), case.build().unresolved), (vec![11], vec![]));
}

#[test]
fn a_default_route_through_something_else_than_ethernet_is_refused() {
    let mut case = case();
    case.host.links.insert(5, Link { name: "tun0".to_owned(), ..Link::default() });
    case.host.default_routes = vec![5, ETH0];
    assert_eq!(case.hooks(Hook::Uplink), [ETH0]);
    assert!(case.build().refused[0].starts_with("tun0 isn't an Ethernet interface"));
}

#[test]
fn a_bridge_whose_packets_dockers_rules_get_first_is_left_to_them() {
    let mut case = case();
    case.host.links.get_mut(&ETH0).unwrap().is_bridge = true;
    assert_eq!(case.hooks(Hook::Uplink), Vec::<IfIndex>::new());
    let wanted = case.build();
    assert!(wanted.state.uplinks.is_empty());
    assert!(wanted.refused[0].starts_with("eth0: it is a bridge, and Docker's rules"), "{:?}", wanted.refused);
    let sole = build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual);
    assert!(sole.state.uplinks.contains_key(&ETH0) && sole.refused.is_empty(), "{:?}", sole.refused);
    case.host.bridge_asks_rules = false;
    assert_eq!((case.hooks(Hook::Uplink), case.build().refused), (vec![ETH0], vec![]));
}

#[test]
fn an_uplink_stays_while_there_is_no_default_route() {
    let mut case = case();
    case.actual = case.build().state;
    case.host.default_routes.clear();
    assert_eq!(case.build().state, case.actual);
}

#[test]
fn an_uplink_stays_one_when_its_address_or_the_default_route_goes_elsewhere() {
    let mut case = case();
    case.actual = case.build().state;
    case.host.links.insert(20, link("eth1", 9, None));
    case.host.default_routes = vec![20];
    case.host.addresses.retain(|address| address.ifindex != ETH0);
    let hooks = [Hook::Uplink, Hook::Egress, Hook::XdpUplink];
    assert_eq!(hooks.map(|hook| case.hooks(hook)), [[ETH0, 20], [ETH0, 20], [ETH0, 20]]);
    assert!(case.build().state.uplinks[&ETH0].addresses.is_empty());
    let meanwhile = build_without_docker(&case.host, &case.wishes, &case.actual).state;
    assert_eq!(meanwhile.uplinks.keys().copied().collect::<Vec<_>>(), [ETH0, 20]);
    case.host.links.get_mut(&ETH0).unwrap().controller = Some(20);
    assert_eq!(case.hooks(Hook::Uplink), [20], "the bridge has its packets, and the addresses");
    case.host.links.remove(&ETH0);
    assert_eq!(case.hooks(Hook::Uplink), [20]);
}

#[test]
fn a_bridge_that_becomes_dockers_is_no_uplink_any_more() {
    let mut case = case();
    case.host.links.insert(20, link("br0", 9, None));
    case.host.default_routes = vec![ETH0, 20];
    case.actual = case.build().state;
    assert_eq!(case.hooks(Hook::Uplink), [ETH0, 20]);
    case.host.default_routes = vec![ETH0];
    for driver in ["bridge", "overlay"] {
        case.docker
            .networks
            .insert("of-br0".to_owned(), Network { driver: driver.to_owned(), ..network("of-br0", "br0") });
        assert_eq!(case.hooks(Hook::Uplink), [ETH0], "{driver}");
    }
}

#[test]
fn in_sole_mode_other_interfaces_with_an_address_are_uplinks_too() {
    let mut case = case();
    let at = |ifindex, last, masquerades| Address {
        ifindex,
        address: Ipv4Addr::new(10, 5, 0, last),
        prefix_length: 24,
        masquerades,
    };
    case.host.links.insert(20, link("eth1", 9, None));
    case.host.links.insert(21, link("eth2", 10, None));
    case.host.links.insert(22, link("a-port", 11, Some(20)));
    case.host.links.insert(23, Link { name: "tun0".to_owned(), ..Link::default() });
    case.host.links.insert(24, link("br-other", 12, None));
    case.docker
        .networks
        .insert("other".to_owned(), Network { driver: "overlay".to_owned(), ..network("other", "br-other") });
    case.host.addresses.extend([at(20, 1, true), at(21, 2, false), at(22, 3, true), at(23, 4, true), at(24, 5, true)]);
    let sole = |case: &Case| build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual).state;
    let hooks = |state: &State, hook| -> Vec<IfIndex> {
        state.attachments.iter().filter(|at| at.hook == hook).map(|at| at.ifindex).collect()
    };
    let state = sole(&case);
    assert_eq!((hooks(&state, Hook::Uplink), hooks(&state, Hook::Egress)), (vec![ETH0, 20], vec![ETH0, 20]));
    assert_eq!(hooks(&state, Hook::XdpUplink), [ETH0], "XDP is for the default routes' interfaces");
    assert!(state.uplinks.contains_key(&20));
    assert_eq!(case.hooks(Hook::Uplink), [ETH0], "in takeover the kernel carries the others");
    case.actual = state;
    let meanwhile = build_without_docker(&case.host, &case.wishes, &case.actual).state;
    assert_eq!(hooks(&meanwhile, Hook::Uplink), [ETH0, 20], "nothing is taken away before Docker's list has come");
    case.host.default_routes = vec![20];
    assert_eq!(hooks(&sole(&case), Hook::Uplink), [ETH0, 20], "the default route moves, connections stay");
    case.wishes.uplinks = UplinkChoice::Named(vec!["eth0".to_owned()]);
    assert_eq!(hooks(&sole(&case), Hook::Uplink), [ETH0], "who names uplinks gets those");
}

#[test]
fn a_default_route_through_a_docker_bridge_makes_no_uplink() {
    let mut case = case();
    case.host.default_routes = vec![DOCKER0];
    assert_eq!(case.hooks(Hook::Uplink), Vec::<IfIndex>::new());
}

#[test]
fn an_endpoint_knows_that_its_container_is_on_other_networks_too() {
    let terms = |case: &Case| case.build().state.endpoints[&WEB].terms & Terms::ON_SEVERAL;
    assert_eq!((terms(&case()), terms(&with_second_network("second"))), (0, Terms::ON_SEVERAL));
}

#[test]
fn ports_lead_to_the_network_with_the_default_gateway() {
    type Row = (&'static str, fn(&mut Case), Ipv4Addr);
    let rows: [Row; 7] = [
        ("the first name wins", |_| (), Ipv4Addr::new(172, 18, 0, 2)),
        ("gateways of both families come first", |case| case.web().interfaces[0].has_ipv6_gateway = true, WEB),
        (
            "a way out comes before both families",
            |case| {
                case.docker.networks.get_mut("default").unwrap().internal = true;
                case.web().interfaces[0].has_ipv6_gateway = true;
            },
            Ipv4Addr::new(172, 18, 0, 2),
        ),
        (
            "swarm's own network comes last",
            |case| case.docker.networks.get_mut("second").unwrap().name = "docker_gwbridge".to_owned(),
            WEB,
        ),
        ("priority beats the name", |case| case.web().interfaces[0].gateway_priority = 1, WEB),
        ("an internal network comes last", |case| case.docker.networks.get_mut("second").unwrap().internal = true, WEB),
        ("a network without a gateway doesn't count", |case| case.web().interfaces[1].gateway = None, WEB),
    ];
    for (description, change, expected) in rows {
        let mut case = with_second_network("aaa");
        change(&mut case);
        let targets: Vec<_> = case.build().state.published.values().map(|target| target.address).collect();
        assert_eq!(targets, [expected], "{description}");
    }
}

#[test]
fn ports_of_a_container_behind_an_unmanaged_gateway_are_not_netpaths() {
    let mut case = with_second_network("aaa");
    case.docker.networks.get_mut("second").unwrap().driver = "macvlan".to_owned();
    let state = case.build().state;
    assert_eq!((state.published.len(), state.endpoints.len()), (0, 1));
}

#[test]
fn a_container_on_an_internal_network_is_bridged_but_publishes_nothing() {
    let mut case = case();
    case.docker.networks.get_mut("default").unwrap().internal = true;
    let state = case.build().state;
    assert_eq!((state.published.len(), state.endpoints.len()), (0, 1));
}

#[test]
fn an_endpoint_waits_for_everything_that_it_refers_to() {
    type Row = (&'static str, fn(&mut Case));
    let rows: [Row; 4] = [
        ("the host side of its veth isn't known yet", |case| case.web().interfaces[0].peer = None),
        ("the host side of its veth doesn't exist", |case| {
            case.host.links.remove(&VETH);
        }),
        ("the host side of its veth isn't a port of the network's bridge", |case| {
            case.host.links.get_mut(&VETH).unwrap().controller = None;
        }),
        ("the network's bridge doesn't exist", |case| {
            case.host.links.remove(&DOCKER0);
        }),
    ];
    for (reason, change) in rows {
        let mut case = case();
        change(&mut case);
        let wanted = case.build();
        let object = "container web on network bridge".to_owned();
        assert_eq!(wanted.unresolved, [(object, reason.to_owned())]);
        assert_eq!((wanted.state.endpoints.len(), wanted.state.published.len()), (0, 0), "{reason}");
    }
}

#[test]
fn a_veth_on_a_managed_bridge_has_its_program_before_docker_says_whose_it_is() {
    let mut case = case();
    case.docker.containers.clear();
    assert_eq!(case.hooks(Hook::Container), [VETH]);
    case.host.links.get_mut(&VETH).unwrap().is_veth = false;
    assert_eq!(case.hooks(Hook::Container), Vec::<IfIndex>::new());
}

#[test]
fn a_network_keeps_its_number() {
    let mut case = case();
    case.actual = case.build().state;
    case.actual.endpoints.get_mut(&WEB).unwrap().network = 77;
    assert_eq!(case.build().state.endpoints[&WEB].network, 77);
}

#[test]
fn an_endpoint_takes_the_smaller_mtu_of_its_veth() {
    let mut case = case();
    case.host.links.get_mut(&VETH).unwrap().mtu = 1400;
    assert_eq!(case.build().state.endpoints[&WEB].mtu, 1400);
}

#[test]
fn without_dockers_list_only_what_netlink_says_changes() {
    let mut case = case();
    let actual = case.build().state;
    case.host.links.remove(&VETH);
    case.host.addresses[1].address = Ipv4Addr::new(192, 0, 2, 5);
    let wanted = build_without_docker(&case.host, &case.wishes, &actual).state;
    let expected = State {
        uplinks: [(ETH0, Uplink { addresses: vec![(Ipv4Addr::new(192, 0, 2, 5), 24)], mtu: 1500, gateway: ROUTER })]
            .into(),
        host_addresses: [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 5), GATEWAY].into(),
        ..actual
    };
    assert_eq!(wanted, expected);
}

#[test]
fn flows_leave_with_the_networks_address_and_the_operators_pool_comes_before_it() {
    let [of_network, first, second] = [7, 8, 9].map(|last| Ipv4Addr::new(198, 51, 100, last));
    let mut case = case();
    case.docker.networks.get_mut("default").unwrap().masquerade = Some(of_network);
    assert_eq!(case.build().state.endpoints[&WEB].masquerade, of_network);
    for name in ["bridge", "default"] {
        case.wishes.masquerade = [(name.to_owned(), vec![first, second])].into();
        let chosen = case.build().state.endpoints[&WEB].masquerade;
        assert!([first, second].contains(&chosen), "by name or id");
        assert_eq!(case.build().state.endpoints[&WEB].masquerade, chosen, "a container keeps to one address");
    }
}

#[test]
fn cones_are_off_unless_the_network_or_the_operator_asks_for_them() {
    let mut case = case();
    assert!(!case.build().state.endpoints[&WEB].full_cone);
    for (option, expected) in [("true", true), ("1", true), ("false", false), ("0", false), ("", true)] {
        case.docker.networks.get_mut("default").unwrap().full_cone = Some(option.to_owned());
        let wanted = case.build();
        assert_eq!((wanted.state.endpoints[&WEB].full_cone, wanted.refused.len()), (expected, 0), "{option:?}");
    }
    for name in ["bridge", "default"] {
        case.wishes.full_cone = [(name.to_owned(), false)].into();
        assert!(!case.build().state.endpoints[&WEB].full_cone, "the operator's word comes before the network's");
    }
    case.wishes.full_cone.clear();
    case.docker.networks.get_mut("default").unwrap().full_cone = Some("perhaps".to_owned());
    let wanted = case.build();
    assert!(!wanted.state.endpoints[&WEB].full_cone);
    assert!(wanted.refused[0].contains("perhaps") && wanted.refused[0].contains("bridge"), "{:?}", wanted.refused);
}

#[test]
fn an_sctp_port_of_another_number_is_refused() {
    let mut case = case();
    case.web().published[0].protocol = Protocol::Sctp;
    let wanted = case.build();
    assert!(wanted.state.published.is_empty());
    assert!(wanted.refused[0].contains("8080") && wanted.refused[0].contains("web"), "{:?}", wanted.refused);
    case.web().published[0].host_port = 80;
    assert_eq!(case.build().state.published.len(), 1);
}

const SECOND: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);

/// The published ports of a state, as `address:port > address:port`.
fn published(state: &State) -> Vec<String> {
    let ports = state.published.iter().flat_map(|(block, target)| block.ports(*target));
    ports.map(|(port, target)| format!("{}:{} > {}:{}", port.address, port.port, target.address, target.port)).collect()
}

#[test]
fn where_containers_are_reached_by_their_own_addresses_their_ports_are_published_there() {
    type Row = (&'static str, Mode, fn(&mut DockerModel), &'static [&'static str]);
    const TRANSLATED: &str = "0.0.0.0:8080 > 172.17.0.2:80";
    const OPEN: &str = "172.17.0.2:80 > 172.17.0.2:80";
    fn default(docker: &mut DockerModel) -> &mut Network {
        docker.networks.get_mut("default").unwrap()
    }
    let routed: fn(&mut DockerModel) = |docker| {
        default(docker).gateway_mode = GatewayMode::Routed;
        docker.engine.knows_gateway_modes = true;
    };
    let rows: [Row; 7] = [
        ("routed", Mode::Sole, routed, &[OPEN]),
        ("routed by dockerd's rules", Mode::Takeover, routed, &[]),
        (
            "routed, which dockerd doesn't know",
            Mode::Takeover,
            |docker| default(docker).gateway_mode = GatewayMode::Routed,
            &[TRANSLATED],
        ),
        ("trusted", Mode::Sole, |docker| default(docker).trusted = vec!["eth0".to_owned()], &[TRANSLATED, OPEN]),
        ("direct", Mode::Sole, |docker| docker.engine.allows_direct_routing = true, &[TRANSLATED, OPEN]),
        ("unprotected", Mode::Sole, |docker| default(docker).gateway_mode = GatewayMode::NatUnprotected, &[TRANSLATED]),
        ("isolated", Mode::Sole, |docker| default(docker).gateway_mode = GatewayMode::Isolated, &[]),
    ];
    for (description, mode, change, expected) in rows {
        let mut case = case();
        change(&mut case.docker);
        let state = build(&case.docker, &case.host, mode, &case.wishes, &case.actual).state;
        assert_eq!(published(&state), expected, "{description}");
    }
}

#[test]
fn a_routed_port_has_no_number_of_the_hosts() {
    let mut case = case();
    case.web().published[0].host_port = 0;
    assert_eq!(published(&case.build().state), Vec::<String>::new());
    case.docker.networks.get_mut("default").unwrap().gateway_mode = GatewayMode::Routed;
    let state = build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual).state;
    assert_eq!(published(&state), ["172.17.0.2:80 > 172.17.0.2:80"]);
}

#[test]
fn a_container_on_two_networks_may_send_with_either_address_by_either_veth() {
    let mut case = with_second_network("second");
    let senders = |case: &Case| case.build().state.admitted.into_keys().collect::<Vec<_>>();
    let veths = [Entrance::Veth(VETH), Entrance::Veth(8)];
    let addresses = [Entrance::Address(VETH, SECOND), Entrance::Address(8, WEB)];
    assert_eq!(senders(&case), [veths, addresses].concat());
    case.docker.networks.get_mut("second").unwrap().internal = true;
    assert_eq!(senders(&case), veths, "what an internal network holds stays there");
}

#[test]
fn a_link_on_a_default_network_without_icc_opens_what_is_exposed() {
    const DATABASE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);
    let mut case = case();
    case.host.links.insert(9, link("veth2", 5, Some(DOCKER0)));
    let database = Container {
        name: "db".to_owned(),
        interfaces: vec![interface("default", DATABASE, 9)],
        exposed: vec![(5432, Protocol::Tcp)],
        ..Container::default()
    };
    case.docker.containers.insert("database".to_owned(), database);
    case.web().links = vec!["db".to_owned(), "gone".to_owned()];
    let links = |case: &Case, mode| -> Vec<Entrance> {
        let admitted = build(&case.docker, &case.host, mode, &case.wishes, &case.actual).state.admitted;
        admitted.into_keys().filter(|entrance| matches!(entrance, Entrance::Linked(..))).collect()
    };
    assert!(links(&case, Mode::Sole).is_empty(), "they reach each other anyway");
    let network = case.docker.networks.get_mut("default").unwrap();
    (network.icc, network.is_default) = (false, true);
    let end = |neighbour, answers| LinkEnd { neighbour, protocol: Protocol::Tcp, port: 5432, answers };
    let expected = [Entrance::Linked(VETH, end(DATABASE, false)), Entrance::Linked(9, end(WEB, true))];
    assert_eq!(links(&case, Mode::Sole), expected);
    case.docker.networks.get_mut("default").unwrap().is_default = false;
    assert!(links(&case, Mode::Sole).is_empty(), "links of other networks are names only");
    case.docker.networks.get_mut("default").unwrap().is_default = true;
    case.docker.containers.get_mut("database").unwrap().exposed =
        (1..=1025).map(|port| (port, Protocol::Tcp)).collect();
    let wanted = build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual);
    assert!(wanted.refused[0].contains("web") && wanted.refused[0].contains("1025"), "{:?}", wanted.refused);
}

#[test]
fn foreign_sources_are_let_in_where_the_operator_says_so() {
    let mut case = case();
    for name in ["bridge", "default"] {
        case.wishes.foreign_sources = [name.to_owned()].into();
        assert!(case.build().state.admitted[&Entrance::Veth(VETH)].any_source, "by name or id");
    }
    case.wishes.foreign_sources = ["other".to_owned()].into();
    assert!(!case.build().state.admitted[&Entrance::Veth(VETH)].any_source);
}

#[test]
fn only_an_uplink_can_be_trusted() {
    let mut case = case();
    case.docker.networks.get_mut("default").unwrap().trusted = vec!["eth0".to_owned(), "tun0".to_owned()];
    let wanted = build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual);
    assert!(wanted.state.admitted.contains_key(&Entrance::Trusted(ETH0, 3)));
    assert!(wanted.refused[0].contains("tun0") && wanted.refused[0].contains("bridge"), "{:?}", wanted.refused);
    assert_eq!(case.build().refused, Vec::<String>::new(), "in takeover the rules decide");
}

#[test]
fn an_isolated_network_has_no_gateway_whatever_the_bridge_has() {
    let mut case = case();
    case.docker.networks.get_mut("default").unwrap().gateway_mode = GatewayMode::Isolated;
    let state = build(&case.docker, &case.host, Mode::Sole, &case.wishes, &case.actual).state;
    assert_eq!(state.endpoints[&WEB].gateway, Ipv4Addr::UNSPECIFIED);
    assert_eq!(case.build().state.endpoints[&WEB].gateway, GATEWAY);
}

#[test]
fn a_policy_finds_its_networks_by_name_and_id_and_says_which_are_not_there() {
    let mut case = with_second_network("shop");
    let text = "[[policy.rule]]\naction = \"deny\"\nnetwork = [\"bridge\", \"shop\", \"second-but-longer\", \"blog\"]";
    case.wishes.policy = settings::Settings::parse(text).unwrap().policy;
    let id = case.docker.networks.remove("second").unwrap();
    case.docker.networks.insert("second-but-longer-still".to_owned(), id);
    let wanted = case.build();
    let numbers: Vec<_> = wanted.state.policy.rules.iter().map(|rule| rule.wanted.network).collect();
    assert_eq!(numbers, [3, 4, 4, 0]);
    let [missing] = wanted.missing_networks.as_slice() else { panic!("{:?}", wanted.missing_networks) };
    assert!(missing.contains("line 1") && missing.contains("blog"), "{missing}");
    // Without Docker's word the list in force stays.
    case.actual.policy = wanted.state.policy.clone();
    let without = build_without_docker(&case.host, &case.wishes, &case.actual);
    assert_eq!(without.state.policy, wanted.state.policy);
    case.wishes.policy.rules[0].network.clear();
    let without = build_without_docker(&case.host, &case.wishes, &case.actual);
    assert_eq!(without.state.policy.rules.len(), 1);
}

#[test]
fn a_network_may_have_more_containers_than_a_bridge_has_ports() {
    let mut case = case();
    for number in 1..5000 {
        let (name, address) = (format!("c{number}"), Ipv4Addr::from(u32::from(WEB) + number));
        let interfaces = vec![interface("default", address, VETH + number)];
        case.host.links.insert(VETH + number, link(&format!("veth{number}"), 5, Some(DOCKER0)));
        case.docker.containers.insert(name.clone(), Container { name, interfaces, ..Container::default() });
    }
    assert_eq!(case.build().state.endpoints.len(), 5000);
    assert_eq!(case.hooks(Hook::Container).len(), 5000);
}
