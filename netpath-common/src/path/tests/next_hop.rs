//! Behind an uplink: the routes are asked about once a second, and the answer is kept with the flow.

use super::*;
use crate::tables::Route;

const ROUTER: Address = [192, 0, 2, 254];

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
    model.route = Route::Via { ifindex: Model::UPLINK, next_hop: ROUTER };
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
    model.route = Route::Via { ifindex: Model::UPLINK, next_hop: FAR };
    assert_eq!(sent(&mut model, 1000), FAR);
}

#[test]
fn a_changed_route_is_followed_within_a_second() {
    let mut model = model();
    assert_eq!(sent(&mut model, 1000), ROUTER);
    model.route = Route::Via { ifindex: Model::UPLINK, next_hop: [192, 0, 2, 253] };
    assert_eq!(sent(&mut model, 2100), [0; 4], "another router than the default route's: the kernel is asked");
    model.route = Route::Via { ifindex: Model::UPLINK, next_hop: FAR };
    assert_eq!(sent(&mut model, 3200), FAR);
    model.route = Route::Via { ifindex: Model::UPLINK + 1, next_hop: FAR };
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
