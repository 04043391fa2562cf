//! Datagrams to ports that nobody listens on: the kernel gets more of each sender than it would answer, the rest is dropped
//! where nobody can be waiting for it, and nothing else ever is.

use super::*;
use crate::{
    abi::{ClosedPorts, Rate, Refusal, Sender},
    parse::parse,
    path::express::in_driver,
};

const BURST: usize = 5;
/// What a sender alone gets through: he has two places.
const SHARE: usize = 2 * BURST;
const PROBE: Summary = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 9999 };

/// A host on which nobody but sockets waits, until second 10,000.
fn host(mode: Mode) -> Model {
    let mut model = Model::host(mode);
    model.closed_ports = ClosedPorts {
        until_ns: 10_000 * SECOND_NS,
        sender: Rate::per_second(1, BURST as u64),
        all: Rate::per_second(1000, 50),
    };
    model
}

/// Where a packet is looked at.
type At = fn(&mut Model, u64, &mut [u8]) -> Fate;

fn at_tc(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    inbound(model, seconds, frame)
}

fn at_xdp(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    let arrival = Arrival { ifindex: Model::UPLINK, now_ns: seconds * SECOND_NS };
    in_driver(&mut { frame }, model, &mut Headers::EMPTY.clone(), &arrival)
}

const BOTH: [At; 2] = [at_tc, at_xdp];

/// How many of so many packets are dropped as such.
fn dropped(model: &mut Model, at: At, seconds: u64, count: usize, frame: &[u8]) -> usize {
    let is_dropped = |_: &usize| {
        let before = frame.to_vec();
        let mut frame = before.clone();
        let fate = at(model, seconds, &mut frame);
        assert!(fate.drop_reason().is_none_or(|reason| reason == DropReason::PortClosed), "{fate:?}");
        fate.drop_reason().is_some()
    };
    (0..count).filter(is_dropped).count()
}

#[test]
fn the_kernel_gets_its_share_of_a_sender_and_the_rest_is_dropped() {
    for at in BOTH {
        let mut model = host(Mode::Takeover);
        let probe = build(PROBE, Kind::Udp, b"?");
        assert_eq!(dropped(&mut model, at, 10, 20, &probe), 20 - SHARE);
        assert_eq!(dropped(&mut model, at, 12, 20, &probe), 20 - 4, "two more for each second");
        let another = build(Summary { source: [203, 0, 113, 10], ..PROBE }, Kind::Udp, b"?");
        assert_eq!(dropped(&mut model, at, 12, 20, &another), 20 - SHARE, "another sender's share is his own");
    }
}

#[test]
fn all_senders_together_get_no_more_than_a_cpus_share() {
    let mut model = host(Mode::Sole);
    let all = (0..200).map(|last| {
        let probe = build(Summary { source: [203, 0, 114, last], ..PROBE }, Kind::Udp, b"?");
        dropped(&mut model, at_xdp, 10, 1, &probe)
    });
    assert_eq!(all.sum::<usize>(), 150);
}

#[test]
fn a_flood_from_a_thousand_senders_leaves_nearly_everybody_else_his_share() {
    let mut model = host(Mode::Sole);
    model.closed_ports.all = Rate::per_second(0, 0);
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let probe = build(Summary { source: [10, 0, high, low], ..PROBE }, Kind::Udp, b"?");
        dropped(&mut model, at_xdp, 10, 3 * BURST, &probe);
    }
    let late = (0..1000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        dropped(&mut model, at_xdp, 10, 1, &build(Summary { source: [10, 1, high, low], ..PROBE }, Kind::Udp, b"?"))
    });
    let late = late.sum::<usize>();
    assert!(late < 50, "{late} of 1000 others got nothing through");
}

#[test]
fn whatever_somebody_may_wait_for_passes() {
    type Change = fn(&mut Model, &mut Vec<u8>);
    let rows: [(&str, Change); 10] = [
        ("the daemon doesn't allow it", |model, _| model.closed_ports = ClosedPorts::KERNEL),
        ("it isn't allowed any more", |model, _| model.closed_ports.until_ns = 10 * SECOND_NS),
        ("netpath hands its flows back", |model, _| model.config.opens_flows = 0),
        ("a socket takes it", |model, frame| {
            let mut headers = Headers::EMPTY;
            parse(&&mut frame[..], &mut headers).unwrap();
            model.sockets.insert(headers.key);
        }),
        ("nf_conntrack has it", |model, frame| {
            let mut headers = Headers::EMPTY;
            parse(&&mut frame[..], &mut headers).unwrap();
            model.handover.insert(headers.key);
        }),
        ("it isn't the host's", |_, frame| {
            *frame = build(Summary { destination: [198, 51, 100, 9], ..PROBE }, Kind::Udp, b"");
        }),
        ("it is everybody's", |_, frame| *frame = build(Summary { destination: [255; 4], ..PROBE }, Kind::Udp, b"")),
        ("it is a DHCP client's", |_, frame| *frame = build(Summary { destination_port: 68, ..PROBE }, Kind::Udp, b"")),
        ("it is a fragment", |_, frame| frame[20] |= 0x20),
        ("it is TCP", |_, frame| *frame = build(PROBE, Kind::Tcp(tcp::SYN), b"")),
    ];
    for (why, change) in rows {
        for at in BOTH {
            let mut model = host(Mode::Takeover);
            let mut frame = build(PROBE, Kind::Udp, b"?");
            change(&mut model, &mut frame);
            if frame[20] & 0x20 != 0 {
                // Its checksum isn't looked at.
                assert_eq!(at_xdp(&mut model, 10, &mut frame), Fate::UNDECIDED);
                continue;
            }
            assert_eq!(dropped(&mut model, at, 10, 20, &frame), 0, "{why}");
        }
    }
}

#[test]
fn published_ports_cones_and_flows_are_no_closed_ports() {
    for at in BOTH {
        let mut model = host(Mode::Sole);
        let published = build(Summary { destination_port: 8080, ..PROBE }, Kind::Udp, b"");
        assert_eq!(dropped(&mut model, at, 10, 20, &published), 0);
        model.open_cones(CLIENT);
        let sent =
            Summary { source: CLIENT, destination: [203, 0, 113, 50], source_port: 9999, destination_port: 3478 };
        assert_eq!(
            outbound(&mut model, CLIENT_IFINDEX, 10, &mut build(sent, Kind::Udp, b"")).path(),
            Some(PathCount::MasqueradeOut)
        );
        assert_eq!(dropped(&mut model, at, 10, 20, &build(PROBE, Kind::Udp, b"")), 0, "through the cone");
        let mut model = host(Mode::Sole);
        assert_eq!(
            outbound(&mut model, CLIENT_IFINDEX, 10, &mut build(sent, Kind::Udp, b"")).path(),
            Some(PathCount::MasqueradeOut)
        );
        let answer =
            Summary { source: [203, 0, 113, 50], destination: Model::HOST, source_port: 3478, destination_port: 9999 };
        assert_eq!(dropped(&mut model, at, 10, 20, &build(answer, Kind::Udp, b"")), 0, "an answer");
        model.flows.clear();
        assert_eq!(
            dropped(&mut model, at, 11, 20, &build(answer, Kind::Udp, b"")),
            20 - SHARE,
            "when the flow is gone"
        );
    }
}

#[test]
fn whom_a_container_asks_by_the_kernels_way_may_answer() {
    for at in BOTH {
        let mut model = host(Mode::Takeover);
        // Too large for the uplink and not to be split by its sender: Docker's rules translate the fragments.
        let asked = Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port: 53 };
        let mut frame = build(asked, Kind::Udp, &[0; 1480]);
        frame[20] &= !0x40;
        let header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        let fate = outbound(&mut model, CLIENT_IFINDEX, 10, &mut frame);
        assert_eq!(fate.path(), Some(PathCount::KernelAnswers), "{fate:?}");
        let answer = build(Summary { source_port: 53, destination_port: 5000, ..PROBE }, Kind::Udp, b"");
        assert_eq!(dropped(&mut model, at, 11, 100, &answer), 0);
        let [place, _] = Sender::places(model.config.port_seed, FAR);
        assert_eq!(model.sender(place).asked_at_ns, 11 * SECOND_NS, "each answer prolongs it");
    }
    let mut model = host(Mode::Takeover);
    let to_host = Summary { source: CLIENT, destination: Model::HOST, source_port: 5000, destination_port: 53 };
    let fate = outbound(&mut model, CLIENT_IFINDEX, 10, &mut build(to_host, Kind::Udp, b""));
    assert_eq!((fate.path(), model.senders.len()), (Some(PathCount::ContainerToHost), 0));
}

#[test]
fn a_refusal_is_repeated_for_milliseconds_and_no_longer() {
    const MILLISECOND_NS: u64 = 1_000_000;
    let mut model = host(Mode::Takeover);
    let mut probe = build(PROBE, Kind::Udp, b"?");
    let mut headers = Headers::EMPTY;
    parse(&&mut probe[..], &mut headers).unwrap();
    let mut at = |model: &mut Model, milliseconds: u64| {
        let now_ns = 10 * SECOND_NS + milliseconds * MILLISECOND_NS;
        let arrival = Arrival { ifindex: Model::UPLINK, now_ns };
        in_driver(&mut &mut probe[..], model, &mut Headers::EMPTY.clone(), &arrival).drop_reason()
    };
    while at(&mut model, 0).is_none() {}
    model.sockets.insert(headers.key);
    assert_eq!(at(&mut model, 0), Some(DropReason::PortClosed), "it was just refused");
    assert_eq!(at(&mut model, 34), None, "the socket is found");
    assert!(model.refusals.values().all(|refusal| refusal.0 == 0), "nothing is left of the refusal");
    model.sockets.clear();
    assert!((35..64).any(|later| at(&mut model, later).is_some()), "it is closed again");
}

#[test]
fn who_asks_gets_the_answer_though_such_were_refused_just_before() {
    let mut model = host(Mode::Takeover);
    model.hops.get_mut(&CLIENT_IFINDEX).unwrap().takes_frames = 1;
    let answer = build(Summary { source_port: 53, destination_port: 5000, ..PROBE }, Kind::Udp, b"answer");
    assert_ne!(dropped(&mut model, at_xdp, 10, 20, &answer), 0);
    let question = Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port: 53 };
    let fate = outbound(&mut model, CLIENT_IFINDEX, 10, &mut build(question, Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
    let fate = at_xdp(&mut model, 10, &mut answer.clone());
    assert_eq!(fate.path(), Some(PathCount::MasqueradeIn), "{fate:?}");
}

#[test]
fn refusals_of_other_tuples_do_not_count() {
    let key = |port: u16| {
        let mut headers = Headers::EMPTY;
        parse(&&mut build(Summary { source_port: port, ..PROBE }, Kind::Udp, b"")[..], &mut headers).unwrap();
        headers.key
    };
    let places: std::collections::BTreeSet<u32> = (1..=10_000).map(|port| Refusal::of(42, &key(port), 0).0).collect();
    assert!(places.len() > 8_500, "{} places for 10,000 tuples", places.len());
    let (_, first) = Refusal::of(42, &key(1), SECOND_NS);
    assert!((2..=10_000).all(|port| !Refusal::of(42, &key(port), SECOND_NS).1.repeats(first)));
    assert!(!Refusal::of(42, &key(1), 2 * SECOND_NS).1.repeats(first) && !first.repeats(Refusal(0)));
}
