//! Connections as messages of ctnetlink, and back.
//!
//! The message types come from netlink-packet-netfilter; the attributes it has no name for (NAT, ICMP, TCP flags) are
//! built here. The rules for them are the kernel's, in `nf_conntrack_netlink.c` and `nf_nat_core.c`. Pure: no socket, no
//! clock.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Nla};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol, Status,
    Tuple as TuplePart,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::{Connection, Tuple};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO_REQUEST: u8 = 8;

/// Names of `linux/netfilter/nfnetlink_conntrack.h` that netlink-packet-netfilter 0.4 does not have.
const CTA_NAT_SRC: u16 = 6;
const CTA_NAT_DST: u16 = 13;
const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_PROTO: u16 = 3;
const CTA_PROTONAT_PORT_MIN: u16 = 1;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// Names of `linux/netfilter/nf_conntrack_tcp.h`.
const TCP_CONNTRACK_ESTABLISHED: u8 = 3;
const IP_CT_TCP_FLAG_WINDOW_SCALE: u8 = 1;
const IP_CT_TCP_FLAG_SACK_PERM: u8 = 2;
const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 8;

/// The largest window scale (RFC 7323, section 2.3).
const WINDOW_SCALE_MAX: u8 = 14;

/// An entry without a timeout is one whose packets bypass netfilter (a flowtable has them); the kernel keeps it for a
/// day at a time (`nf_ct_offload_timeout`).
const OFFLOADED_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A message to ctnetlink and what the netlink header says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) message: NetfilterMessage,
    pub(super) flags: u16,
}

impl Request {
    fn new(message: ConntrackMessage, flags: u16) -> Self {
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        Self { message: NetfilterMessage::new(header, message), flags }
    }
}

/// Asks for every IPv4 entry.
pub(super) fn list() -> Request {
    Request::new(ConntrackMessage::Get(Vec::new()), NLM_F_DUMP)
}

/// Makes an entry; fails with EEXIST when either of its tuples is taken.
pub(super) fn create(connection: &Connection) -> Request {
    let Connection { original, reply, .. } = connection;
    let leaving = reply.reversed();
    // The kernel derives the translation: it starts from the untranslated reply, applies the two NAT attributes and
    // marks the entry as translated where that changed the reply. Given the translated reply at once, it would find
    // nothing to change and never translate a packet, for IPS_SRC_NAT and IPS_DST_NAT are not userspace's to set.
    let mut attributes = vec![
        ConntrackAttribute::CtaTupleOrig(tuple_parts(original, ICMP_ECHO_REQUEST)),
        ConntrackAttribute::CtaTupleReply(tuple_parts(&original.reversed(), ICMP_ECHO_REPLY)),
        // Both directions, even one that stays as it is: without the attribute the kernel chooses for itself, and when
        // the tuple is taken it silently chooses another source port.
        nat(CTA_NAT_DST, leaving.destination, nat_destination_port(original, &leaving)),
        nat(CTA_NAT_SRC, leaving.source, leaving.source_port),
    ];
    attributes.extend(progress(connection));
    Request::new(ConntrackMessage::New(attributes), NLM_F_CREATE | NLM_F_EXCL)
}

/// Brings the entry of a connection up to date. The kernel refuses NAT attributes for an entry it has.
pub(super) fn update(connection: &Connection) -> Request {
    let mut attributes = vec![ConntrackAttribute::CtaTupleOrig(tuple_parts(&connection.original, ICMP_ECHO_REQUEST))];
    attributes.extend(progress(connection));
    Request::new(ConntrackMessage::New(attributes), 0)
}

/// Removes the entry that has this tuple.
pub(super) fn delete(original: &Tuple) -> Request {
    let attributes = vec![ConntrackAttribute::CtaTupleOrig(tuple_parts(original, ICMP_ECHO_REQUEST))];
    Request::new(ConntrackMessage::Delete(attributes), 0)
}

/// The connection in an entry; none when it is not TCP, UDP or ICMP echo.
pub(super) fn connection(entry: &ConntrackMessage) -> Option<Connection> {
    let ConntrackMessage::New(attributes) = entry else { return None };
    let (mut original, mut reply, mut timeout, mut established_tcp) = (None, None, OFFLOADED_TIMEOUT, false);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(parts),
            ConntrackAttribute::CtaTimeout(seconds) => timeout = Duration::from_secs((*seconds).into()),
            ConntrackAttribute::CtaProtoInfo(infos) => established_tcp = infos.iter().any(is_established),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply?, timeout, established_tcp })
}

/// How far a connection has come and how long it may last: what both a new entry and an old one can be told.
fn progress(connection: &Connection) -> Vec<ConntrackAttribute> {
    let seconds = connection.timeout.as_secs().saturating_add((connection.timeout.subsec_nanos() > 0).into());
    let mut attributes = vec![
        ConntrackAttribute::CtaStatus(status(connection)),
        ConntrackAttribute::CtaTimeout(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)),
    ];
    if connection.original.protocol == TCP {
        attributes.push(tcp_state());
    }
    attributes
}

/// The status bits that userspace may set (all but `IPS_UNCHANGEABLE_MASK`), and `IPS_CONFIRMED`, which it may not
/// change and so must repeat.
fn status(connection: &Connection) -> Status {
    match (connection.original.protocol, connection.established_tcp) {
        // Assured entries stay when the table is full.
        (TCP, true) => Status::Confirmed | Status::SeenReply | Status::Assured,
        // In its handshake or at its end, and nobody says which. As one that the kernel picked up midway: the first
        // packets in both directions make it assured, and a last packet alone does not keep it for days.
        (TCP, false) => Status::Confirmed,
        // Taken as answered, so that firewall rules see established connections. The kernel itself makes a UDP
        // connection assured with its next packet, and an echo never.
        _ => Status::Confirmed | Status::SeenReply,
    }
}

/// A TCP connection of unknown windows.
///
/// Every packet but a stray SYN is valid in ESTABLISHED, a handshake's and an ending's too: the state moves on with the
/// packets to come. Being liberal lets packets pass that seem outside the window. The largest scale keeps the kernel's
/// idea of the windows wide enough to follow the connection: when it falls behind, unacknowledged data seems to be left
/// for ever and an idle connection is forgotten after five minutes instead of five days.
fn tcp_state() -> ConntrackAttribute {
    let flags = IP_CT_TCP_FLAG_BE_LIBERAL | IP_CT_TCP_FLAG_SACK_PERM | IP_CT_TCP_FLAG_WINDOW_SCALE;
    ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![
        ProtoInfoTCP::State(TCP_CONNTRACK_ESTABLISHED),
        ProtoInfoTCP::Other(DefaultNla::new(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, vec![flags, flags])),
        ProtoInfoTCP::Other(DefaultNla::new(CTA_PROTOINFO_TCP_FLAGS_REPLY, vec![flags, flags])),
        ProtoInfoTCP::OriginalWindowScale(WINDOW_SCALE_MAX),
        ProtoInfoTCP::ReplyWindowScale(WINDOW_SCALE_MAX),
    ])])
}

fn is_established(info: &ProtoInfo) -> bool {
    let ProtoInfo::TCP(parts) = info else { return false };
    parts.contains(&ProtoInfoTCP::State(TCP_CONNTRACK_ESTABLISHED))
}

/// Translation to exactly one address and port, or echo identifier.
fn nat(kind: u16, address: Ipv4Addr, port: u16) -> ConntrackAttribute {
    let port = DefaultNla::new(CTA_PROTONAT_PORT_MIN, port.to_be_bytes().into());
    ConntrackAttribute::Other(nested(
        kind,
        &[
            DefaultNla::new(CTA_NAT_V4_MINIP, address.octets().into()),
            nested(CTA_NAT_PROTO, std::slice::from_ref(&port)),
        ],
    ))
}

/// The port for the translation of the destination. An echo has one identifier, which the kernel compares there too; it
/// changes with the source, which comes second.
fn nat_destination_port(original: &Tuple, leaving: &Tuple) -> u16 {
    if original.protocol == ICMP { original.source_port } else { leaving.destination_port }
}

/// An attribute of attributes. In the outermost place netlink-packet-netfilter 0.4 drops the flag; ctnetlink, older than
/// the flag, does not ask for it.
fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; parts.buffer_len()];
    parts.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

fn tuple_parts(tuple: &Tuple, icmp_type: u8) -> Vec<TuplePart> {
    let mut ports = vec![ProtoTuple::Protocol(tuple.protocol.into())];
    if tuple.protocol == ICMP {
        // One of them is the identifier, the other zero.
        let id = tuple.source_port | tuple.destination_port;
        ports.extend([
            ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_ID, id.to_be_bytes().into())),
            ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_TYPE, vec![icmp_type])),
            ProtoTuple::Other(DefaultNla::new(CTA_PROTO_ICMP_CODE, vec![0])),
        ]);
    } else {
        ports.extend([ProtoTuple::SourcePort(tuple.source_port), ProtoTuple::DestinationPort(tuple.destination_port)]);
    }
    vec![
        TuplePart::Ip(vec![
            IPTuple::SourceAddress(tuple.source.into()),
            IPTuple::DestinationAddress(tuple.destination.into()),
        ]),
        TuplePart::Proto(ports),
    ]
}

fn tuple(parts: &[TuplePart]) -> Option<Tuple> {
    let (mut source, mut destination, mut ports) = (None, None, None);
    for part in parts {
        match part {
            TuplePart::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(IpAddr::V4(address)) => source = Some(*address),
                        IPTuple::DestinationAddress(IpAddr::V4(address)) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            TuplePart::Proto(parts) => ports = protocol_and_ports(parts),
            _ => {}
        }
    }
    let (protocol, source_port, destination_port) = ports?;
    Some(Tuple { source: source?, destination: destination?, source_port, destination_port, protocol })
}

fn protocol_and_ports(parts: &[ProtoTuple]) -> Option<(u8, u16, u16)> {
    let (mut protocol, mut source, mut destination, mut id, mut icmp_type) = (None, None, None, None, None);
    for part in parts {
        match part {
            ProtoTuple::Protocol(number) => protocol = Some(*number),
            ProtoTuple::SourcePort(port) => source = Some(*port),
            ProtoTuple::DestinationPort(port) => destination = Some(*port),
            ProtoTuple::Other(other) if other.kind() == CTA_PROTO_ICMP_ID => id = value(other).map(u16::from_be_bytes),
            ProtoTuple::Other(other) if other.kind() == CTA_PROTO_ICMP_TYPE => {
                icmp_type = value(other).map(|[number]| number);
            }
            _ => {}
        }
    }
    match (protocol?, icmp_type) {
        (Protocol::Tcp, _) => Some((TCP, source?, destination?)),
        (Protocol::Udp, _) => Some((UDP, source?, destination?)),
        (Protocol::Icmp, Some(ICMP_ECHO_REQUEST)) => Some((ICMP, id?, 0)),
        (Protocol::Icmp, Some(ICMP_ECHO_REPLY)) => Some((ICMP, 0, id?)),
        _ => None,
    }
}

/// The value of an attribute of exactly this size.
fn value<const SIZE: usize>(attribute: &DefaultNla) -> Option<[u8; SIZE]> {
    let mut value = [0; SIZE];
    (attribute.value_len() == SIZE).then(|| attribute.emit_value(&mut value))?;
    Some(value)
}

#[cfg(test)]
mod tests;
