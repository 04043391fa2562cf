//! What networks' options make of the same packets: isolation, internal networks, untranslated ones, whose source is whose.

use super::*;
use crate::{
    abi::{Admitted, AdmittedKey, Endpoint, Terms},
    path::from_host::from_host,
};

/// A container of another network.
const OTHER: Address = [172, 18, 0, 2];
const OTHER_IFINDEX: u32 = 22;
const OTHER_GATEWAY: Address = [172, 18, 0, 1];

/// The model's two containers on network 1, and one on network 2.
fn host(mode: Mode, terms: u16) -> Model {
    let mut model = Model::host(mode);
    model.add_endpoint(OTHER, OTHER_IFINDEX);
    model.host_addresses.insert(OTHER_GATEWAY);
    for address in [WEB, CLIENT] {
        model.set_network(address, 1, terms);
    }
    model.set_network(OTHER, 2, 0);
    let other = model.endpoints.get_mut(&OTHER).unwrap();
    *other = Endpoint { gateway: OTHER_GATEWAY, bridge_ifindex: 4, ..*other };
    model
}

const fn from_to(source: Address, destination: Address, destination_port: u16) -> Summary {
    Summary { source, destination, source_port: 5000, destination_port }
}

/// A frame that is addressed to the container behind an interface.
fn addressed(ifindex: u32, summary: Summary, kind: Kind) -> Vec<u8> {
    let mut frame = build(summary, kind, b"hello");
    frame[..6].copy_from_slice(&Model::mac(ifindex));
    frame
}

fn sends(model: &mut Model, ifindex: u32, summary: Summary) -> Fate {
    outbound(model, ifindex, 1, &mut build(summary, Kind::Udp, b"hello"))
}

fn arrives(model: &mut Model, summary: Summary, kind: Kind) -> Fate {
    inbound(model, 1, &mut build(summary, kind, b"hello"))
}

#[track_caller]
fn assert_dropped(fate: Fate, reason: DropReason) {
    assert_eq!((fate.path(), fate.drop_reason()), (None, Some(reason)));
}

#[track_caller]
fn assert_kernel(fate: Fate) {
    assert_eq!((fate.forward(), fate.path()), (Some(Forward::Kernel), Some(PathCount::ToKernel)));
}

#[test]
fn without_icc_neighbours_are_closed_and_published_ports_stay_open() {
    let direct = from_to(CLIENT, WEB, 80);
    let frame = || addressed(WEB_IFINDEX, direct, Kind::Udp);
    let broadcast = || {
        let mut frame = build(direct, Kind::Udp, b"");
        frame[..6].fill(0xff);
        frame
    };
    let mut model = host(Mode::Sole, Terms::ICC_OFF);
    for mut frame in [frame(), broadcast()] {
        assert_dropped(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame), DropReason::IccOff);
    }
    let hairpin = from_to(CLIENT, Model::HOST, 8080);
    assert_eq!(sends(&mut model, CLIENT_IFINDEX, hairpin).path(), Some(PathCount::Hairpin));
    assert_eq!(sends(&mut model, CLIENT_IFINDEX, from_to(CLIENT, FAR, 53)).path(), Some(PathCount::MasqueradeOut));

    let mut model = host(Mode::Takeover, Terms::ICC_OFF);
    for mut frame in [frame(), broadcast()] {
        assert_kernel(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame));
    }
    assert_kernel(sends(&mut model, CLIENT_IFINDEX, hairpin));
    let mut model = host(Mode::Takeover, Terms::ICC_OFF | Terms::ICC_UNGUARDED);
    for mut frame in [frame(), broadcast()] {
        assert_dropped(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame), DropReason::IccOff);
    }
}

#[test]
fn a_link_opens_the_linked_ports_where_icc_is_off_and_nothing_else() {
    let to_web = |port| from_to(CLIENT, WEB, port);
    let model = |mode, terms| {
        let mut model = host(mode, terms);
        let linked = Admitted { admits: Admitted::LINKED, network: 0, terms: 0 };
        for (ifindex, subject, side) in
            [(CLIENT_IFINDEX, WEB, AdmittedKey::ASKS), (WEB_IFINDEX, CLIENT, AdmittedKey::ANSWERS)]
        {
            let key = AdmittedKey {
                port: 5432_u16.to_be_bytes(),
                protocol: 17,
                side,
                ..AdmittedKey::address(ifindex, subject)
            };
            model.admitted.insert(key, linked);
        }
        model
    };
    let send = |model: &mut Model, from, from_to| {
        let to = if from == CLIENT_IFINDEX { WEB_IFINDEX } else { CLIENT_IFINDEX };
        outbound(model, from, 1, &mut addressed(to, from_to, Kind::Udp))
    };
    for (mode, terms) in [(Mode::Sole, Terms::ICC_OFF), (Mode::Takeover, Terms::ICC_OFF | Terms::ICC_UNGUARDED)] {
        let mut model = model(mode, terms);
        let asked = send(&mut model, CLIENT_IFINDEX, to_web(5432));
        assert_eq!(asked.path(), Some(PathCount::Local), "{mode:?}");
        let answer = Summary { source_port: 5432, destination_port: 5000, ..from_to(WEB, CLIENT, 0) };
        let answered = send(&mut model, WEB_IFINDEX, answer);
        assert_eq!(answered.path(), Some(PathCount::Local), "{mode:?}");
        for (ifindex, closed) in [
            (CLIENT_IFINDEX, to_web(5433)),
            (CLIENT_IFINDEX, Summary { source_port: 5432, ..to_web(5433) }),
            (WEB_IFINDEX, from_to(WEB, CLIENT, 5432)),
        ] {
            assert_eq!(send(&mut model, ifindex, closed).drop_reason(), Some(DropReason::IccOff), "{closed:?}");
        }
    }
    let mut guarded = model(Mode::Takeover, Terms::ICC_OFF);
    assert_kernel(send(&mut guarded, CLIENT_IFINDEX, to_web(5432)));
}

#[test]
fn multicast_on_a_network_without_icc_reaches_nobody_and_otherwise_the_bridge() {
    let group = from_to(CLIENT, [224, 0, 0, 251], 5353);
    let frame = || {
        let mut frame = build(group, Kind::Udp, b"");
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfb]);
        frame
    };
    let mut model = host(Mode::Sole, Terms::ICC_OFF);
    assert_dropped(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame()), DropReason::IccOff);
    let mut model = host(Mode::Sole, 0);
    assert_kernel(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame()));
}

#[test]
fn an_internal_network_reaches_its_neighbours_and_its_gateway_and_nothing_else() {
    let outside = [
        from_to(CLIENT, FAR, 53),
        from_to(CLIENT, Model::HOST, 53),
        from_to(CLIENT, Model::HOST, 8080),
        from_to(CLIENT, Model::GATEWAY, 8080),
        from_to(CLIENT, OTHER_GATEWAY, 53),
    ];
    let mut alone = host(Mode::Sole, Terms::INTERNAL);
    let mut beside = host(Mode::Takeover, Terms::INTERNAL);
    for summary in outside {
        assert_dropped(sends(&mut alone, CLIENT_IFINDEX, summary), DropReason::InternalNetwork);
        assert_kernel(sends(&mut beside, CLIENT_IFINDEX, summary));
    }
    assert_dropped(sends(&mut alone, CLIENT_IFINDEX, from_to(CLIENT, OTHER, 80)), DropReason::OtherNetwork);
    let gateway = from_to(CLIENT, Model::GATEWAY, 53);
    assert_eq!(sends(&mut alone, CLIENT_IFINDEX, gateway).path(), Some(PathCount::ContainerToHost));
    for model in [&mut alone, &mut beside] {
        let mut frame = addressed(WEB_IFINDEX, from_to(CLIENT, WEB, 80), Kind::Udp);
        assert_eq!(outbound(model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::Local));
        assert_dropped(arrives(model, from_to(FAR, WEB, 80), Kind::Udp), DropReason::DirectToContainer);
        assert!(model.flows.is_empty());
    }
}

#[test]
fn an_isolated_network_has_no_gateway_to_reach() {
    let mut model = host(Mode::Sole, Terms::INTERNAL);
    model.endpoints.get_mut(&CLIENT).unwrap().gateway = [0; 4];
    for destination in [Model::GATEWAY, [0; 4]] {
        assert_dropped(
            sends(&mut model, CLIENT_IFINDEX, from_to(CLIENT, destination, 53)),
            DropReason::InternalNetwork,
        );
    }
}

#[test]
fn other_networks_are_reached_by_published_ports_only_and_not_even_by_those_where_told() {
    for mode in [Mode::Sole, Mode::Takeover] {
        let mut model = host(mode, 0);
        let fate = sends(&mut model, OTHER_IFINDEX, from_to(OTHER, WEB, 80));
        if mode == Mode::Sole {
            assert_dropped(fate, DropReason::OtherNetwork);
        } else {
            assert_kernel(fate);
        }
        let published = from_to(OTHER, Model::HOST, 8080);
        assert_eq!(sends(&mut model, OTHER_IFINDEX, published).path(), Some(PathCount::Hairpin));

        let mut model = host(mode, 0);
        model.set_network(OTHER, 2, Terms::KEEPS_TO_ITSELF);
        assert_dropped(sends(&mut model, OTHER_IFINDEX, published), DropReason::OtherNetwork);
        let of_own = from_to(CLIENT, Model::HOST, 8080);
        assert_eq!(sends(&mut model, CLIENT_IFINDEX, of_own).path(), Some(PathCount::Hairpin));
    }
}

#[test]
fn without_masquerading_a_flow_keeps_its_addresses_and_only_its_answers_come_in() {
    for kind in [Kind::Udp, Kind::Tcp(tcp::SYN), Kind::Ping] {
        let mut model = host(Mode::Sole, Terms::NO_MASQUERADE);
        let sent = from_to(CLIENT, FAR, if kind == Kind::Ping { 0 } else { 53 });
        let mut frame = build(sent, kind, b"hello");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));
        assert_eq!((read(&frame), fate.path()), (sent, Some(PathCount::Routed)));

        let answer = if let Kind::Tcp(_) = kind { Kind::Tcp(tcp::SYN | tcp::ACK) } else { kind };
        let mut frame = build(reversed(sent), answer, b"hello");
        let fate = inbound(&mut model, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));
        assert_eq!((read(&frame), fate.path()), (reversed(sent), Some(PathCount::Routed)));
        let other = Summary { destination_port: 5001, ..reversed(sent) };
        assert_dropped(arrives(&mut model, other, Kind::Udp), DropReason::DirectToContainer);

        let mut model = host(Mode::Takeover, Terms::NO_MASQUERADE);
        assert_kernel(outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(sent, kind, b"hello")));
        assert_kernel(arrives(&mut model, reversed(sent), answer));
    }
}

#[test]
fn an_untranslated_flow_takes_no_other_port() {
    let mut model = host(Mode::Sole, Terms::NO_MASQUERADE);
    // Somebody of the world talks from the very port that the container asks: one flow, opened by the one who was first.
    model.set_network(WEB, 1, Terms::NO_MASQUERADE | Terms::UNPROTECTED);
    let asked = from_to(FAR, WEB, 80);
    assert_eq!(arrives(&mut model, asked, Kind::Udp).path(), Some(PathCount::Routed));
    let mut frame = build(reversed(asked), Kind::Udp, b"");
    assert_eq!(outbound(&mut model, WEB_IFINDEX, 1, &mut frame).path(), Some(PathCount::Routed));
    assert_eq!((read(&frame), model.flows.len()), (reversed(asked), 2));
    // Published ports and sockets of the host are on its own addresses and take nothing from a container's.
    let reserved = Summary { source_port: 8080, ..from_to(CLIENT, FAR, 53) };
    let mut frame = build(reserved, Kind::Udp, b"");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::Routed));
    assert_eq!(read(&frame), reserved);
}

fn publish_on(model: &mut Model, address: Address, port: u16) {
    for protocol in [6, 17] {
        model.publish((address, port), protocol, (address, port));
    }
}

#[test]
fn a_containers_own_address_is_open_as_far_as_its_network_says() {
    /// Who reaches what: a published port, another one, ping.
    type Row = (&'static str, u16, [bool; 3]);
    let rows: [Row; 7] = [
        ("nat", 0, [false, false, false]),
        ("routed", Terms::ROUTED | Terms::NO_MASQUERADE, [true, false, true]),
        ("unprotected", Terms::UNPROTECTED, [true, true, true]),
        ("direct routing", Terms::DIRECT, [true, false, false]),
        ("an interface that isn't trusted", Terms::TRUSTED, [false, false, false]),
        ("no masquerading", Terms::NO_MASQUERADE, [false, false, false]),
        ("internal", Terms::INTERNAL, [false, false, false]),
    ];
    for (description, terms, expected) in rows {
        for (what, is_open) in [(from_to(FAR, WEB, 80), expected[0]), (from_to(FAR, WEB, 81), expected[1])] {
            for kind in [Kind::Udp, Kind::Tcp(tcp::SYN)] {
                let mut model = host(Mode::Sole, terms);
                publish_on(&mut model, WEB, 80);
                let fate = arrives(&mut model, what, kind);
                let forward = is_open.then_some(Forward::IntoContainer { ifindex: WEB_IFINDEX });
                assert_eq!(fate.forward(), forward, "{description}: {what:?}");
            }
        }
        let mut model = host(Mode::Sole, terms);
        let fate = arrives(&mut model, from_to(FAR, WEB, 0), Kind::Ping);
        assert_eq!(fate.forward().is_some(), expected[2], "{description}: ping");
        let mut frame = build(from_to(FAR, WEB, 81), Kind::Udp, b"");
        let early = early(&frame.as_mut_slice(), &model, &mut Headers::EMPTY.clone());
        assert_eq!(early.is_ok(), terms & Terms::UNTRANSLATED != 0, "{description}: before tc");
    }
}

#[test]
fn a_trusted_uplink_brings_what_is_published_on_containers_addresses() {
    let mut model = host(Mode::Sole, Terms::TRUSTED);
    publish_on(&mut model, WEB, 80);
    let trusted = Admitted { admits: Admitted::TRUSTED, network: 0, terms: 0 };
    model.admitted.insert(AdmittedKey::trusted(Model::UPLINK, 2), trusted);
    assert_dropped(arrives(&mut model, from_to(FAR, WEB, 80), Kind::Udp), DropReason::DirectToContainer);
    model.admitted.insert(AdmittedKey::trusted(Model::UPLINK, 1), trusted);
    assert_dropped(arrives(&mut model, from_to(FAR, WEB, 81), Kind::Udp), DropReason::DirectToContainer);
    assert_eq!(arrives(&mut model, from_to(FAR, WEB, 80), Kind::Udp).path(), Some(PathCount::Routed));
}

#[test]
fn what_a_network_opens_is_open_to_other_networks_too() {
    let mut model = host(Mode::Sole, Terms::ROUTED | Terms::NO_MASQUERADE);
    publish_on(&mut model, WEB, 80);
    let asked = from_to(OTHER, WEB, 80);
    let mut frame = build(asked, Kind::Udp, b"");
    let fate = outbound(&mut model, OTHER_IFINDEX, 1, &mut frame);
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
    assert_eq!(read(&frame), asked);
    let fate = sends(&mut model, WEB_IFINDEX, reversed(asked));
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: OTHER_IFINDEX }));
    assert_dropped(sends(&mut model, OTHER_IFINDEX, from_to(OTHER, WEB, 81)), DropReason::OtherNetwork);
    model.set_network(OTHER, 2, Terms::INTERNAL);
    let again = Summary { source_port: 5001, ..asked };
    assert_dropped(sends(&mut model, OTHER_IFINDEX, again), DropReason::OtherNetwork);
}

#[test]
fn a_container_sends_with_its_own_address_only() {
    for mode in [Mode::Sole, Mode::Takeover] {
        let mut model = host(mode, 0);
        let stranger = [10, 8, 0, 5];
        for source in [stranger, CLIENT, OTHER, Model::HOST, Model::GATEWAY, [0; 4], [127, 0, 0, 1]] {
            for destination in [FAR, CLIENT, Model::HOST, Model::GATEWAY] {
                let fate = sends(&mut model, WEB_IFINDEX, from_to(source, destination, 53));
                assert_dropped(fate, DropReason::ForeignSource);
            }
        }
        let mut dhcp = build(from_to([0; 4], [255; 4], 67), Kind::Udp, b"");
        dhcp[..6].fill(0xff);
        assert_kernel(outbound(&mut model, WEB_IFINDEX, 1, &mut dhcp));
        let mut spoofed = build(from_to(CLIENT, [255; 4], 67), Kind::Udp, b"");
        spoofed[..6].fill(0xff);
        assert_dropped(outbound(&mut model, WEB_IFINDEX, 1, &mut spoofed), DropReason::ForeignSource);

        let veth = AdmittedKey::veth(WEB_IFINDEX);
        model.admitted.get_mut(&veth).unwrap().admits |= Admitted::ANY_SOURCE;
        assert_kernel(sends(&mut model, WEB_IFINDEX, from_to(stranger, FAR, 53)));
        for source in [CLIENT, OTHER, Model::HOST, Model::GATEWAY] {
            assert_dropped(sends(&mut model, WEB_IFINDEX, from_to(source, FAR, 53)), DropReason::ForeignSource);
        }
        assert!(model.flows.is_empty());
    }
}

#[test]
fn a_routers_clients_are_bound_by_its_network_too() {
    let mut model = host(Mode::Sole, Terms::INTERNAL);
    let stranger = [10, 8, 0, 5];
    model.admitted.get_mut(&AdmittedKey::veth(WEB_IFINDEX)).unwrap().admits |= Admitted::ANY_SOURCE;
    assert_dropped(sends(&mut model, WEB_IFINDEX, from_to(stranger, FAR, 53)), DropReason::InternalNetwork);
    assert_dropped(sends(&mut model, WEB_IFINDEX, from_to(stranger, Model::GATEWAY, 53)), DropReason::InternalNetwork);
    assert_kernel(sends(&mut model, WEB_IFINDEX, from_to(stranger, CLIENT, 53)));
}

#[test]
fn a_container_that_is_not_known_yet_is_the_kernels_in_takeover_and_nobodys_alone() {
    for (mode, destination) in
        [(Mode::Sole, FAR), (Mode::Sole, CLIENT), (Mode::Takeover, FAR), (Mode::Takeover, CLIENT)]
    {
        let mut model = host(mode, 0);
        let fate = sends(&mut model, 99, from_to([172, 17, 0, 9], destination, 53));
        if mode == Mode::Sole {
            assert_dropped(fate, DropReason::ForeignSource);
        } else {
            assert_kernel(fate);
        }
    }
}

#[test]
fn a_container_may_send_with_its_address_on_another_network() {
    for mode in [Mode::Sole, Mode::Takeover] {
        let mut model = host(mode, 0);
        // The container behind WEB's veth is also the one with the address OTHER.
        let sibling = Admitted { admits: Admitted::SENDS, network: 0, terms: 0 };
        model.admitted.insert(AdmittedKey::address(WEB_IFINDEX, OTHER), sibling);
        let sent = from_to(OTHER, FAR, 53);
        let mut frame = build(sent, Kind::Udp, b"");
        assert_eq!(outbound(&mut model, WEB_IFINDEX, 1, &mut frame).path(), Some(PathCount::MasqueradeOut));
        let mut answer = build(reversed(read(&frame)), Kind::Udp, b"");
        let fate = inbound(&mut model, 1, &mut answer);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: OTHER_IFINDEX }));
        // The bridge that it goes by has another Ethernet address than that of the network with the address.
        model.listened_to = true;
        let fate = outbound(&mut model, WEB_IFINDEX, 3, &mut addressed(99, sent, Kind::Udp));
        assert_eq!((fate.path(), model.events.len()), (Some(PathCount::MasqueradeOut), 0), "the flow goes on");
        assert_dropped(sends(&mut model, CLIENT_IFINDEX, sent), DropReason::ForeignSource);
    }
}

#[test]
fn nobody_asks_for_a_published_port_and_dhcp_goes_on() {
    for mode in [Mode::Sole, Mode::Takeover] {
        for source in [[0; 4], [0, 1, 2, 3], [224, 0, 0, 1], [239, 255, 255, 255], [255; 4]] {
            let mut model = host(mode, 0);
            let fate = arrives(&mut model, from_to(source, Model::HOST, 8080), Kind::Udp);
            assert_dropped(fate, DropReason::SpoofedSource);
            assert!(model.flows.is_empty());
        }
        let fate = arrives(&mut host(mode, 0), from_to([0; 4], [255; 4], 67), Kind::Udp);
        assert_eq!(fate.path(), Some(PathCount::ToKernel));
    }
}

#[test]
fn a_container_doesnt_reach_what_is_published_on_127_0_0_1() {
    let local = [127, 0, 0, 1];
    for mode in [Mode::Sole, Mode::Takeover] {
        let mut model = host(mode, 0);
        model.publish((local, 9090), 17, (WEB, 80));
        assert_dropped(sends(&mut model, CLIENT_IFINDEX, from_to(CLIENT, local, 9090)), DropReason::LoopbackFromWire);
    }
}

#[test]
fn the_wire_bears_no_address_of_ours_as_its_source() {
    for mode in [Mode::Sole, Mode::Takeover] {
        let mut model = host(mode, 0);
        for (source, port) in [(WEB, 8080), (WEB, 53), (OTHER, 53), (Model::HOST, 8080), (Model::GATEWAY, 8080)] {
            let fate = arrives(&mut model, from_to(source, Model::HOST, port), Kind::Udp);
            assert_dropped(fate, DropReason::SpoofedSource);
        }
        assert!(model.flows.is_empty());
    }
}

#[test]
fn alone_what_the_kernel_forwards_gets_into_no_container() {
    let frame = addressed(WEB_IFINDEX, from_to(FAR, WEB, 80), Kind::Udp);
    let arrival = Arrival { ifindex: Model::BRIDGE, now_ns: 0 };
    for (mode, came_by, passes) in [
        (Mode::Sole, 0, true),
        (Mode::Sole, 1, true),
        (Mode::Sole, Model::BRIDGE, true),
        (Mode::Sole, Model::UPLINK, false),
        (Mode::Sole, 77, false),
        (Mode::Takeover, 77, true),
    ] {
        let fate = from_host(&mut frame.clone().as_mut_slice(), &mut host(mode, 0), &arrival, came_by);
        let expected = if passes { None } else { Some(DropReason::DirectToContainer) };
        assert_eq!(fate.drop_reason(), expected, "{mode:?} {came_by}");
    }
}

/// A frame of the client's that its neighbour is to route.
fn by_neighbour(destination: Address) -> Vec<u8> {
    addressed(WEB_IFINDEX, from_to(CLIENT, destination, 53), Kind::Udp)
}

#[test]
fn what_a_neighbour_is_to_route_is_the_bridges_whoever_it_is_for() {
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = host(mode, 0);
        for destination in [FAR, Model::HOST, OTHER, OTHER_GATEWAY] {
            let mut frame = by_neighbour(destination);
            let before = frame.clone();
            assert_kernel(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame));
            assert_eq!(frame, before, "{destination:?}");
        }
        assert!(model.flows.is_empty());
        // As before: what is for the host to route, and for the neighbour itself.
        assert_eq!(sends(&mut model, CLIENT_IFINDEX, from_to(CLIENT, FAR, 53)).path(), Some(PathCount::MasqueradeOut));
        assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut by_neighbour(WEB)).path(), Some(PathCount::Local));
    }
}

#[test]
fn without_icc_no_neighbour_routes_and_an_internal_network_stays_closed() {
    let rows = [
        (Mode::Sole, Terms::ICC_OFF, Some(DropReason::IccOff)),
        (Mode::Takeover, Terms::ICC_OFF, None),
        (Mode::Takeover, Terms::ICC_OFF | Terms::ICC_UNGUARDED, Some(DropReason::IccOff)),
        (Mode::Sole, Terms::INTERNAL, Some(DropReason::InternalNetwork)),
        (Mode::Takeover, Terms::INTERNAL, None),
    ];
    for (mode, terms, expected) in rows {
        let fate = outbound(&mut host(mode, terms), CLIENT_IFINDEX, 1, &mut by_neighbour(FAR));
        assert_eq!(fate.drop_reason(), expected, "{mode:?}, {terms}");
        assert!(expected.is_some() || fate.path() == Some(PathCount::ToKernel), "{mode:?}, {terms}");
    }
}

#[test]
fn a_flow_follows_its_containers_route_to_a_neighbour_within_a_second_but_answers_stay() {
    let mut model = host(Mode::Sole, 0);
    assert_eq!(sends(&mut model, CLIENT_IFINDEX, from_to(CLIENT, FAR, 53)).path(), Some(PathCount::MasqueradeOut));
    assert_kernel(outbound(&mut model, CLIENT_IFINDEX, 3, &mut by_neighbour(FAR)));
    assert!(model.flows.is_empty(), "it has ended");

    let opening = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    assert_eq!(arrives(&mut model, opening, Kind::Udp).path(), Some(PathCount::PublishedIn));
    let answer = Summary { source: WEB, destination: FAR, source_port: 80, destination_port: 5000 };
    let mut frame = addressed(CLIENT_IFINDEX, answer, Kind::Udp);
    assert_eq!(outbound(&mut model, WEB_IFINDEX, 3, &mut frame).path(), Some(PathCount::PublishedOut));
}
