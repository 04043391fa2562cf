//! Frames that an attacker would send, made by hand down to the last byte, and how they are recognised where they come out.
//!
//! Each carries a mark of its own. What a host says by itself about a packet (ICMP errors quote it) isn't the packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::differential::checksum;

/// What a frame holds behind its IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A TCP segment with these flags, to a port.
    Tcp(u8, u16),
    /// A UDP datagram to a port.
    Udp(u16),
    /// An answer of a UDP port to another.
    UdpFrom(u16, u16),
    /// A TCP segment with these flags, of a port to another.
    TcpFrom(u8, u16, u16),
    /// An ICMP echo request.
    Ping,
    /// Another ICMP message, by type.
    Icmp(u8),
    /// An ICMP error of a type and code, about a UDP datagram from one address and port to another.
    Error((u8, u8), (Ipv4Addr, u16), (Ipv4Addr, u16)),
    /// Another protocol.
    Protocol(u8),
    /// A UDP datagram to port 80 with a source route (its option's number) over an address.
    Routed(u8, Ipv4Addr),
    /// An IPv4 packet (protocol 4) or GRE (47) around a UDP datagram to port 80 of an address.
    Tunnel(u8, Ipv4Addr),
}

/// In what pieces and wrappings it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As one frame.
    Whole,
    /// In two fragments, in order.
    Fragments,
    /// The second of two fragments, alone.
    LastFragment,
    /// In a frame with these VLAN tags: type and number.
    Tagged(&'static [(u16, u16)]),
}

/// A packet to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Forged {
    /// The frame's destination.
    pub to: [u8; 6],
    /// The frame's source.
    pub from: [u8; 6],
    /// The packet's source.
    pub source: Ipv4Addr,
    /// The packet's destination.
    pub destination: Ipv4Addr,
    /// What it holds.
    pub what: What,
    /// How it is sent.
    pub shape: Shape,
}

/// The flags of TCP, as combinations of which scans are named.
pub mod flags {
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// The middle of one.
    pub const ACK: u8 = 16;
    /// The answer to an opening.
    pub const SYN_ACK: u8 = 18;
    /// The end of one.
    pub const FIN: u8 = 1;
    /// A reset.
    pub const RST: u8 = 4;
    /// FIN, PSH and URG: a "Christmas tree".
    pub const XMAS: u8 = 41;
    /// None.
    pub const NULL: u8 = 0;
}

/// Bytes of a mark.
const MARK: usize = 16;

/// The mark of an attempt.
#[must_use]
pub fn mark(number: u64) -> [u8; MARK] {
    let mut mark = *b"attacker--------";
    mark[8..].copy_from_slice(&number.to_be_bytes());
    mark
}

impl Forged {
    /// The frames.
    #[must_use]
    pub fn frames(&self, number: u64) -> Vec<Vec<u8>> {
        let body = self.body(number);
        let id = (number as u16).to_be_bytes();
        let packets = match self.shape {
            Shape::Whole | Shape::Tagged(_) => vec![self.packet(id, 0, &body)],
            Shape::Fragments => vec![self.packet(id, 0x2000, &body[..24]), self.packet(id, 3, &body[24..])],
            Shape::LastFragment => vec![self.packet(id, 3, &body[24..])],
        };
        let tags = if let Shape::Tagged(tags) = self.shape { tags } else { &[] };
        let tags: Vec<u8> =
            tags.iter().flat_map(|(kind, number)| [kind.to_be_bytes(), number.to_be_bytes()].concat()).collect();
        packets.iter().map(|packet| [&self.to[..], &self.from, &tags, &[8, 0], packet].concat()).collect()
    }

    fn packet(&self, id: [u8; 2], fragment: u16, body: &[u8]) -> Vec<u8> {
        let options = match self.what {
            // Type, length, pointer, one address, and an end.
            What::Routed(option, over) => [&[option, 7, 4][..], &over.octets(), &[0]].concat(),
            _ => Vec::new(),
        };
        ipv4(self.source, self.destination, self.protocol(), &options, (id, fragment), body)
    }

    const fn protocol(&self) -> u8 {
        match self.what {
            What::Tcp(..) | What::TcpFrom(..) => 6,
            What::Udp(_) | What::UdpFrom(..) | What::Routed(..) => 17,
            What::Ping | What::Icmp(_) | What::Error(..) => 1,
            What::Protocol(number) | What::Tunnel(number, _) => number,
        }
    }

    /// Behind the IPv4 header, whole.
    fn body(&self, number: u64) -> Vec<u8> {
        let own = 20_000 + (number % 20_000) as u16;
        // Something before the mark, so that the second of two fragments holds all of it.
        let payload = [&[0x55; 16][..], &mark(number)].concat();
        let (source, destination) = (self.source, self.destination);
        match self.what {
            What::Tcp(flags, port) => tcp(source, destination, (own, port), flags, &payload),
            What::TcpFrom(flags, from, port) => tcp(source, destination, (from, port), flags, &payload),
            What::Udp(port) => udp(source, destination, (own, port), &payload),
            What::UdpFrom(from, port) => udp(source, destination, (from, port), &payload),
            What::Routed(..) => udp(source, destination, (own, 80), &payload),
            What::Ping => icmp((8, 0), &[own.to_be_bytes(), [0, 1]].concat(), &payload),
            What::Icmp(kind) => icmp((kind, 0), &[0; 4], &payload),
            What::Error(kind, from, to) => {
                let quoted = ipv4(from.0, to.0, 17, &[], ([0, 1], 0), &udp(from.0, to.0, (from.1, to.1), &payload));
                icmp(kind, &[0; 4], &quoted)
            }
            What::Tunnel(protocol, inner) => {
                let packet = ipv4(source, inner, 17, &[], ([0, 1], 0), &udp(source, inner, (own, 80), &payload));
                let header: &[u8] = if protocol == 47 { &[0, 0, 8, 0] } else { &[] };
                [header, &packet].concat()
            }
            What::Protocol(_) => payload,
        }
    }
}

fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    (id, fragment): ([u8; 2], u16),
    body: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + body.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let sum = checksum::of(&[&packet]);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(body);
    packet
}

fn tcp(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend([0, 0, 1, 0, 0, 0, 1, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let sum = checksum::transport(source, destination, 6, &segment);
    segment[16..18].copy_from_slice(&sum);
    segment
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.extend(payload);
    let sum = checksum::transport(source, destination, 17, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

fn icmp((kind, code): (u8, u8), rest: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], rest, payload].concat();
    let sum = checksum::of(&[&message]);
    message[2..4].copy_from_slice(&sum);
    message
}

/// An answer of ARP that nobody has asked for: that `claimed` is at the Ethernet address `from`, said to one machine.
#[must_use]
pub fn arp_claim(from: [u8; 6], claimed: Ipv4Addr, to: [u8; 6], told: Ipv4Addr) -> Vec<u8> {
    let header = [&to[..], &from, &[8, 6]].concat();
    let about = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &from, &claimed.octets(), &to, &told.octets()].concat();
    [header, about].concat()
}

/// A UDP datagram over IPv6 with an attempt's mark.
#[must_use]
pub fn ipv6_datagram(
    (to, from): ([u8; 6], [u8; 6]),
    (source, destination): (Ipv6Addr, Ipv6Addr),
    port: u16,
    number: u64,
) -> Vec<u8> {
    let payload = mark(number);
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = [&to[..], &from, &[0x86, 0xdd, 0x60, 0, 0, 0], &length, &[17, 64]].concat();
    let addresses = [source.octets(), destination.octets()].concat();
    // Nobody on the way looks at the checksum, and a tap doesn't either.
    let ports = [20_000_u16.to_be_bytes(), port.to_be_bytes(), length, [0x12, 0x34]].concat();
    [header, addresses, ports, payload.to_vec()].concat()
}

/// Whether a frame holds the mark of an attempt, whatever else it is.
#[must_use]
pub fn is_marked(frame: &[u8], number: u64) -> bool {
    frame.windows(MARK).any(|window| window == mark(number))
}

/// What was seen somewhere of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The attempt.
    pub number: u64,
    /// The source of the packet that was seen.
    pub source: Ipv4Addr,
    /// Whether it is an error that quotes the attempt's packet.
    pub is_error: bool,
    /// The destination of the packet that it quotes, if it is one: who complains.
    pub quoted_destination: Option<Ipv4Addr>,
}

impl Trace {
    /// Recognises the mark in an IPv4 packet, whatever is before it.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        let mark = packet.windows(MARK).find(|window| window.starts_with(b"attacker"))?;
        let number = u64::from_be_bytes(mark[8..].try_into().ok()?);
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let is_error = packet.get(9) == Some(&1) && matches!(packet.get(header), Some(3..=5 | 11 | 12));
        let quoted_destination = if is_error { address(header + 8 + 16) } else { None };
        Some(Self { number, source: address(12)?, is_error, quoted_destination })
    }

    /// The same in a frame, tagged or not.
    #[must_use]
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
            at += 4;
        }
        Self::of_packet(frame.get(at + 2..)?)
    }
}
