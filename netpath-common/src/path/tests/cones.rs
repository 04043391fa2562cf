//! Cones: one port of the host for one of a container's towards everyone, open to everyone.

use super::*;
use crate::abi::{Cone, ConeKey};

const STRANGER: Address = [203, 0, 113, 77];

/// A host on which the container `CLIENT` has cones.
fn with_cones() -> Model {
    let mut model = Model::host(Mode::Sole);
    model.open_cones(CLIENT);
    model
}

/// Sends a datagram out; gives the port that the world sees, and how the packet went.
fn send(model: &mut Model, ifindex: u32, seconds: u64, sent: Summary) -> (u16, Fate) {
    let mut frame = build(sent, Kind::Udp, b"out");
    let fate = outbound(model, ifindex, seconds, &mut frame);
    (read(&frame).source_port, fate)
}

/// A datagram of somebody to a port of the host; gives the packet as it went on.
fn knock(model: &mut Model, seconds: u64, source: Address, port: u16) -> (Summary, Fate) {
    let knock = Summary { source, destination: Model::HOST, source_port: 9999, destination_port: port };
    let mut frame = build(knock, Kind::Udp, b"in");
    let fate = inbound(model, seconds, &mut frame);
    (read(&frame), fate)
}

#[test]
fn one_port_towards_everyone_and_open_to_everyone() {
    let mut model = with_cones();
    for port in [53, 54, 55] {
        assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(port)).0, 5000);
    }
    let (seen, fate) = knock(&mut model, 2, STRANGER, 5000);
    assert_eq!(fate.path(), Some(PathCount::ConeIn));
    assert_eq!(seen, Summary { source: STRANGER, destination: CLIENT, source_port: 9999, destination_port: 5000 });
    let answer = reversed(seen);
    let mut frame = build(answer, Kind::Udp, b"answer");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 2, &mut frame).path(), Some(PathCount::ConeOut));
    assert_eq!(read(&frame), Summary { source: Model::HOST, ..answer });
}

#[test]
fn two_owners_of_one_source_port_have_two_cones_and_each_keeps_its_own() {
    let mut model = with_cones();
    model.open_cones(WEB);
    assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(53)).0, 5000);
    let of_web = |port| Summary { source: WEB, ..udp_to(port) };
    let (second, _) = send(&mut model, WEB_IFINDEX, 1, of_web(54));
    assert_ne!(second, 5000);
    for port in [53, 55, 56] {
        assert_eq!(send(&mut model, WEB_IFINDEX, 1, of_web(port)).0, second, "towards {port}");
        assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(port)).0, 5000, "towards {port}");
    }
    assert_eq!(knock(&mut model, 1, STRANGER, second).0.destination, WEB);
    assert_eq!(knock(&mut model, 1, STRANGER, 5000).0.destination, CLIENT);
}

#[test]
fn a_cone_and_flows_without_one_never_share_a_port_whatever_the_destination() {
    let of_web = |port| Summary { source: WEB, ..udp_to(port) };
    let mut model = with_cones();
    assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(53)).0, 5000);
    assert_ne!(send(&mut model, WEB_IFINDEX, 1, of_web(54)).0, 5000, "the cone holds its port towards everyone");

    let mut model = with_cones();
    assert_eq!(send(&mut model, WEB_IFINDEX, 1, of_web(54)).0, 5000);
    assert_eq!(send(&mut model, WEB_IFINDEX, 1, of_web(55)).0, 5000, "flows without a cone share a port");
    let (cone, _) = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    assert_ne!(cone, 5000, "a cone gets no port that somebody uses towards another destination");
    assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(54)).0, cone);
}

#[test]
fn without_the_option_a_stranger_reaches_nobody() {
    let mut model = Model::host(Mode::Sole);
    _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    assert_eq!(knock(&mut model, 1, STRANGER, 5000).1.path(), Some(PathCount::ToKernel));
    assert!(model.cones.is_empty());
}

#[test]
fn a_cone_ends_after_its_time_and_is_refreshed_from_inside_only_where_that_is_wanted() {
    let timeout = 120;
    for (inbound_refresh, is_alive) in [(1, true), (0, false)] {
        let mut model = with_cones();
        model.config.inbound_refresh = inbound_refresh;
        _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
        // Strangers keep knocking, the container is silent.
        for seconds in (11..=121).step_by(10) {
            assert_eq!(knock(&mut model, seconds, STRANGER, 5000).1.path(), Some(PathCount::ConeIn), "at {seconds}");
        }
        let path = knock(&mut model, 1 + timeout + 5, [203, 0, 113, 78], 5000).1.path();
        assert_eq!(path == Some(PathCount::ConeIn), is_alive, "inbound_refresh {inbound_refresh}: {path:?}");
    }
    let mut model = with_cones();
    for seconds in [1, 100, 200, 300] {
        _ = send(&mut model, CLIENT_IFINDEX, seconds, udp_to(53));
    }
    assert_eq!(knock(&mut model, 415, STRANGER, 5000).1.path(), Some(PathCount::ConeIn), "refreshed from inside");
    assert_eq!(knock(&mut model, 800, STRANGER, 5000).1.path(), Some(PathCount::ToKernel), "silent for too long");
    let key = ConeKey { address: Model::HOST, port: 5000_u16.to_be_bytes(), protocol: 17, reserved: 0 };
    assert!(!crate::nat::cone::collect(&mut model, &key, 416 * SECOND_NS));
    assert!(crate::nat::cone::collect(&mut model, &key, 800 * SECOND_NS));
    assert!(model.cones.is_empty() && model.cone_ports.is_empty());
}

#[test]
fn a_cone_ends_with_its_container_and_its_port_is_free() {
    let mut model = with_cones();
    model.open_cones(WEB);
    _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    model.hops.get_mut(&CLIENT_IFINDEX).unwrap().generation += 1;
    assert_eq!(knock(&mut model, 2, STRANGER, 5000).1.path(), Some(PathCount::ToKernel));
    assert_eq!(send(&mut model, WEB_IFINDEX, 2, Summary { source: WEB, ..udp_to(54) }).0, 5000);
    assert_eq!(model.cone_ports.len(), 1, "the way to the first cone has gone with it");
}

#[test]
fn the_hosts_sockets_and_published_ports_come_before_a_cone() {
    let of_stranger = crate::abi::FlowKey {
        source: STRANGER,
        destination: Model::HOST,
        source_port: 9999_u16.to_be_bytes(),
        destination_port: 5000_u16.to_be_bytes(),
        protocol: 17,
        reserved: [0; 3],
    };
    let mut model = with_cones();
    _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    model.sockets.insert(of_stranger);
    assert_eq!(knock(&mut model, 1, STRANGER, 5000).1.path(), Some(PathCount::ToKernel), "a socket waits for it");

    let mut model = with_cones();
    assert_ne!(send(&mut model, CLIENT_IFINDEX, 1, Summary { source_port: 8080, ..udp_to(53) }).0, 8080);
    _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    model.publish(([0; 4], 5000), 17, (WEB, 80));
    assert_eq!(knock(&mut model, 1, STRANGER, 5000).1.path(), Some(PathCount::PublishedIn));
    assert_ne!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(54)).0, 5000, "the cone moves");
}

#[test]
fn switching_it_off_closes_the_door_at_once() {
    let mut model = with_cones();
    _ = send(&mut model, CLIENT_IFINDEX, 1, udp_to(53));
    model.endpoints.get_mut(&CLIENT).unwrap().full_cone = 0;
    assert_eq!(knock(&mut model, 1, STRANGER, 5000).1.path(), Some(PathCount::ToKernel));
}

#[test]
fn a_cone_is_for_udp_only() {
    let mut model = with_cones();
    let mut frame = build(udp_to(53), Kind::Tcp(tcp::SYN), b"");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::MasqueradeOut));
    assert!(model.cones.values().all(Cone::is_shared) && model.cones.is_empty());
}

#[test]
fn a_neighbour_reaches_a_cone_by_the_hosts_address_and_so_does_its_own_container() {
    for (source, ifindex, seen_as) in [(WEB, WEB_IFINDEX, WEB), (CLIENT, CLIENT_IFINDEX, Model::GATEWAY)] {
        let mut model = with_cones();
        assert_eq!(send(&mut model, CLIENT_IFINDEX, 1, udp_to(53)).0, 5000);
        let asked = Summary { source, destination: Model::HOST, source_port: 6000, destination_port: 5000 };
        let mut frame = build(asked, Kind::Udp, b"knock");
        let fate = outbound(&mut model, ifindex, 2, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }), "{source:?}");
        let seen = read(&frame);
        assert_eq!(seen, Summary { source: seen_as, destination: CLIENT, ..asked });
        let mut answer = build(reversed(seen), Kind::Udp, b"answer");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 2, &mut answer);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex }));
        assert_eq!(read(&answer), reversed(asked));
    }
}
