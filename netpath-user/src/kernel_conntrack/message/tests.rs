//! Entries as a kernel (6.18) sent them, and requests read back.

use netlink_packet_core::{NLA_TYPE_MASK, NetlinkSerializable, NlaBuffer, NlasIterator, ParseableParametrized};
use netlink_packet_netfilter::NetfilterMessageInner;
use proptest::prelude::*;

use super::*;

const NETLINK_HEADER_BYTES: usize = 16;

/// `tcp 6 999 ESTABLISHED src=172.17.0.2 dst=198.51.100.2 sport=40000 dport=80
/// src=198.51.100.2 dst=198.51.100.1 sport=80 dport=40001 [ASSURED]`
const TCP_ENTRY: &str = "\
    f00000000001220001000000292e000002000000\
    340001801400018008000100ac11000208000200c63364021c0002800500010006000000060002009c4000000600030000500000\
    340002801400018008000100c633640208000200c63364011c00028005000100060000000600020000500000060003009c410000\
    080003000000019e080008000000000008000c0048d1953f08000b000000000108000700000003e7\
    300004802c000180050001000300000005000200000000000500030000000000060004000a000000060005000a000000\
    1c001880080001000000000008000200000000000800030000000000";

/// `icmp 1 29 src=172.17.0.2 dst=198.51.100.2 type=8 code=0 id=4660 [UNREPLIED]
/// src=198.51.100.2 dst=172.17.0.2 type=0 code=0 id=4660`
const ECHO_ENTRY: &str = "\
    d00000000001220001000000292e000002000000\
    3c0001801400018008000100ac11000208000200c63364022400028005000100010000000600040012340000\
    05000500080000000500060000000000\
    3c0002801400018008000100c633640208000200ac1100022400028005000100010000000600040012340000\
    05000500000000000500060000000000\
    0800030000000008080008000000000008000c0021c5da4908000b0000000001080007000000001d\
    1c001880080001000000000008000200000000000800030000000000";

/// `icmp 1 29 src=172.17.0.2 dst=198.51.100.2 type=13 code=0 id=4661 [UNREPLIED]
/// src=198.51.100.2 dst=172.17.0.2 type=14 code=0 id=4661`
const TIMESTAMP_ENTRY: &str = "\
    d00000000001220001000000292e000002000000\
    3c0001801400018008000100ac11000208000200c63364022400028005000100010000000600040012350000\
    050005000d0000000500060000000000\
    3c0002801400018008000100c633640208000200ac1100022400028005000100010000000600040012350000\
    050005000e0000000500060000000000\
    0800030000000008080008000000000008000c00faefa8a608000b0000000001080007000000001d\
    1c001880080001000000000008000200000000000800030000000000";

/// `sctp 132 29 ESTABLISHED src=172.17.0.2 dst=198.51.100.2 sport=1 dport=2 [UNREPLIED]
/// src=198.51.100.2 dst=172.17.0.2 sport=2 dport=1`
const SCTP_ENTRY: &str = "\
    e00000000001220001000000292e000002000000\
    340001801400018008000100ac11000208000200c63364021c000280050001008400000006000200000100000600030000020000\
    340002801400018008000100c633640208000200ac1100021c000280050001008400000006000200000200000600030000010000\
    0800030000000008080008000000000008000c00f30537e608000b0000000001080007000000001d\
    200004801c000380050001000400000008000200000000010800030000000002\
    1c001880080001000000000008000200000000000800030000000000";

fn read(hex: &str) -> Option<Connection> {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let message_type = u16::from_ne_bytes([bytes[4], bytes[5]]);
    assert_eq!(bytes.len(), usize::from(bytes[0]), "the whole message");
    connection(&conntrack_message(message_type, &bytes[NETLINK_HEADER_BYTES..]))
}

fn conntrack_message(message_type: u16, body: &[u8]) -> ConntrackMessage {
    let message = NetfilterMessage::parse_with_param(body, message_type).unwrap();
    let NetfilterMessageInner::Conntrack(message) = message.inner else { panic!("not a message of ctnetlink") };
    message
}

/// The attributes of a request as they would go to the kernel and be read there.
fn sent(request: &Request) -> ConntrackMessage {
    let mut bytes = vec![0; Emitable::buffer_len(&request.message)];
    request.message.emit(&mut bytes);
    conntrack_message(request.message.message_type(), &bytes)
}

fn at(address: [u8; 4], port: u16) -> (Ipv4Addr, u16) {
    (address.into(), port)
}

fn packet(protocol: u8, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    Tuple {
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
        protocol,
    }
}

const fn established(original: Tuple, reply: Tuple) -> Connection {
    Connection { original, reply, timeout: Duration::from_secs(999), established_tcp: original.protocol == TCP }
}

/// The address and port in `CTA_NAT_SRC` or `CTA_NAT_DST`.
fn nat_target(message: &ConntrackMessage, wanted: u16) -> (Ipv4Addr, u16) {
    let ConntrackMessage::New(attributes) = message else { panic!("makes an entry") };
    let value = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::Other(other) if other.kind() & NLA_TYPE_MASK == wanted => {
            let mut value = vec![0; other.value_len()];
            other.emit_value(&mut value);
            Some(value)
        }
        _ => None,
    };
    let parts = attributes.iter().find_map(value).expect("the translation is there");
    let find = |parts: &[u8], kind: u16| -> Vec<u8> {
        let found = NlasIterator::new(parts).map(Result::unwrap).find(|part: &NlaBuffer<&[u8]>| part.kind() == kind);
        found.expect("the part is there").value().to_vec()
    };
    let address: [u8; 4] = find(&parts, CTA_NAT_V4_MINIP).try_into().unwrap();
    let port = find(&find(&parts, CTA_NAT_PROTO), CTA_PROTONAT_PORT_MIN).try_into().unwrap();
    (address.into(), u16::from_be_bytes(port))
}

#[test]
fn a_masqueraded_tcp_entry_of_the_kernel_is_read() {
    let server = at([198, 51, 100, 2], 80);
    let original = packet(TCP, at([172, 17, 0, 2], 40000), server);
    let reply = packet(TCP, server, at([198, 51, 100, 1], 40001));
    assert_eq!(read(TCP_ENTRY), Some(established(original, reply)));
}

#[test]
fn an_entry_in_another_tcp_state_is_not_established() {
    let closing = TCP_ENTRY.replace("300004802c0001800500010003", "300004802c0001800500010004");
    assert!(!read(&closing).unwrap().established_tcp);
}

#[test]
fn an_entry_without_a_timeout_lasts_a_day() {
    let (timeout, unknown) = ("08000700000003e7", "0800ff00000003e7");
    assert_eq!(read(&TCP_ENTRY.replace(timeout, unknown)).unwrap().timeout, Duration::from_secs(86_400));
}

#[test]
fn an_echo_entry_has_its_identifier_where_the_request_has_its_source_port() {
    let entry = read(ECHO_ENTRY).unwrap();
    assert_eq!(entry.original, packet(ICMP, at([172, 17, 0, 2], 0x1234), at([198, 51, 100, 2], 0)));
    assert_eq!(entry.reply, entry.original.reversed());
    assert_eq!(entry.timeout, Duration::from_secs(29));
}

#[test]
fn entries_of_other_protocols_are_left_out() {
    assert_eq!(read(TIMESTAMP_ENTRY), None);
    assert_eq!(read(SCTP_ENTRY), None);
}

#[test]
fn masquerading_is_a_translation_of_the_source() {
    let server = at([198, 51, 100, 2], 80);
    let original = packet(TCP, at([172, 17, 0, 2], 40000), server);
    let message = sent(&create(&established(original, packet(TCP, server, at([198, 51, 100, 1], 40001)))));
    assert_eq!(nat_target(&message, CTA_NAT_SRC), at([198, 51, 100, 1], 40001));
    assert_eq!(nat_target(&message, CTA_NAT_DST), server, "stays");
}

#[test]
fn publishing_is_a_translation_of_the_destination() {
    let (client, container) = (at([198, 51, 100, 2], 5555), at([172, 17, 0, 2], 80));
    let original = packet(TCP, client, at([198, 51, 100, 1], 8080));
    let message = sent(&create(&established(original, packet(TCP, container, client))));
    assert_eq!(nat_target(&message, CTA_NAT_DST), container);
    assert_eq!(nat_target(&message, CTA_NAT_SRC), client, "stays");
}

#[test]
fn the_identifier_of_an_echo_changes_with_the_source_only() {
    let original = packet(ICMP, at([172, 17, 0, 2], 1), at([198, 51, 100, 2], 0));
    let reply = packet(ICMP, at([198, 51, 100, 2], 0), at([198, 51, 100, 1], 7));
    let message = sent(&create(&established(original, reply)));
    assert_eq!(nat_target(&message, CTA_NAT_DST), at([198, 51, 100, 2], 1));
    assert_eq!(nat_target(&message, CTA_NAT_SRC), at([198, 51, 100, 1], 7));
}

#[test]
fn an_update_has_no_translation_because_the_kernel_refuses_it() {
    let original = packet(UDP, at([172, 17, 0, 2], 1), at([198, 51, 100, 2], 53));
    let ConntrackMessage::New(attributes) = sent(&update(&established(original, original.reversed()))) else {
        panic!("an update is a new message for an old entry")
    };
    assert!(!attributes.iter().any(|attribute| matches!(attribute, ConntrackAttribute::Other(_))), "{attributes:?}");
}

#[test]
fn only_an_established_tcp_connection_is_assured() {
    let packet = |protocol| packet(protocol, at([172, 17, 0, 2], 1), at([198, 51, 100, 2], 0));
    let assured = |connection: &Connection| status(connection).contains(Status::Assured);
    let answered = |connection: &Connection| status(connection).contains(Status::SeenReply);
    for protocol in [ICMP, TCP, UDP] {
        let open = established(packet(protocol), packet(protocol).reversed());
        let not_open = Connection { established_tcp: false, ..open };
        assert_eq!((assured(&open), answered(&open)), (protocol == TCP, true));
        assert_eq!((assured(&not_open), answered(&not_open)), (false, protocol != TCP));
        assert!(status(&open).contains(Status::Confirmed), "the kernel refuses to unset it");
    }
}

#[test]
fn a_timeout_is_rounded_up_and_never_zero() {
    let original = packet(UDP, at([172, 17, 0, 2], 1), at([198, 51, 100, 2], 53));
    let seconds = |timeout: Duration| {
        let connection = Connection { timeout, ..established(original, original.reversed()) };
        connection_of(&create(&connection)).timeout.as_secs()
    };
    assert_eq!(seconds(Duration::ZERO), 1);
    assert_eq!(seconds(Duration::from_millis(1001)), 2);
    assert_eq!(seconds(Duration::from_secs(30)), 30);
    assert_eq!(seconds(Duration::MAX), u64::from(u32::MAX));
}

fn connection_of(request: &Request) -> Connection {
    connection(&sent(request)).expect("a request is as readable as an entry")
}

prop_compose! {
    fn any_connection()(
        protocol in prop::sample::select(vec![ICMP, TCP, UDP]),
        addresses in any::<[[u8; 4]; 4]>(),
        ports in any::<[u16; 4]>(),
        seconds in 1..u32::MAX,
        open in any::<bool>(),
    ) -> Connection {
        let [inside, outside, from, to] = addresses;
        let port = |index: usize| if protocol == ICMP { 0 } else { ports[index] };
        Connection {
            original: packet(protocol, at(inside, ports[0]), at(to, port(1))),
            reply: packet(protocol, at(from, port(2)), at(outside, ports[3])),
            timeout: Duration::from_secs(seconds.into()),
            established_tcp: open && protocol == TCP,
        }
    }
}

proptest! {
    #[test]
    fn a_request_says_what_the_connection_is(connection in any_connection()) {
        let request = create(&connection);
        let read = connection_of(&request);
        prop_assert_eq!(read.original, connection.original);
        prop_assert_eq!(read.reply, connection.original.reversed(), "untranslated: the kernel translates");
        prop_assert_eq!(read.timeout, connection.timeout);
        prop_assert_eq!(read.established_tcp, connection.original.protocol == TCP);

        let (source, source_port) = nat_target(&sent(&request), CTA_NAT_SRC);
        let (destination, destination_port) = nat_target(&sent(&request), CTA_NAT_DST);
        let leaving = connection.reply.reversed();
        prop_assert_eq!((source, source_port, destination), (leaving.source, leaving.source_port, leaving.destination));
        if connection.original.protocol != ICMP {
            prop_assert_eq!(destination_port, leaving.destination_port);
        }
    }
}
