//! Containers that reach published ports by the host's address.

use super::*;
use crate::abi::Terms;

const ASKED: Summary = Summary { source: CLIENT, destination: Model::HOST, source_port: 5000, destination_port: 8080 };

#[test]
fn a_neighbour_is_reached_with_the_clients_address_and_answers_as_the_host() {
    for kind in [Kind::Tcp(tcp::SYN), Kind::Udp] {
        let mut model = Model::host(Mode::Takeover);
        let mut frame = build(ASKED, kind, b"hello");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        assert_eq!(fate.path(), Some(PathCount::Hairpin));
        let seen = read(&frame);
        assert_eq!(seen, Summary { destination: WEB, destination_port: 80, ..ASKED });

        let mut frame = build(reversed(seen), kind, b"hello");
        let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));
        assert_eq!(read(&frame), reversed(ASKED));
    }
}

#[test]
fn a_container_reaches_itself_and_sees_the_gateway() {
    let mut model = Model::host(Mode::Sole);
    let asked = Summary { source: WEB, ..ASKED };
    let mut frame = build(asked, Kind::Udp, b"hello");
    let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
    let seen = read(&frame);
    assert_eq!(seen, Summary { source: Model::GATEWAY, destination: WEB, source_port: 5000, destination_port: 80 });

    let mut frame = build(reversed(seen), Kind::Udp, b"hello");
    let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
    assert_eq!(read(&frame), reversed(asked));
}

#[test]
fn what_isnt_published_is_the_hosts() {
    let mut model = Model::host(Mode::Sole);
    let mut frame = build(Summary { destination_port: 8081, ..ASKED }, Kind::Udp, b"");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::ContainerToHost));
}

#[test]
fn a_foreign_source_gets_no_hairpin() {
    let mut model = Model::host(Mode::Sole);
    let mut frame = build(ASKED, Kind::Udp, b"");
    assert_eq!(outbound(&mut model, WEB_IFINDEX, 1, &mut frame).drop_reason(), Some(DropReason::ForeignSource));
}

#[test]
fn errors_come_back_through_the_hairpin_both_ways() {
    // The client's own address stays, or, of a container that asks for itself, becomes the gateway's.
    for (client, ifindex) in [(CLIENT, CLIENT_IFINDEX), (WEB, WEB_IFINDEX)] {
        let asked = Summary { source: client, ..ASKED };
        let mut model = Model::host(Mode::Sole);
        let mut question = build(asked, Kind::Udp, b"question");
        _ = outbound(&mut model, ifindex, 1, &mut question);

        let mut frame = port_unreachable(WEB, read(&question).source, &question);
        let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
        assert_eq!(
            (fate.forward(), fate.path()),
            (Some(Forward::IntoContainer { ifindex }), Some(PathCount::IcmpError))
        );
        let seen = read(&frame);
        assert_eq!((seen.source, seen.destination), (Model::HOST, client), "from where the question went");
        assert_eq!(quoted(&frame), asked, "as the client sent it");

        let mut answer = build(reversed(read(&question)), Kind::Udp, b"answer");
        _ = outbound(&mut model, WEB_IFINDEX, 1, &mut answer);
        let mut frame = port_unreachable(client, Model::HOST, &answer);
        let fate = outbound(&mut model, ifindex, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        assert_eq!(read(&frame).destination, WEB);
        assert_eq!(quoted(&frame), reversed(read(&question)), "as the server sent it");
    }
}

/// It has an address on the client's network and would answer there, past the flow.
#[test]
fn a_container_on_several_networks_sees_the_gateway_for_a_client_of_another_one() {
    for (terms, sees) in [(Terms::ON_SEVERAL, Model::GATEWAY), (0, CLIENT)] {
        let mut model = Model::host(Mode::Sole);
        model.endpoints.get_mut(&WEB).unwrap().terms |= terms;
        model.endpoints.get_mut(&CLIENT).unwrap().network += 1;
        let mut frame = build(ASKED, Kind::Udp, b"hello");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        let seen = read(&frame);
        assert_eq!(seen, Summary { source: sees, destination: WEB, source_port: 5000, destination_port: 80 });

        let mut frame = build(reversed(seen), Kind::Udp, b"hello");
        let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));
        assert_eq!(read(&frame), reversed(ASKED));
    }
}
