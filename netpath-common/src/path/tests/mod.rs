//! The packet path over the model: what goes out comes back the same, whatever it is, and every checksum is the one that
//! etherparse computes from scratch.

use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

mod answers;
mod bound_to_loopback;
mod closed_ports;
mod cones;
mod express;
mod fragments;
mod hairpin;
mod lifetimes;
mod networks;
mod next_hop;
mod own;
mod policy;
mod protocols;
mod ranges;
mod scarcity;
mod tcp_states;

use super::{Workspace, early::early, from_container::from_container, from_wire::from_wire};
use crate::{
    abi::{Address, EndReason, EventKind, Mode, PathCount, Seen},
    conntrack::{self, state::SECOND_NS},
    drop::DropReason,
    forward::{Fate, Forward},
    model::Model,
    parse::Headers,
    tables::{Arrival, Tables as _},
    wire::tcp,
};

const WEB: Address = [172, 17, 0, 2];
const WEB_IFINDEX: u32 = 12;
const CLIENT: Address = [172, 17, 0, 3];
const CLIENT_IFINDEX: u32 = 13;
const FAR: Address = [203, 0, 113, 9];

/// What a packet is, without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    source: Address,
    destination: Address,
    source_port: u16,
    destination_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp(u8),
    Udp,
    Ping,
}

fn outbound(model: &mut Model, ifindex: u32, seconds: u64, frame: &mut [u8]) -> Fate {
    let arrival = Arrival { ifindex, now_ns: seconds * SECOND_NS };
    from_container(&mut { frame }, model, &mut Workspace::EMPTY.clone(), &arrival)
}

fn inbound(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    let arrival = Arrival { ifindex: Model::UPLINK, now_ns: seconds * SECOND_NS };
    from_wire(&mut { frame }, model, &mut Workspace::EMPTY.clone(), &arrival)
}

fn build(summary: Summary, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let Summary { source, destination, source_port, destination_port } = summary;
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4(source, destination, 64);
    let mut frame = Vec::new();
    match kind {
        Kind::Udp => builder.udp(source_port, destination_port).write(&mut frame, payload),
        Kind::Ping if source_port != 0 => builder.icmpv4_echo_request(source_port, 1).write(&mut frame, payload),
        Kind::Ping => builder.icmpv4_echo_reply(destination_port, 1).write(&mut frame, payload),
        Kind::Tcp(flags) => {
            let mut header = etherparse::TcpHeader::new(source_port, destination_port, 7, 1000);
            header.syn = flags & tcp::SYN != 0;
            header.ack = flags & tcp::ACK != 0;
            header.fin = flags & tcp::FIN != 0;
            header.rst = flags & tcp::RST != 0;
            builder.tcp_header(header).write(&mut frame, payload)
        }
    }
    .unwrap();
    frame
}

/// Reads a frame and verifies its checksums.
fn read(frame: &[u8]) -> Summary {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ipv4)) = packet.net else { panic!("not IPv4") };
    let header = ipv4.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
    let (source_port, destination_port) = match packet.transport.unwrap() {
        TransportSlice::Udp(udp) => {
            assert_eq!(
                udp.checksum(),
                udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap(),
                "UDP checksum"
            );
            (udp.source_port(), udp.destination_port())
        }
        TransportSlice::Tcp(tcp) => {
            assert_eq!(
                tcp.checksum(),
                tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap(),
                "TCP checksum"
            );
            (tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "ICMP checksum");
            match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
                Icmpv4Type::EchoReply(echo) => (0, echo.id),
                _ => (0, 0),
            }
        }
        other => panic!("{other:?}"),
    };
    Summary { source: header.source, destination: header.destination, source_port, destination_port }
}

/// An ICMP error "port unreachable" about a frame.
fn port_unreachable(source: Address, destination: Address, about: &[u8]) -> Vec<u8> {
    let kind = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4(source, destination, 64);
    let mut frame = Vec::new();
    builder.icmpv4(kind).write(&mut frame, &about[14..]).unwrap();
    frame
}

/// What an ICMP error quotes.
fn quoted(error: &[u8]) -> Summary {
    read(&[&error[..14], &error[42..]].concat())
}

const fn reversed(summary: Summary) -> Summary {
    Summary {
        source: summary.destination,
        destination: summary.source,
        source_port: summary.destination_port,
        destination_port: summary.source_port,
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Tcp(tcp::SYN)), Just(Kind::Udp), Just(Kind::Ping)]
}

proptest! {
    #[test]
    fn a_masqueraded_packet_and_its_answer_are_inverse(
        kind in kinds(),
        source_port in 1..=u16::MAX,
        port in 1..=u16::MAX,
        destination in any::<[u8; 2]>(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        taken in any::<bool>(),
    ) {
        let mut model = Model::host(Mode::Sole);
        let destination = [203, 0, destination[0], destination[1]];
        let destination_port = if kind == Kind::Ping { 0 } else { port };
        let sent = Summary { source: CLIENT, destination, source_port, destination_port };
        if taken {
            let mut other = build(Summary { source: WEB, ..sent }, kind, &payload);
            let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut other);
            prop_assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
        }
        let mut frame = build(sent, kind, &payload);
        prop_assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));
        let seen = read(&frame);
        prop_assert_eq!((seen.source, seen.destination, seen.destination_port), (Model::HOST, destination, destination_port));
        // The first flow has the port unless that was a published one, which nobody gets.
        prop_assert!(source_port == 8080 || (seen.source_port == source_port) != taken);

        let answer = if let Kind::Tcp(_) = kind { Kind::Tcp(tcp::SYN | tcp::ACK) } else { kind };
        let mut frame = build(reversed(seen), answer, &payload);
        prop_assert_eq!(inbound(&mut model, 2, &mut frame).forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));
        prop_assert_eq!(read(&frame), reversed(sent));
    }

    #[test]
    fn a_published_packet_and_its_answer_are_inverse(
        is_tcp in any::<bool>(),
        client_port in 1..=u16::MAX,
        host_port in 1..=u16::MAX,
        container_port in 1..=u16::MAX,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut model = Model::host(Mode::Sole);
        let kind = if is_tcp { Kind::Tcp(tcp::SYN) } else { Kind::Udp };
        for protocol in [6, 17] {
            model.publish((Model::HOST, host_port), protocol, (WEB, container_port));
        }
        let sent = Summary { source: FAR, destination: Model::HOST, source_port: client_port, destination_port: host_port };
        let mut frame = build(sent, kind, &payload);
        prop_assert_eq!(inbound(&mut model, 1, &mut frame).forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        let seen = read(&frame);
        let expected = Summary { destination: WEB, destination_port: container_port, ..sent };
        prop_assert_eq!(seen, expected, "the client's address stays");

        let answer = if is_tcp { Kind::Tcp(tcp::SYN | tcp::ACK) } else { kind };
        let mut frame = build(reversed(seen), answer, &payload);
        prop_assert_eq!(outbound(&mut model, WEB_IFINDEX, 2, &mut frame).forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));
        prop_assert_eq!(read(&frame), reversed(sent));
    }
}

fn udp_to(destination_port: u16) -> Summary {
    Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port }
}

#[test]
fn ports_of_host_sockets_published_ports_and_kernel_flows_are_not_given_to_containers() {
    type Reserve = fn(&mut Model, crate::abi::FlowKey);
    let rows: [(&str, Reserve); 4] = [
        ("a host socket", |model, reply| {
            model.sockets.insert(reply);
        }),
        ("a flow of nf_conntrack", |model, reply| {
            model.handover.insert(reply);
        }),
        ("a published port", |model, reply| {
            model.publish(([0; 4], u16::from_be_bytes(reply.destination_port)), 17, (WEB, 80));
        }),
        ("one of a block of published ports", |model, reply| {
            model.publish_block(([0; 4], u16::from_be_bytes(reply.destination_port) & !0xff), 8, 17, (WEB, 0x400));
        }),
    ];
    for (description, reserve) in rows {
        let mut model = Model::host(Mode::Takeover);
        reserve(
            &mut model,
            crate::abi::FlowKey {
                source: FAR,
                destination: Model::HOST,
                source_port: 53_u16.to_be_bytes(),
                destination_port: 5000_u16.to_be_bytes(),
                protocol: 17,
                reserved: [0; 3],
            },
        );
        let mut frame = build(udp_to(53), Kind::Udp, b"");
        assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame).path(), Some(PathCount::MasqueradeOut));
        assert_ne!(read(&frame).source_port, 5000, "{description}");
    }
}

#[test]
fn another_containers_source_doesnt_reach_its_flow() {
    let mut model = Model::host(Mode::Sole);
    _ = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
    let fate = outbound(&mut model, WEB_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::ForeignSource));
    assert_eq!(model.flows.len(), 2, "the flow lives on");
}

#[test]
fn what_the_uplink_cant_take_opens_no_flow() {
    let whole = |_: &mut [u8]| {};
    let fragmentable = |frame: &mut [u8]| {
        frame[20] = 0;
        let (sum, carried) = u16::from_be_bytes([frame[24], frame[25]]).overflowing_add(0x4000);
        frame[24..26].copy_from_slice(&(sum + u16::from(carried)).to_be_bytes());
    };
    let answer = Ok(PathCount::KernelAnswers);
    type Row = (&'static str, fn(&mut [u8]), [Result<PathCount, DropReason>; 2]);
    let rows: [Row; 2] = [
        ("not to be fragmented", whole, [answer; 2]),
        ("to be fragmented", fragmentable, [answer, Err(DropReason::TooBig)]),
    ];
    for (what, spoil, expected) in rows {
        for (mode, expected) in [Mode::Takeover, Mode::Sole].into_iter().zip(expected) {
            let mut model = Model::host(mode);
            let mut frame = build(udp_to(53), Kind::Udp, &[0; 1600]);
            spoil(&mut frame);
            let before = frame.clone();
            let fate = outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame);
            assert_eq!(fate.path().ok_or_else(|| fate.drop_reason().unwrap()), expected, "{what}, {mode:?}");
            assert!(model.flows.is_empty(), "{what}, {mode:?}");
            if expected.is_ok() {
                assert_eq!(frame, before, "{what}, {mode:?}");
            } else {
                assert_eq!((frame[23], &frame[34..36], &frame[40..42]), (1, &[3, 4][..], &[5, 220][..]), "MTU 1500");
            }
        }
    }
}

#[test]
fn an_echo_reply_opens_no_flow() {
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = Model::host(mode);
        let reply = Summary { source: CLIENT, destination: FAR, source_port: 0, destination_port: 8080 };
        let fate = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(reply, Kind::Ping, b"netpath"));
        assert_eq!(fate.drop_reason(), Some(DropReason::NoFlow), "{mode:?}");
        assert!(model.flows.is_empty());
    }
}

#[test]
fn a_ping_of_the_host_doesnt_enter_a_container_that_pings_with_identifier_0() {
    let mut model = Model::host(Mode::Takeover);
    let ping = Summary { source: CLIENT, destination: FAR, source_port: 0, destination_port: 0 };
    let request = |summary: Summary| {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
        let mut frame = Vec::new();
        builder.ipv4(summary.source, summary.destination, 64).icmpv4_echo_request(0, 1).write(&mut frame, b"").unwrap();
        frame
    };
    let mut frame = request(ping);
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame).path(), Some(PathCount::MasqueradeOut));
    let sent = read(&frame);
    assert_ne!(sent.source_port, 0);
    let of_host = Summary { source: FAR, destination: Model::HOST, ..ping };
    assert_eq!(inbound(&mut model, 0, &mut request(of_host)).path(), Some(PathCount::ToKernel));
    let mut answer = build(reversed(sent), Kind::Ping, b"");
    assert_eq!(inbound(&mut model, 0, &mut answer).path(), Some(PathCount::MasqueradeIn));
    assert_eq!(read(&answer).destination_port, 0);
}

#[test]
fn another_icmp_message_doesnt_pass_for_an_echo_with_identifier_0() {
    let mut model = Model::host(Mode::Sole);
    let builder = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4(CLIENT, FAR, 64);
    let mut frame = Vec::new();
    builder().icmpv4_echo_request(0, 1).write(&mut frame, b"").unwrap();
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame).path(), Some(PathCount::MasqueradeOut));
    for (kind, reason) in [(13, DropReason::UnsupportedProtocol), (3, DropReason::IcmpErrorUnrelated)] {
        let mut frame = Vec::new();
        builder().icmpv4_raw(kind, 0, [0; 4]).write(&mut frame, &[0; 28]).unwrap();
        let fate = outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame);
        assert_eq!(fate.drop_reason(), Some(reason), "type {kind}");
    }
}

#[test]
fn a_packet_that_ends_here_opens_no_flow() {
    const TTL: usize = 14 + 8;
    let client = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };
    for (mode, published) in [(Mode::Takeover, None), (Mode::Sole, Some(DropReason::TtlExpired))] {
        let mut model = Model::host(mode);
        let mut frame = build(udp_to(53), Kind::Udp, b"");
        frame[TTL] = 1;
        assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 0, &mut frame).path(), Some(PathCount::KernelAnswers));
        let mut frame = build(client, Kind::Udp, b"");
        frame[TTL] = 1;
        assert_eq!(inbound(&mut model, 0, &mut frame).drop_reason(), published);
        assert!(model.flows.is_empty(), "{mode:?}");
    }
}

#[test]
fn until_flows_may_be_opened_everything_new_is_the_kernels() {
    let mut model = Model::host(Mode::Takeover);
    model.config.opens_flows = 0;
    let fate = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::Handover));
    assert!(model.flows.is_empty());
}

#[test]
fn a_port_published_on_every_address_is_published_on_the_hosts_addresses_only() {
    for (destination, is_carried) in [(Model::HOST, true), ([0; 4], false), ([198, 51, 100, 77], false)] {
        let mut model = Model::host(Mode::Takeover);
        let opening = Summary { source: FAR, destination, source_port: 5000, destination_port: 8080 };
        let fate = inbound(&mut model, 0, &mut build(opening, Kind::Udp, b""));
        let expected = if is_carried { PathCount::PublishedIn } else { PathCount::ToKernel };
        assert_eq!(fate.path(), Some(expected), "{destination:?}");
    }
}

/// What was announced: the kind, the reason and the container's port.
fn announced(model: &Model) -> Vec<(u8, u8, u16)> {
    model.events.iter().map(|event| (event.kind, event.reason, u16::from_be_bytes(event.key.source_port))).collect()
}

#[test]
fn a_listener_hears_of_a_flows_beginning_and_of_why_it_ends() {
    let (new, destroy) = (EventKind::New as u8, EventKind::Destroy as u8);
    let mut model = Model::host(Mode::Takeover);
    _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(52), Kind::Udp, b""));
    assert_eq!(model.events, [], "nobody listened");
    model.listened_to = true;
    for seconds in [1, 2, 20] {
        _ = outbound(&mut model, CLIENT_IFINDEX, seconds, &mut build(udp_to(53), Kind::Udp, b""));
    }
    assert_eq!(announced(&model), [(new, 0, 5000)], "a packet of a known flow is no news");
    let [event] = model.events.as_slice() else { panic!("{:?}", model.events) };
    assert_eq!((event.key.source, event.key.destination), (CLIENT, FAR));
    assert_eq!((event.reply_key.source, event.reply_key.destination, event.network), (FAR, Model::HOST, 1));

    // The packet after the flow's time ends it and opens the next one.
    _ = outbound(&mut model, CLIENT_IFINDEX, 60, &mut build(udp_to(53), Kind::Udp, b""));
    let expired = (destroy, EndReason::Expired as u8, 5000);
    assert_eq!(announced(&model)[1..], [expired, (new, 0, 5000)]);
    assert_eq!((model.events[1].time_ns, model.events[1].last_seen_ns), (60 * SECOND_NS, 20 * SECOND_NS));
    assert_eq!(model.events[1].key, model.events[0].key);
}

#[test]
fn a_removed_flow_goes_as_a_whole_by_the_key_of_either_direction() {
    for reply in [false, true] {
        let mut model = Model::host(Mode::Takeover);
        _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(52), Kind::Udp, b""));
        _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(53), Kind::Udp, b""));
        model.listened_to = true;
        let (key, flow) = model.flows.iter().find(|(key, _)| key.destination_port == 53_u16.to_be_bytes()).unwrap();
        let (key, reply_key) = (*key, flow.reply_key(17));
        let named = if reply { reply_key } else { key };
        assert!(conntrack::remove(&mut model, &named, 2 * SECOND_NS));
        assert!(!conntrack::remove(&mut model, &named, 2 * SECOND_NS), "it is gone");
        assert_eq!(model.flows.len(), 2, "the other flow stays");
        assert_eq!(announced(&model), [(EventKind::Destroy as u8, EndReason::Removed as u8, 5000)]);
        assert_eq!((model.events[0].key, model.events[0].reply_key), (key, reply_key));
        assert_eq!((model.events[0].seen, model.events[0].reply_seen), (Seen::PACKET, 0));
    }
}

#[test]
fn a_flow_that_takes_the_place_of_an_ended_one_evicts_it() {
    let mut model = Model::host(Mode::Takeover);
    _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(53), Kind::Udp, b""));
    model.listened_to = true;
    let other = Summary { source: WEB, ..udp_to(53) };
    _ = outbound(&mut model, WEB_IFINDEX, 100, &mut build(other, Kind::Udp, b""));
    let kinds: Vec<_> = model.events.iter().map(|event| (event.kind, event.reason, event.key.source)).collect();
    assert_eq!(kinds, [(EventKind::Destroy as u8, EndReason::Evicted as u8, CLIENT), (EventKind::New as u8, 0, WEB)]);
    assert_eq!(model.counted(PathCount::FlowsEvicted), 1);
}

#[test]
fn a_loopback_address_never_comes_from_the_wire() {
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = Model::host(mode);
        model.publish(([127, 0, 0, 1], 8080), 6, (WEB, 80));
        for (source, destination) in
            [(Model::REMOTE, [127, 0, 0, 1]), (Model::REMOTE, [127, 9, 9, 9]), ([127, 0, 0, 1], Model::HOST)]
        {
            let summary = Summary { source, destination, source_port: 40_000, destination_port: 8080 };
            let mut frame = build(summary, Kind::Tcp(tcp::SYN), b"");
            assert_eq!(
                early(&frame.as_mut_slice(), &model, &mut Headers::EMPTY.clone()),
                Err(DropReason::LoopbackFromWire)
            );
            let fate = inbound(&mut model, 1, &mut frame);
            assert_eq!(fate.drop_reason(), Some(DropReason::LoopbackFromWire), "{source:?} to {destination:?}");
            assert!(model.flows.is_empty());
        }
    }
}
