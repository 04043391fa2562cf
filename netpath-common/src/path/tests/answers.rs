//! What a sender is told of a packet whose time is over.

use super::*;

const TTL: usize = 14 + 8;
/// Long enough that the answer fits in its place: the model can't make a frame longer.
const DATA: &[u8] = &[7; 64];

/// The same frame with its time at the last hop.
fn dying(mut frame: Vec<u8>) -> Vec<u8> {
    frame[TTL] = 1;
    let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
    frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    frame
}

/// Checks that the frame became the error about what it was.
fn expect_told(fate: Fate, frame: &[u8], sent: &[u8], source: Address, destination: Address) {
    assert!(fate.is_answered());
    assert_eq!(fate.drop_reason(), Some(DropReason::TtlExpired));
    let answer = &frame[..70];
    let packet = SlicedPacket::from_ethernet(answer).unwrap();
    let Some(NetSlice::Ipv4(ipv4)) = &packet.net else { panic!("not IPv4") };
    let header = ipv4.header().to_header();
    assert_eq!((header.source, header.destination), (source, destination));
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("not ICMP") };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (11, 0));
    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
    assert_eq!(icmp.payload(), &sent[14..42], "what it quotes");
    assert_eq!((&answer[..6], &answer[6..12]), (&sent[6..12], &sent[..6]), "back to who brought it");
}

#[test]
fn a_client_is_told_by_the_host_when_its_packet_ends_before_a_published_port() {
    for kind in [Kind::Udp, Kind::Tcp(tcp::SYN)] {
        for is_known in [false, true] {
            let mut model = Model::host(Mode::Sole);
            let client = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
            if is_known {
                assert_eq!(inbound(&mut model, 0, &mut build(client, kind, b"")).path(), Some(PathCount::PublishedIn));
            }
            let sent = dying(build(client, kind, DATA));
            let mut frame = sent.clone();
            let fate = inbound(&mut model, 1, &mut frame);
            assert_eq!(fate.forward(), Some(Forward::Out { ifindex: Model::UPLINK }));
            expect_told(fate, &frame, &sent, Model::HOST, FAR);
            assert_eq!(model.flows.is_empty(), !is_known, "it opens nothing");
        }
    }
}

#[test]
fn a_server_is_told_by_the_host_when_its_answer_ends_here() {
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = Model::host(mode);
        let mut request = build(udp_to(53), Kind::Udp, b"");
        assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut request).path(), Some(PathCount::MasqueradeOut));
        let sent = dying(build(reversed(read(&request)), Kind::Udp, DATA));
        let mut frame = sent.clone();
        let fate = inbound(&mut model, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::Out { ifindex: Model::UPLINK }));
        expect_told(fate, &frame, &sent, Model::HOST, FAR);
    }
}

#[test]
fn a_container_is_told_by_its_gateway_when_its_packet_ends_before_a_published_port() {
    let mut model = Model::host(Mode::Sole);
    let summary = Summary { source: CLIENT, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    let sent = dying(build(summary, Kind::Udp, DATA));
    let mut frame = sent.clone();
    let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));
    expect_told(fate, &frame, &sent, Model::GATEWAY, CLIENT);
}

#[test]
fn nobody_is_told_about_errors_and_groups_and_nobody_at_all_is_not_told() {
    let client = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    let silent = |frame: &mut Vec<u8>| {
        let mut model = Model::host(Mode::Sole);
        let fate = inbound(&mut model, 1, frame);
        assert!(!fate.is_answered() && fate.drop_reason().is_some(), "{fate:?}");
    };
    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]] {
        silent(&mut dying(build(Summary { source, ..client }, Kind::Udp, DATA)));
    }
    let mut to_everyone = dying(build(client, Kind::Udp, DATA));
    to_everyone[..6].fill(0xff);
    silent(&mut to_everyone);

    let mut model = Model::host(Mode::Sole);
    let mut request = build(udp_to(53), Kind::Udp, DATA);
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut request).path(), Some(PathCount::MasqueradeOut));
    let mut error = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4(FAR, Model::HOST, 1)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut error, &request[14..])
        .unwrap();
    let fate = inbound(&mut model, 1, &mut error);
    assert_eq!((fate.is_answered(), fate.drop_reason()), (false, Some(DropReason::TtlExpired)));
}

#[test]
fn a_damaged_header_is_not_answered() {
    let mut model = Model::host(Mode::Sole);
    let client = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    let mut frame = build(client, Kind::Udp, DATA);
    // The checksum is that of the time to live before.
    frame[TTL] = 1;
    let fate = inbound(&mut model, 1, &mut frame);
    assert_eq!((fate.is_answered(), fate.drop_reason()), (false, Some(DropReason::TtlExpired)));
}

#[test]
fn answers_come_in_bursts_of_fifty_and_a_thousand_in_a_second() {
    let mut model = Model::host(Mode::Sole);
    let client = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    let mut told = |now_ns| {
        let mut frame = dying(build(client, Kind::Udp, DATA));
        let arrival = Arrival { ifindex: Model::UPLINK, now_ns };
        let frame = frame.as_mut_slice();
        from_wire(&mut { frame }, &mut model, &mut Workspace::EMPTY.clone(), &arrival).is_answered()
    };
    let at_once = (0..100).filter(|_| told(SECOND_NS)).count();
    assert_eq!(at_once, 50);
    let within_a_second = (0..4000).filter(|step| told(SECOND_NS + step * SECOND_NS / 4000)).count();
    assert!((999..=1000).contains(&within_a_second), "{within_a_second}");
}
