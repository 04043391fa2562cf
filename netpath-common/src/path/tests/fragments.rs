//! Fragments: later ones follow the first, those that overtake it wait, those that overlap are dropped.

use super::*;

const ANSWER: Summary = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };

/// A packet's frame as a fragment: its flags and offset, with the IPv4 checksum for them.
fn fragment(mut frame: Vec<u8>, flags_and_offset: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.header_checksum = header.calc_header_checksum();
    frame[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
    frame
}

fn first() -> Vec<u8> {
    // Eight bytes of header and sixteen of payload: three units.
    fragment(build(ANSWER, Kind::Udp, &[7; 16]), 0x2000)
}

fn later(offset: u16) -> Vec<u8> {
    fragment(build(ANSWER, Kind::Udp, &[8; 8]), offset)
}

fn with_flow() -> Model {
    let mut model = Model::host(Mode::Takeover);
    _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(53), Kind::Udp, b""));
    model
}

#[test]
fn later_fragments_follow_the_first() {
    let mut model = with_flow();
    assert_eq!(inbound(&mut model, 1, &mut first()).path(), Some(PathCount::MasqueradeIn));
    assert_eq!(inbound(&mut model, 1, &mut later(3)).path(), Some(PathCount::MasqueradeIn));
}

#[test]
fn one_that_overtakes_the_first_waits_unchanged() {
    let mut model = with_flow();
    let mut frame = later(3);
    assert!(inbound(&mut model, 1, &mut frame).is_held());
    assert_eq!(frame, later(3));
    _ = inbound(&mut model, 1, &mut first());
    assert_eq!(inbound(&mut model, 1, &mut frame).path(), Some(PathCount::MasqueradeIn), "when it comes again");
}

#[test]
fn a_containers_waits_too_unless_it_stays_on_its_network_or_isnt_its_own() {
    let to = |source, destination| Summary { source, destination, ..udp_to(53) };
    let later = |summary| fragment(build(summary, Kind::Udp, &[8; 8]), 3);
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = Model::host(mode);
        for destination in [FAR, Model::HOST] {
            let mut frame = later(to(CLIENT, destination));
            assert!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).is_held(), "to {destination:?}");
            let mut first = fragment(build(to(CLIENT, destination), Kind::Udp, &[7; 16]), 0x2000);
            let path = outbound(&mut model, CLIENT_IFINDEX, 1, &mut first).path();
            assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), path, "when it comes again");
        }
        for (source, destination) in [(CLIENT, WEB), (WEB, FAR)] {
            let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut later(to(source, destination)));
            assert!(!fate.is_held(), "from {source:?} to {destination:?}");
        }
    }
}

#[test]
fn a_part_that_has_come_is_dropped() {
    let mut model = with_flow();
    _ = inbound(&mut model, 1, &mut first());
    for (offset, expected) in [(2, true), (3, false), (3, true), (4, true)] {
        let fate = inbound(&mut model, 1, &mut later(offset));
        let overlaps = fate.drop_reason() == Some(DropReason::FragmentOverlap);
        assert_eq!(overlaps, expected, "at {offset}: {fate:?}");
    }
}

#[test]
fn fragments_of_the_hosts_own_datagrams_are_the_hosts() {
    let mut model = Model::host(Mode::Sole);
    assert_eq!(inbound(&mut model, 1, &mut first()).path(), Some(PathCount::ToKernel));
    assert_eq!(inbound(&mut model, 1, &mut later(3)).path(), Some(PathCount::ToKernel), "its first was looked at");
}

#[test]
fn a_datagram_longer_than_any_is_malformed() {
    let mut model = Model::host(Mode::Sole);
    let fate = inbound(&mut model, 1, &mut later(0x1fff));
    assert_eq!(fate.drop_reason(), Some(DropReason::MalformedIpv4));
}
