//! Behind an uplink: the routes are asked about once a second, and the answer is kept with the flow.

use super::*;
use crate::tables::{Neighbour, Origin, Route};

const ROUTER: Address = [192, 0, 2, 254];

const fn via(ifindex: u32, next_hop: Address) -> Route {
    Route::Via { ifindex, next_hop, neighbour: Neighbour::Known }
}

/// Whose Ethernet address a container's datagram to [`FAR`] needs.
fn sent(model: &mut Model, milliseconds: u64) -> Address {
    let summary = Summary { source: WEB, destination: FAR, source_port: 4000, destination_port: 53 };
    let mut frame = build(summary, Kind::Udp, b"?");
    let arrival = Arrival { ifindex: WEB_IFINDEX, now_ns: milliseconds * SECOND_NS / 1000 };
    let mut work = Workspace { next_hop: [9; 4], ..Workspace::EMPTY };
    let fate = from_container(&mut { &mut frame[..] }, model, &mut work, &arrival);
    assert_eq!(fate.forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));
    work.next_hop
}

fn model() -> Model {
    let mut model = Model::host(Mode::Takeover);
    model.hops.get_mut(&0).unwrap().addresses[0] = u32::from_ne_bytes(ROUTER);
    model.route = via(Model::UPLINK, ROUTER);
    model
}

#[test]
fn a_flows_packets_go_to_the_gateway_without_asking_the_routes_for_each() {
    let mut model = model();
    assert_eq!(sent(&mut model, 1000), ROUTER);
    model.route = Route::Kernel;
    assert_eq!(sent(&mut model, 1900), ROUTER, "asked again within a second");
}

#[test]
fn a_destination_on_the_link_is_its_own_next_hop() {
    let mut model = model();
    model.route = via(Model::UPLINK, FAR);
    assert_eq!(sent(&mut model, 1000), FAR);
}

#[test]
fn a_changed_route_is_followed_within_a_second() {
    let mut model = model();
    assert_eq!(sent(&mut model, 1000), ROUTER);
    model.route = via(Model::UPLINK, [192, 0, 2, 253]);
    assert_eq!(sent(&mut model, 2100), [0; 4], "another router than the default route's: the kernel is asked");
    model.route = via(Model::UPLINK, FAR);
    assert_eq!(sent(&mut model, 3200), FAR);
    model.route = via(Model::UPLINK + 1, FAR);
    assert_eq!(sent(&mut model, 4300), [0; 4], "another interface");
}

#[test]
fn another_gateway_of_the_uplink_counts_at_once() {
    let mut model = model();
    assert_eq!(sent(&mut model, 1000), ROUTER);
    model.hops.get_mut(&0).unwrap().addresses[0] = u32::from_ne_bytes([192, 0, 2, 1]);
    assert_eq!(sent(&mut model, 1100), [192, 0, 2, 1]);
    model.hops.get_mut(&0).unwrap().addresses[0] = 0;
    assert_eq!(sent(&mut model, 1200), [0; 4], "none: the kernel is asked");
}

/// Rules may ask for them (`ip rule add ipproto tcp dport 443 lookup 100`).
#[test]
fn the_routes_are_asked_with_protocol_and_ports() {
    let mut model = model();
    let asked =
        |model: &Model| model.asked_route.get().map(|query| (query.protocol, query.ports.map(u16::from_be_bytes)));
    sent(&mut model, 1000);
    assert_eq!(asked(&model), Some((17, [4000, 53])));
    let summary = Summary { source: WEB, destination: FAR, source_port: 4000, destination_port: 0 };
    let mut frame = build(summary, Kind::Ping, b"?");
    let arrival = Arrival { ifindex: WEB_IFINDEX, now_ns: 2 * SECOND_NS };
    let fate = from_container(&mut { &mut frame[..] }, &mut model, &mut Workspace::EMPTY.clone(), &arrival);
    assert!(fate.is_decided());
    assert_eq!(asked(&model), Some((1, [0, 0])), "an echo's identifier is no port");
}

/// Asked with the translated source, the kernel wouldn't find it.
#[test]
fn the_packet_that_opens_a_connection_knows_its_next_hop_too() {
    let mut model = model();
    let summary = Summary { source: WEB, destination: FAR, source_port: 4000, destination_port: 80 };
    let mut work = Workspace::EMPTY;
    for seconds in 1..3 {
        let mut frame = build(summary, Kind::Tcp(tcp::SYN), b"");
        let arrival = Arrival { ifindex: WEB_IFINDEX, now_ns: seconds * SECOND_NS };
        let fate = from_container(&mut { &mut frame[..] }, &mut model, &mut work, &arrival);
        assert_eq!(fate.forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));
        assert_eq!(work.next_hop, ROUTER, "after {seconds} s");
    }
}

/// Only about packets whose way it has chosen itself does it say that nobody answered.
#[test]
fn the_kernel_chooses_the_way_to_a_neighbour_that_it_does_not_know() {
    let unknown = |next_hop| Route::Via { ifindex: Model::UPLINK, next_hop, neighbour: Neighbour::Unknown };
    for next_hop in [ROUTER, FAR] {
        let mut model = Model { route: unknown(next_hop), ..model() };
        assert_eq!(sent(&mut model, 1000), [0; 4]);
        let asked = model.asked_route.get().unwrap();
        assert_eq!((asked.origin, asked.ifindex, asked.source), (Origin::Host, Model::UPLINK, Model::HOST));
        model.route = via(Model::UPLINK, next_hop);
        assert_eq!(sent(&mut model, 1900), [0; 4], "asked again within a second");
        assert_eq!(sent(&mut model, 2900), next_hop);
    }
}

#[test]
fn where_the_kernel_would_choose_another_way_it_is_told_which() {
    let unknown = |ifindex, next_hop| Route::Via { ifindex, next_hop, neighbour: Neighbour::Unknown };
    let others = [unknown(Model::UPLINK, [192, 0, 2, 253]), unknown(Model::UPLINK + 1, ROUTER), Route::Kernel];
    for other in others {
        let mut model = Model { route: unknown(Model::UPLINK, ROUTER), own_route: Some(other), ..model() };
        assert_eq!(sent(&mut model, 1000), ROUTER, "{other:?}");
    }
}
