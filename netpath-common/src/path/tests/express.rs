//! The express way carries what tc would have carried, the same bytes, and leaves everything else alone.

use super::*;
use crate::path::express::in_driver;

const TO_WEB: Summary = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };

fn by_express(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    let arrival = Arrival { ifindex: Model::UPLINK, now_ns: seconds * SECOND_NS };
    in_driver(&mut { frame }, model, &mut Headers::EMPTY.clone(), &arrival)
}

/// A host that a client of the published UDP port has spoken to, at second 1.
fn host_with_flow() -> Model {
    let mut model = Model::host(Mode::Takeover);
    let fate = inbound(&mut model, 1, &mut build(TO_WEB, Kind::Udp, b"first"));
    assert_eq!(fate.path(), Some(PathCount::PublishedIn));
    model
}

proptest! {
    #[test]
    fn a_known_datagram_comes_out_as_it_does_at_tc(payload in proptest::collection::vec(any::<u8>(), 0..1400), seconds in 1..20_u64) {
        let (mut here, mut there) = (host_with_flow(), host_with_flow());
        let mut express_frame = build(TO_WEB, Kind::Udp, &payload);
        let mut tc_frame = express_frame.clone();
        let fate = by_express(&mut here, seconds, &mut express_frame);
        prop_assert_eq!(fate, inbound(&mut there, seconds, &mut tc_frame));
        prop_assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        prop_assert_eq!(&express_frame, &tc_frame);
        prop_assert_eq!(here.flows, there.flows);
        read(&express_frame);
    }
}

#[test]
fn answers_to_a_container_take_it_too() {
    let mut model = Model::host(Mode::Takeover);
    let sent = Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port: 53 };
    _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(sent, Kind::Udp, b""));
    let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };
    let mut frame = build(answer, Kind::Udp, b"answer");
    assert_eq!(by_express(&mut model, 1, &mut frame).path(), Some(PathCount::MasqueradeIn));
    assert_eq!(read(&frame), reversed(sent));
}

#[test]
fn what_tc_must_decide_is_left_to_it_unchanged() {
    type Spoil = fn(&mut Model, &mut Vec<u8>);
    let rows: [(&str, u64, Spoil); 8] = [
        ("no flow yet", 1, |model, _| model.flows.clear()),
        ("a container that takes no frames", 1, |model, _| model.hops.get_mut(&WEB_IFINDEX).unwrap().takes_frames = 0),
        ("a container that is gone", 1, |model, _| model.hops.get_mut(&WEB_IFINDEX).unwrap().generation += 1),
        ("a flow that has expired", 40, |_, _| {}),
        ("a packet that expires here", 1, |_, frame| frame[22] = 1),
        ("a packet that is too big", 1, |model, _| model.hops.get_mut(&WEB_IFINDEX).unwrap().mtu = 30),
        ("a fragment", 1, |_, frame| frame[20] |= 0x20),
        ("TCP", 1, |_, frame| *frame = build(TO_WEB, Kind::Tcp(tcp::SYN), b"")),
    ];
    for (description, seconds, spoil) in rows {
        let mut model = host_with_flow();
        let mut frame = build(TO_WEB, Kind::Udp, b"more");
        spoil(&mut model, &mut frame);
        let (flows, before) = (model.flows.clone(), frame.clone());
        assert!(!by_express(&mut model, seconds, &mut frame).is_decided(), "{description}");
        assert_eq!((&model.flows, &frame), (&flows, &before), "{description}");
    }
}

/// The pseudo-header's sum alone, as a sender leaves it that lets its interface make the checksum.
fn unfinished(frame: &mut [u8]) -> [u8; 2] {
    let words = frame[26..34].chunks(2).chain([&[0, 17][..], &frame[38..40]]);
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_be_bytes()
}

#[test]
fn a_datagram_whose_checksum_is_still_to_be_made_is_left_to_tc() {
    for length in [0, 1, 2, 21, 1400] {
        let mut frame = build(TO_WEB, Kind::Udp, &vec![7; length]);
        let sum = unfinished(&mut frame);
        frame[40..42].copy_from_slice(&sum);
        assert!(!by_express(&mut host_with_flow(), 1, &mut frame).is_decided(), "{length} bytes");
    }
}

#[test]
fn a_finished_datagram_that_only_looks_unfinished_keeps_its_flows_way() {
    for length in [2, 3, 22, 1401] {
        // The checksum complements the whole sum, so it equals the pseudo-header's when the last word makes it so.
        let looks_unfinished = (0..=u16::MAX).map(|last| {
            let mut payload = vec![7; length];
            payload[..2].copy_from_slice(&last.to_be_bytes());
            build(TO_WEB, Kind::Udp, &payload)
        });
        let mut frame = looks_unfinished
            .filter_map(|mut frame| (unfinished(&mut frame) == frame[40..42]).then_some(frame))
            .next()
            .expect("one of all words does");
        let fate = by_express(&mut host_with_flow(), 1, &mut frame);
        assert_eq!(fate.path(), Some(PathCount::PublishedIn), "{length} bytes");
        read(&frame);
    }
}
