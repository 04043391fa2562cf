//! From a packet as a sequence describes it to the bytes that are sent.

use std::net::Ipv4Addr;

use super::checksum;
use super::packet::{Damage, Datagram, Fragments, Payload, Segment, Step};

/// Bytes of an IPv4 header without options.
pub(super) const IPV4: usize = 20;

/// Addresses and ports that the names in a packet stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Source address and port.
    pub source: (Ipv4Addr, u16),
    /// Destination address and port.
    pub destination: (Ipv4Addr, u16),
}

/// Says what the names in a packet stand for.
pub type Names<'a> = &'a dyn Fn(&Datagram) -> Tuple;

/// The IPv4 packets of a step, in the order in which they are sent. `tag` becomes part of the data.
#[must_use]
pub fn build(step: &Step, identification: u16, tag: u64, names: Names<'_>) -> Vec<Vec<u8>> {
    let mut packet = ipv4(&step.datagram, identification, tag, names);
    match step.damage {
        Some(Damage::TransportChecksum) => {
            let at = match step.datagram.protocol() {
                6 => 16,
                17 => 6,
                _ => 2,
            };
            if let Some(byte) = packet.get_mut(IPV4 + at) {
                *byte ^= 0x55;
            }
        }
        Some(Damage::HeaderChecksum) => packet[10] ^= 0x55,
        Some(Damage::Flip { at, bits }) => {
            if let Some(byte) = packet.get_mut(usize::from(at)) {
                *byte ^= bits;
            }
            seal(&mut packet);
        }
        Some(Damage::Cut(len)) => packet.truncate(usize::from(len)),
        None => {}
    }
    fragment(packet, &step.fragments)
}

/// An IPv4 packet with right checksums.
fn ipv4(datagram: &Datagram, identification: u16, tag: u64, names: Names<'_>) -> Vec<u8> {
    let tuple = names(datagram);
    let transport = transport(datagram, &tuple, tag, names);
    let total = u16::try_from(IPV4 + transport.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, datagram.tos];
    packet.extend(total.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend([if datagram.dont_fragment { 0x40 } else { 0 }, 0, datagram.ttl, datagram.protocol(), 0, 0]);
    packet.extend(tuple.source.0.octets());
    packet.extend(tuple.destination.0.octets());
    packet.extend(transport);
    seal(&mut packet);
    packet
}

/// Makes the IPv4 header's checksum right.
fn seal(packet: &mut [u8]) {
    let len = (usize::from(packet[0] & 0x0f) * 4).clamp(IPV4, packet.len());
    packet[10..12].fill(0);
    let sum = checksum::of(&[&packet[..len]]);
    packet[10..12].copy_from_slice(&sum);
}

fn transport(datagram: &Datagram, tuple: &Tuple, tag: u64, names: Names<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (source, destination) = (tuple.source.1.to_be_bytes(), tuple.destination.1.to_be_bytes());
    match &datagram.payload {
        Payload::Tcp(segment) => {
            bytes.extend([source, destination].concat());
            tcp(segment, tag, &mut bytes);
            let sum = checksum::transport(tuple.source.0, tuple.destination.0, 6, &bytes);
            bytes[16..18].copy_from_slice(&sum);
        }
        Payload::Udp { checksum, len, .. } => {
            bytes.extend([source, destination].concat());
            bytes.extend((8 + len).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(data(*len, tag));
            if *checksum {
                let sum = checksum::transport(tuple.source.0, tuple.destination.0, 17, &bytes);
                // All zeros would mean that there is none (RFC 768).
                bytes[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
            }
        }
        Payload::Echo { reply, sequence, len, .. } => {
            let identifier = if *reply { destination } else { source };
            bytes.extend([if *reply { 0 } else { 8 }, 0, 0, 0]);
            bytes.extend(identifier);
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(data(*len, tag));
            seal_icmp(&mut bytes);
        }
        Payload::Error { kind, code, rest, quote, quoted } => {
            bytes.extend([*kind, *code, 0, 0]);
            bytes.extend(rest);
            let mut packet = ipv4(quote, 0x7777, tag, names);
            packet.truncate(IPV4 + usize::from(*quoted));
            bytes.extend(packet);
            seal_icmp(&mut bytes);
        }
        Payload::Other { bytes: content, .. } => bytes.extend(content),
    }
    bytes
}

/// What follows the ports, with the checksum left open.
fn tcp(segment: &Segment, tag: u64, bytes: &mut Vec<u8>) {
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgment.to_be_bytes());
    let words = u8::try_from(5 + segment.options.len() / 4).unwrap_or(15);
    bytes.extend([words << 4, segment.flags]);
    bytes.extend(segment.window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&segment.options);
    bytes.extend(data(segment.len, tag));
}

fn seal_icmp(bytes: &mut [u8]) {
    let sum = checksum::of(&[bytes]);
    bytes[2..4].copy_from_slice(&sum);
}

/// Data that names the sequence and the step, as far as it reaches.
fn data(len: u16, tag: u64) -> impl Iterator<Item = u8> {
    tag.to_be_bytes()
        .into_iter()
        .cycle()
        .zip(0_u8..=255)
        .map(|(byte, position)| byte ^ position)
        .cycle()
        .take(len.into())
}

/// The tag that data begins with.
pub(super) fn tag_of(data: &[u8]) -> u64 {
    data.iter().zip(0_u8..).fold(0, |tag, (byte, at)| tag << 8 | u64::from(byte ^ at))
}

/// Cuts a packet as a router does, in the order asked for.
fn fragment(packet: Vec<u8>, fragments: &Fragments) -> Vec<Vec<u8>> {
    let size = usize::from(fragments.size);
    if size == 0 || packet.len() <= IPV4 + size {
        return vec![packet];
    }
    let pieces: Vec<&[u8]> = packet[IPV4..].chunks(size).collect();
    let order =
        fragments.order.iter().map(|position| usize::from(*position)).filter(|position| *position < pieces.len());
    order
        .map(|position| {
            let more = position + 1 < pieces.len();
            let offset = u16::try_from(position * size / 8).unwrap_or(0) | if more { 0x2000 } else { 0 };
            let mut piece = [&packet[..IPV4], pieces[position]].concat();
            let total = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            piece[2..4].copy_from_slice(&total.to_be_bytes());
            piece[6..8].copy_from_slice(&offset.to_be_bytes());
            seal(&mut piece);
            piece
        })
        .collect()
}
