//! Published ports in blocks: each port of a block leads to its own, and its neighbours outside lead nowhere.

use super::*;
use crate::{
    abi::{Action, Asked, PolicyRule},
    path::from_socket,
};

const FIRST: u16 = 0x2000;
const LAST: u16 = 0x20ff;
const INSIDE: u16 = 1000;

/// A host that publishes a block of 256 ports on each of its addresses, for other ports of its container.
fn host(mode: Mode) -> Model {
    let mut model = Model::host(mode);
    for protocol in [6, 17] {
        model.publish_block(([0; 4], FIRST), 8, protocol, (WEB, INSIDE));
    }
    model
}

fn to(source: Address, destination_port: u16) -> Summary {
    Summary { source, destination: Model::HOST, source_port: 5000, destination_port }
}

/// Ports of the host, and where they lead.
fn edges() -> [(u16, Option<u16>); 5] {
    [
        (FIRST - 1, None),
        (FIRST, Some(INSIDE)),
        (FIRST + 128, Some(INSIDE + 128)),
        (LAST, Some(INSIDE + (LAST - FIRST))),
        (LAST + 1, None),
    ]
}

#[test]
fn each_port_of_a_block_leads_to_its_own_wherever_it_is_asked_for() {
    for (port, expected) in edges() {
        for kind in [Kind::Tcp(tcp::SYN), Kind::Udp] {
            let mut model = host(Mode::Sole);
            let mut frame = build(to(FAR, port), kind, b"");
            let fate = inbound(&mut model, 1, &mut frame);
            assert_eq!(fate.path() == Some(PathCount::PublishedIn), expected.is_some(), "from the wire: {port}");
            if let Some(expected) = expected {
                assert_eq!((read(&frame).destination, read(&frame).destination_port), (WEB, expected));
                let answer = if kind == Kind::Udp { kind } else { Kind::Tcp(tcp::SYN | tcp::ACK) };
                let mut frame = build(reversed(read(&frame)), answer, b"");
                assert_eq!(outbound(&mut model, WEB_IFINDEX, 1, &mut frame).path(), Some(PathCount::PublishedOut));
                assert_eq!(read(&frame), reversed(to(FAR, port)), "the port that was asked for answers");
            }
            let mut frame = build(to(CLIENT, port), kind, b"");
            let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
            assert_eq!(fate.path() == Some(PathCount::Hairpin), expected.is_some(), "from a neighbour: {port}");
            assert!(expected.is_none_or(|expected| read(&frame).destination_port == expected));
            let protocol = if kind == Kind::Udp { 17 } else { 6 };
            let asked = Asked::ipv4([127, 0, 0, 1], port.to_be_bytes());
            let led = from_socket::published(&model, &asked, protocol);
            assert_eq!(led.map(|led| u16::from_be_bytes(led.port)), expected, "from a socket: {port}");
        }
    }
}

#[test]
fn a_port_by_itself_comes_before_the_block_around_it_and_an_address_before_all() {
    let mut model = host(Mode::Sole);
    model.publish(([0; 4], FIRST + 1), 17, (CLIENT, 53));
    model.publish_block((Model::HOST, FIRST + 16), 4, 17, (CLIENT, 2000));
    for (port, expected) in [
        (FIRST, (WEB, INSIDE)),
        (FIRST + 1, (CLIENT, 53)),
        (FIRST + 2, (WEB, INSIDE + 2)),
        (FIRST + 15, (WEB, INSIDE + 15)),
        (FIRST + 16, (CLIENT, 2000)),
        (FIRST + 31, (CLIENT, 2015)),
        (FIRST + 32, (WEB, INSIDE + 32)),
    ] {
        let mut frame = build(to(FAR, port), Kind::Udp, b"");
        _ = inbound(&mut model, 1, &mut frame);
        assert_eq!((read(&frame).destination, read(&frame).destination_port), expected, "{port}");
    }
}

#[test]
fn the_policy_sees_each_port_of_a_block() {
    let mut model = host(Mode::Sole);
    let deny = Action::Deny as u8;
    model.policy.rules[0] = PolicyRule { port_first: LAST, port_last: LAST, action: deny, ..PolicyRule::UNSET };
    model.policy.rule_count = 1;
    for (port, is_let_in) in [(FIRST, true), (LAST - 1, true), (LAST, false)] {
        let fate = inbound(&mut model, 1, &mut build(to(FAR, port), Kind::Udp, b""));
        assert_eq!(fate.path() == Some(PathCount::PublishedIn), is_let_in, "{port}");
    }
}

#[test]
fn a_flow_of_the_containers_never_gets_a_port_of_a_block() {
    let mut model = host(Mode::Sole);
    (model.config.port_first, model.config.port_last) = (FIRST, LAST + 1);
    for source_port in [FIRST, FIRST + 7, LAST] {
        let asked = Summary { source: CLIENT, destination: FAR, source_port, destination_port: 53 };
        let mut frame = build(asked, Kind::Udp, b"");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
        let chosen = read(&frame).source_port;
        let is_free = fate.path() == Some(PathCount::MasqueradeOut) && chosen > LAST;
        assert!(is_free || fate.drop_reason() == Some(DropReason::PortsExhausted), "{source_port}: {fate:?}, {chosen}");
    }
}
