//! The host's own packets to the world, beside containers' flows with the same tuple.

use super::*;
use crate::{abi::FlowKind, path::from_host_to_wire::from_host_to_wire};

const INSIDE: Summary = Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port: 53 };
const OUTSIDE: Summary = Summary { source: Model::HOST, ..INSIDE };

fn own(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    let arrival = Arrival { ifindex: Model::UPLINK, now_ns: seconds * SECOND_NS };
    from_host_to_wire(&mut { frame }, model, &mut Workspace::EMPTY.clone(), &arrival)
}

/// A packet's tuple; a ping has no second port.
const fn of(kind: Kind, summary: Summary) -> Summary {
    match kind {
        Kind::Ping => Summary { destination_port: 0, ..summary },
        _ => summary,
    }
}

/// A host on which a container's flow holds the tuple [`OUTSIDE`].
fn taken(mode: Mode, kind: Kind) -> Model {
    let mut model = Model::host(mode);
    let mut frame = build(of(kind, INSIDE), kind, b"container");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::MasqueradeOut));
    assert_eq!(read(&frame), of(kind, OUTSIDE));
    model
}

#[test]
fn the_hosts_own_packet_gets_another_port_when_a_container_holds_its_tuple() {
    for mode in [Mode::Takeover, Mode::Sole] {
        for kind in [Kind::Tcp(tcp::SYN), Kind::Udp, Kind::Ping] {
            let mut model = taken(mode, kind);
            let mut frame = build(of(kind, OUTSIDE), kind, b"host");
            let fate = own(&mut model, 2, &mut frame);
            assert_eq!((fate.forward(), fate.path()), (Some(Forward::Kernel), Some(PathCount::HostOut)), "{kind:?}");
            let sent = read(&frame);
            assert_ne!(sent.source_port, 5000, "{kind:?}");
            assert_eq!(Summary { source_port: 5000, ..sent }, of(kind, OUTSIDE));
            assert_eq!(frame[22], 64, "nothing of the time to live: the kernel has sent it");

            let mut frame = build(reversed(sent), kind, b"to the host");
            let fate = inbound(&mut model, 2, &mut frame);
            assert_eq!((fate.forward(), fate.path()), (Some(Forward::Kernel), Some(PathCount::HostIn)));
            assert_eq!((read(&frame), frame[22]), (reversed(of(kind, OUTSIDE)), 64));

            let mut frame = build(reversed(of(kind, OUTSIDE)), kind, b"to the container");
            assert_eq!(inbound(&mut model, 2, &mut frame).path(), Some(PathCount::MasqueradeIn));
            assert_eq!(read(&frame), reversed(of(kind, INSIDE)));
        }
    }
}

#[test]
fn it_keeps_that_port_when_the_containers_flow_has_ended() {
    let mut model = taken(Mode::Sole, Kind::Udp);
    let mut first = build(OUTSIDE, Kind::Udp, b"");
    _ = own(&mut model, 2, &mut first);
    for key in model.flows.keys().copied().collect::<Vec<_>>() {
        if model.flows.get(&key).is_some_and(|flow| flow.kind() == FlowKind::Masquerade) {
            conntrack::remove(&mut model, &key, 3 * SECOND_NS);
        }
    }
    let mut second = build(OUTSIDE, Kind::Udp, b"");
    assert_eq!(own(&mut model, 4, &mut second).path(), Some(PathCount::HostOut));
    assert_eq!(read(&first), read(&second));
}

#[test]
fn all_else_of_the_hosts_goes_untouched_and_opens_nothing() {
    let middle = build(OUTSIDE, Kind::Tcp(tcp::ACK), b"");
    let elsewhere = build(Summary { destination_port: 54, ..OUTSIDE }, Kind::Udp, b"");
    let mut malformed = build(OUTSIDE, Kind::Udp, b"");
    malformed[38] = 0x7f;
    let mut later = build(OUTSIDE, Kind::Udp, b"");
    later[21] = 1;
    for (kind, frame) in
        [(Kind::Tcp(tcp::SYN), middle), (Kind::Udp, elsewhere), (Kind::Udp, malformed), (Kind::Udp, later)]
    {
        let mut model = taken(Mode::Sole, kind);
        let mut sent = frame.clone();
        assert_eq!(own(&mut model, 2, &mut sent), Fate::UNDECIDED);
        assert_eq!((sent, model.flows.len()), (frame, 2));
    }
    // A flow that has ended holds nothing.
    let mut model = taken(Mode::Sole, Kind::Udp);
    assert_eq!(own(&mut model, 100, &mut build(OUTSIDE, Kind::Udp, b"")), Fate::UNDECIDED);
}

#[test]
fn a_clients_flow_to_a_published_port_leaves_the_hosts_answers_alone() {
    let mut model = Model::host(Mode::Takeover);
    let asked = Summary { source: FAR, destination: Model::HOST, source_port: 6000, destination_port: 8080 };
    _ = inbound(&mut model, 1, &mut build(asked, Kind::Udp, b""));
    assert_eq!(own(&mut model, 2, &mut build(reversed(asked), Kind::Udp, b"")), Fate::UNDECIDED);
}

#[test]
fn nobody_else_sends_by_the_hosts_flow() {
    let mut model = taken(Mode::Sole, Kind::Udp);
    _ = own(&mut model, 2, &mut build(OUTSIDE, Kind::Udp, b""));
    let fate = outbound(&mut model, CLIENT_IFINDEX, 3, &mut build(OUTSIDE, Kind::Udp, b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::ForeignSource));
    let fate = inbound(&mut model, 3, &mut build(OUTSIDE, Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::ToKernel));
}

#[test]
fn errors_about_the_hosts_flow_are_translated_both_ways() {
    let error = |source: Address, destination: Address, quoted: &[u8]| {
        let kind = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4(source, destination, 1);
        let mut frame = Vec::new();
        builder.icmpv4(kind).write(&mut frame, &quoted[14..]).unwrap();
        frame
    };
    let quoted = |frame: &[u8]| {
        read(frame);
        read(&[&frame[..14], &frame[42..]].concat())
    };
    let mut model = taken(Mode::Sole, Kind::Udp);
    let mut sent = build(OUTSIDE, Kind::Udp, b"host");
    _ = own(&mut model, 2, &mut sent);

    let mut frame = error(FAR, Model::HOST, &sent);
    let fate = inbound(&mut model, 2, &mut frame);
    assert_eq!((fate.forward(), fate.path()), (Some(Forward::Kernel), Some(PathCount::IcmpError)));
    assert_eq!((quoted(&frame), frame[22]), (OUTSIDE, 1), "of the host's stack, as it sent it");

    let mut answer = build(reversed(read(&sent)), Kind::Udp, b"");
    _ = inbound(&mut model, 2, &mut answer);
    let mut frame = error(Model::HOST, FAR, &answer);
    assert_eq!(own(&mut model, 2, &mut frame).path(), Some(PathCount::IcmpError));
    assert_eq!(quoted(&frame), reversed(read(&sent)), "as the far machine sent it");

    // About a container's, the host says nothing by this way.
    let mut frame = error(Model::HOST, FAR, &build(OUTSIDE, Kind::Udp, b""));
    let untouched = frame.clone();
    assert_eq!((own(&mut model, 2, &mut frame), frame), (Fate::UNDECIDED, untouched));
}
