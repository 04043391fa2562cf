//! Protocols that are translated by address alone.

use super::*;
use crate::wire::protocol;

const GRE: u8 = 47;

fn packet(source: Address, destination: Address, number: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4(source, destination, 64);
    let mut frame = Vec::new();
    builder.write(&mut frame, etherparse::IpNumber(number), payload).unwrap();
    frame
}

fn addresses(frame: &[u8]) -> (Address, Address) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ipv4)) = packet.net else { panic!("not IPv4") };
    let header = ipv4.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
    (header.source, header.destination)
}

#[test]
fn addresses_are_translated_and_nothing_else() {
    let sctp = b"\x13\x88\x00\x50\0\0\0\0\x01\x02\x03\x04chunk";
    for (number, payload) in [(GRE, b"\0\0\x08\0inner".as_slice()), (50, b"esp"), (protocol::SCTP, sctp), (253, b"")] {
        let mut model = Model::host(Mode::Sole);
        let mut frame = packet(CLIENT, FAR, number, payload);
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame);
        assert_eq!(fate.path(), Some(PathCount::MasqueradeOut), "protocol {number}");
        assert_eq!(addresses(&frame), (Model::HOST, FAR));
        assert_eq!(&frame[34..], payload);

        let mut answer = payload.to_vec();
        if number == protocol::SCTP {
            answer[..4].rotate_left(2);
        }
        let mut frame = packet(FAR, Model::HOST, number, &answer);
        let fate = inbound(&mut model, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }), "protocol {number}");
        assert_eq!(addresses(&frame), (FAR, CLIENT));
        assert_eq!(&frame[34..], answer);
    }
}

#[test]
fn where_only_addresses_tell_flows_apart_a_second_one_finds_no_place() {
    let mut model = Model::host(Mode::Sole);
    _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut packet(CLIENT, FAR, GRE, b"a"));
    let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut packet(WEB, FAR, GRE, b"b"));
    assert_eq!(fate.drop_reason(), Some(DropReason::PortsExhausted));
}

#[test]
fn sctp_reaches_a_published_port_of_the_same_number_only() {
    for (port, is_carried) in [(9000_u16, true), (9001, false)] {
        let mut model = Model::host(Mode::Sole);
        model.publish(([0; 4], 9000), protocol::SCTP, (WEB, port));
        let fate =
            inbound(&mut model, 1, &mut packet(FAR, Model::HOST, protocol::SCTP, b"\x13\x88\x23\x28\0\0\0\0\0\0\0\0"));
        assert_eq!(fate.path(), is_carried.then_some(PathCount::PublishedIn), "{fate:?}");
    }
}
