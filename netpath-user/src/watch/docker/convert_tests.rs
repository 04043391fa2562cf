//! Answers of dockerd 20.10 and 28, shortened, and what is made of them.

use serde_json::{Value, from_value, json};

use super::*;

const ID: &str = "90ede8e3b3dd202803346ebfb19dcf7dbaddf6a0d446dc777c5c897c8d3001a6";

/// `docker inspect` of a container with two published ports, by dockerd 20.10.
fn web() -> Value {
    json!({
        "Id": ID,
        "Name": "/web",
        "State": {"Status": "running", "Running": true, "Paused": false, "Pid": 18628},
        "Config": {"ExposedPorts": {"5432/tcp": {}, "80/tcp": {}}},
        "HostConfig": {"Links": ["/db:/web/database", "/cache:/web/cache"]},
        "NetworkSettings": {
            "SandboxKey": "/var/run/docker/netns/f71b05d9c96b",
            "Ports": {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                "9000/udp": [{"HostIp": "192.0.2.1", "HostPort": "9000"}],
                "443/tcp": null,
                "5000/sctp": [{"HostIp": "0.0.0.0", "HostPort": "5000"}]
            },
            "Networks": {"bridge": {
                "NetworkID": "4eb3707f0f6a",
                "EndpointID": "6af1f01bb22a",
                "Gateway": "172.17.0.1",
                "IPAddress": "172.17.0.2",
                "IPPrefixLen": 16,
                "MacAddress": "02:42:ac:11:00:02"
            }}
        }
    })
}

fn inspected(answer: Value) -> Option<Sighting> {
    container(&from_value(answer).unwrap())
}

#[test]
fn a_running_container() {
    let binding = |host_address, host_port, container_port, protocol| Binding {
        host_address,
        host_port,
        container_port,
        protocol,
    };
    let address = Ipv4Addr::new(172, 17, 0, 2);
    let expected = Sighting {
        container: Container {
            name: "web".to_owned(),
            interfaces: vec![Interface {
                network: "4eb3707f0f6a".to_owned(),
                endpoint: "6af1f01bb22a".to_owned(),
                address,
                gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
                has_ipv6_gateway: false,
                gateway_priority: 0,
                peer: None,
            }],
            published: vec![
                binding(Ipv4Addr::UNSPECIFIED, 5000, 5000, Protocol::Sctp),
                binding(Ipv4Addr::UNSPECIFIED, 8080, 80, Protocol::Tcp),
                binding(Ipv4Addr::new(192, 0, 2, 1), 9000, 9000, Protocol::Udp),
            ],
            exposed: vec![
                (80, Protocol::Tcp),
                (443, Protocol::Tcp),
                (5000, Protocol::Sctp),
                (5432, Protocol::Tcp),
                (9000, Protocol::Udp),
            ],
            links: vec!["db".to_owned(), "cache".to_owned()],
        },
        search: Search {
            namespaces: vec!["/proc/18628/ns/net".into(), "/var/run/docker/netns/f71b05d9c96b".into()],
            interfaces: vec![Sought { address, mac: Some([2, 0x42, 0xac, 0x11, 0, 2]) }],
        },
    };
    assert_eq!(inspected(web()), Some(expected));
}

#[test]
fn only_what_can_have_traffic_is_a_container() {
    let rows: [(&str, &str, Value, bool); 4] = [
        ("paused", "/State/Paused", json!(true), true),
        ("stopped", "/State/Running", json!(false), false),
        ("about to start", "/State/Pid", json!(0), false),
        ("without a Ethernet address yet", "/NetworkSettings/Networks/bridge/MacAddress", json!(""), true),
    ];
    for (description, pointer, value, expected) in rows {
        let mut answer = web();
        *answer.pointer_mut(pointer).unwrap() = value;
        assert_eq!(inspected(answer).is_some(), expected, "{description}");
    }
}

#[test]
fn containers_without_an_address_of_their_own_have_no_interface() {
    let rows = [
        ("--network host", json!({"host": {"NetworkID": "a", "EndpointID": "b", "IPAddress": ""}})),
        ("--network container:X", json!({})),
        ("--network none", json!({"none": {"NetworkID": "a", "EndpointID": "b", "IPAddress": ""}})),
    ];
    for (description, networks) in rows {
        let mut answer = web();
        answer["NetworkSettings"]["Networks"] = networks;
        assert_eq!(inspected(answer).unwrap().container.interfaces, [], "{description}");
    }
}

#[test]
fn a_bindings_host_address_is_any_when_docker_leaves_it_empty() {
    let any = Ipv4Addr::UNSPECIFIED;
    let rows: [(Value, Option<(Ipv4Addr, u16)>); 5] = [
        (json!({"HostIp": "", "HostPort": "1"}), Some((any, 1))),
        (json!({"HostPort": "1"}), Some((any, 1))),
        (json!({"HostIp": "::1", "HostPort": "1"}), None),
        (json!({"HostIp": "0.0.0.0", "HostPort": "x"}), None),
        // Of a routed network: open on the container's own address.
        (json!({"HostIp": "", "HostPort": ""}), Some((any, 0))),
    ];
    for (host, expected) in rows {
        let ports: PortMap = from_value(json!({"80/tcp": [host]})).unwrap();
        let found: Vec<_> = bindings(&ports).iter().map(|binding| (binding.host_address, binding.host_port)).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{host}");
    }
}

#[test]
fn a_networks_bridge_has_the_name_that_docker_gives_it() {
    let rows = [
        (json!({"com.docker.network.bridge.name": "br0"}), "br0"),
        (json!({"com.docker.network.bridge.default_bridge": "true"}), "docker0"),
        (json!({"com.docker.network.bridge.name": ""}), "br-90ede8e3b3dd"),
        (json!({}), "br-90ede8e3b3dd"),
    ];
    for (options, expected) in rows {
        let api = from_value(json!({"Id": ID, "Name": "n", "Driver": "bridge", "Options": options})).unwrap();
        assert_eq!(network(&api).unwrap().1.bridge, expected);
    }
}

#[test]
fn a_networks_ipv4_configuration_is_kept_and_ipv6_is_not() {
    let configurations = json!([
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
        {"Subnet": "172.20.0.0/24", "Gateway": "172.20.0.1"}
    ]);
    let api = json!({"Id": ID, "Driver": "bridge", "Internal": true, "IPAM": {"Config": configurations}});
    let (_, network) = network(&from_value(api).unwrap()).unwrap();
    assert_eq!(network.subnets, [(Ipv4Addr::new(172, 20, 0, 0), 24)]);
    assert_eq!((network.gateway, network.internal), (Some(Ipv4Addr::new(172, 20, 0, 1)), true));
}

#[test]
fn a_networks_options_are_read_as_dockerd_reads_them() {
    let with = |options: Value| {
        let api = json!({"Id": ID, "Name": "n", "Driver": "bridge", "Options": options});
        network(&from_value(api).unwrap()).unwrap().1
    };
    let plain = with(json!({}));
    assert_eq!((plain.icc, plain.masquerades, plain.is_default), (true, true, false));
    assert_eq!((plain.gateway_mode, plain.trusted.len()), (GatewayMode::Nat, 0));
    for off in ["false", "0", "F"] {
        let network = with(json!({
            "com.docker.network.bridge.enable_icc": off,
            "com.docker.network.bridge.enable_ip_masquerade": off,
        }));
        assert_eq!((network.icc, network.masquerades), (false, false), "{off}");
    }
    let modes = [
        ("nat", GatewayMode::Nat),
        ("nat-unprotected", GatewayMode::NatUnprotected),
        ("routed", GatewayMode::Routed),
        ("isolated", GatewayMode::Isolated),
    ];
    for (value, expected) in modes {
        let network = with(json!({"com.docker.network.bridge.gateway_mode_ipv4": value}));
        assert_eq!(network.gateway_mode, expected);
    }
    let network = with(json!({"com.docker.network.bridge.trusted_host_interfaces": "eth0:tun0"}));
    assert_eq!(network.trusted, ["eth0", "tun0"]);
}

#[test]
fn the_option_for_cones_is_kept_word_for_word() {
    let with = |options: Value| {
        let api = json!({"Id": ID, "Name": "n", "Driver": "bridge", "Options": options});
        network(&from_value(api).unwrap()).unwrap().1.full_cone
    };
    assert_eq!(with(json!({})), None, "what isn't said is the default's to decide");
    assert_eq!(with(json!(null)), None);
    // What is invalid is for `desired` to refuse, by the network's name.
    for value in ["true", "1", "false", "0", "", "perhaps", "TRUE "] {
        assert_eq!(with(json!({"netpath.full_cone": value})).as_deref(), Some(value));
    }
    assert_eq!(with(json!({"netpath.FULL_CONE": "true"})), None);
}

#[test]
fn the_default_network_shows_whether_dockerd_masquerades() {
    let network = |default: &str, masquerade: &str| -> ApiNetwork {
        let options = json!({
            "com.docker.network.bridge.default_bridge": default,
            "com.docker.network.bridge.enable_ip_masquerade": masquerade
        });
        from_value(json!({"Id": ID, "Options": options})).unwrap()
    };
    assert_eq!(default_masquerades(&[network("false", "false"), network("true", "true")]), Some(true));
    assert_eq!(default_masquerades(&[network("true", "false")]), Some(false));
    assert_eq!(default_masquerades(&[]), None);
}

#[test]
fn events_mention_containers_or_networks() {
    let rows = [
        (json!({"Type": "container", "Action": "start", "Actor": {"ID": "c"}}), Some(Mention::Container("c".into()))),
        (
            json!({"Type": "network", "Action": "connect", "Actor": {"ID": "n", "Attributes": {"container": "c"}}}),
            Some(Mention::Container("c".into())),
        ),
        (
            json!({"Type": "network", "Action": "disconnect", "Actor": {"ID": "n", "Attributes": {"container": ""}}}),
            None,
        ),
        (json!({"Type": "network", "Action": "create", "Actor": {"ID": "n"}}), Some(Mention::Networks)),
        (json!({"Type": "daemon", "Action": "reload", "Actor": {"ID": "d"}}), None),
    ];
    for (event, expected) in rows {
        assert_eq!(mention(&from_value(event.clone()).unwrap()), expected, "{event}");
    }
}

#[test]
fn a_list_shows_the_same_fingerprint_as_the_container_itself() {
    let networks = web()["NetworkSettings"]["Networks"].clone();
    let names = json!(["/other/alias", "/web"]);
    let api = json!({"Id": ID, "Names": names, "NetworkSettings": {"Networks": networks}});
    let (id, listed) = summary(&from_value(api).unwrap()).unwrap();
    assert_eq!((id.as_str(), listed), (ID, fingerprint(&inspected(web()).unwrap().container)));
}
