//! What came out: captured packets, taken apart for comparison.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use super::checksum;

/// Where a packet came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spot {
    /// On the wire.
    World,
    /// In a container.
    Container(u8),
    /// In the host's own sockets.
    Host,
}

/// A packet that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub at: Spot,
    /// What.
    pub packet: Packet,
}

/// Whether a checksum fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// It does.
    Right,
    /// It doesn't.
    Wrong,
    /// There is none, or not all that it is over is here.
    Open,
}

/// A packet's fields. What the checksums and ports occupied is zero in `rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source and destination port; for ICMP echo the identifier in the place of one.
    pub ports: (u16, u16),
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub identification: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// IPv4 options.
    pub options: Vec<u8>,
    /// The IPv4 header's checksum.
    pub header_sum: Sum,
    /// The checksum of the transport.
    pub sum: Sum,
    /// The packet that an ICMP error quotes.
    pub quote: Option<Box<Self>>,
    /// Everything else, data included.
    pub rest: Vec<u8>,
}

/// The flag of the fragments before the last.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

impl Packet {
    /// Takes an IPv4 packet apart; nothing, when it isn't one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let total = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        // Frames are padded to 60 bytes.
        let bytes = if total >= 20 && total <= bytes.len() { &bytes[..total] } else { bytes };
        Self::parse(bytes, Extent::Whole)
    }

    fn parse(bytes: &[u8], extent: Extent) -> Option<Self> {
        let header = bytes.get(..20)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_len < 20 {
            return None;
        }
        let options = bytes.get(20..header_len)?.to_vec();
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut packet = Self {
            source: address(12),
            destination: address(16),
            ports: (0, 0),
            protocol: header[9],
            ttl: header[8],
            tos: header[1],
            identification: half(4),
            fragment: half(6),
            options,
            header_sum: right_if(checksum::of(&[&bytes[..header_len]]) == [0, 0]),
            sum: Sum::Open,
            quote: None,
            rest: bytes[header_len..].to_vec(),
        };
        // The quoted length says whether the quote is whole.
        let whole = extent == Extent::Whole || usize::from(half(2)) == bytes.len();
        if packet.fragment & OFFSET == 0 {
            packet.parse_transport(whole && packet.fragment & MORE == 0);
        }
        Some(packet)
    }

    fn parse_transport(&mut self, whole: bool) {
        let (source, destination) = (self.source, self.destination);
        let rest = &mut self.rest;
        let complete = |rest: &[u8], protocol| {
            if whole { right_if(checksum::transport(source, destination, protocol, rest) == [0, 0]) } else { Sum::Open }
        };
        match self.protocol {
            6 if rest.len() >= 8 => {
                self.sum = if rest.len() >= 18 { complete(rest, 6) } else { Sum::Open };
                self.ports = take_ports(rest);
                clear(rest, 16);
            }
            17 if rest.len() >= 8 => {
                if rest[6..8] != [0, 0] {
                    // Only as much as the UDP header speaks of.
                    let len = usize::from(u16::from_be_bytes([rest[4], rest[5]])).min(rest.len());
                    self.sum = complete(&rest[..len], 17);
                }
                self.ports = take_ports(rest);
                // Whether there is a checksum at all remains to be seen.
                let value = u8::from(rest[6..8] != [0, 0]);
                rest[6..8].copy_from_slice(&[0, value]);
            }
            1 if rest.len() >= 8 => {
                self.sum = if whole { right_if(checksum::of(&[rest]) == [0, 0]) } else { Sum::Open };
                clear(rest, 2);
                match rest[0] {
                    0 | 8 => {
                        let identifier = u16::from_be_bytes([rest[4], rest[5]]);
                        self.ports = if rest[0] == 8 { (identifier, 0) } else { (0, identifier) };
                        clear(rest, 4);
                    }
                    3 | 4 | 5 | 11 | 12 => {
                        if let Some(quote) = Self::parse(&rest[8..], Extent::Quoted) {
                            self.quote = Some(Box::new(quote));
                            rest.truncate(8);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Whether it is only a part of a datagram.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment & (MORE | OFFSET) != 0
    }

    /// Whether it is a part of a datagram without the ports.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & OFFSET != 0
    }

    /// Whether it has ports, or an echo identifier.
    #[must_use]
    pub fn has_ports(&self) -> bool {
        match self.protocol {
            1 => matches!(self.rest.first(), Some(0 | 8)),
            _ => matches!(self.protocol, 6 | 17),
        }
    }

    /// Type and code, for ICMP.
    #[must_use]
    pub fn icmp(&self) -> Option<(u8, u8)> {
        (self.protocol == 1).then(|| Some((*self.rest.first()?, *self.rest.get(1)?)))?
    }

    /// The TCP flags.
    #[must_use]
    pub fn tcp_flags(&self) -> Option<u8> {
        (self.protocol == 6).then(|| self.rest.get(13).copied())?
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Quoted,
}

fn right_if(right: bool) -> Sum {
    if right { Sum::Right } else { Sum::Wrong }
}

fn take_ports(rest: &mut [u8]) -> (u16, u16) {
    let ports = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
    rest[..4].fill(0);
    ports
}

fn clear(rest: &mut [u8], at: usize) {
    if let Some(field) = rest.get_mut(at..at + 2) {
        field.fill(0);
    }
}

/// Puts the fragments together that came out at one place; what doesn't make a whole packet stays as it is.
///
/// Netfilter puts a datagram together and cuts it up again, netpath translates piece by piece: only the whole is
/// comparable.
#[must_use]
pub fn reassemble(raw: Vec<(Spot, Vec<u8>)>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut pieces: BTreeMap<_, Vec<(Packet, Vec<u8>)>> = BTreeMap::new();
    for (at, bytes) in raw {
        let Some(packet) = Packet::read(&bytes) else { continue };
        if packet.is_fragment() {
            let key = (at, packet.source, packet.destination, packet.protocol, packet.identification);
            pieces.entry(key).or_default().push((packet, bytes));
        } else {
            seen.push(Seen { at, packet });
        }
    }
    for ((at, ..), mut pieces) in pieces {
        pieces.sort_by_key(|(packet, _)| packet.fragment & OFFSET);
        match join(&pieces) {
            Some(packet) => seen.push(Seen { at, packet }),
            None => seen.extend(pieces.into_iter().map(|(packet, _)| Seen { at, packet })),
        }
    }
    seen
}

fn join(pieces: &[(Packet, Vec<u8>)]) -> Option<Packet> {
    let (first, bytes) = pieces.first()?;
    let header_len = usize::from(bytes[0] & 0x0f) * 4;
    let mut whole = bytes[..header_len].to_vec();
    let mut ended = false;
    for (packet, bytes) in pieces {
        let at = usize::from(packet.fragment & OFFSET) * 8;
        let so_far = whole.len() - header_len;
        if at < so_far {
            // The same piece twice.
            continue;
        }
        if at > so_far || ended {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]])).min(bytes.len());
        whole.extend(&bytes[usize::from(bytes[0] & 0x0f) * 4..total]);
        ended = packet.fragment & MORE == 0;
    }
    if !ended || first.fragment & OFFSET != 0 {
        return None;
    }
    let sums = pieces.iter().all(|(packet, _)| packet.header_sum == Sum::Right);
    let total = u16::try_from(whole.len()).ok()?;
    whole[2..4].copy_from_slice(&total.to_be_bytes());
    whole[6..8].fill(0);
    let mut packet = Packet::read(&whole)?;
    packet.header_sum = right_if(sums);
    Some(packet)
}

impl fmt::Display for Packet {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source, self.destination);
        let (source_port, destination_port) = self.ports;
        write!(to, "{source}:{source_port} > {destination}:{destination_port} proto {}", self.protocol)?;
        if let Some(flags) = self.tcp_flags() {
            write!(to, " flags {flags:#04x}")?;
        }
        if let Some((kind, code)) = self.icmp() {
            write!(to, " icmp {kind}/{code}")?;
        }
        write!(to, " ttl {} id {:#06x}", self.ttl, self.identification)?;
        if self.fragment != 0 {
            write!(to, " frag {:#06x}", self.fragment)?;
        }
        write!(to, " len {}", self.rest.len())?;
        if self.header_sum == Sum::Wrong {
            write!(to, " IPv4 CHECKSUM WRONG")?;
        }
        if self.sum == Sum::Wrong {
            write!(to, " CHECKSUM WRONG")?;
        }
        if let Some(quote) = &self.quote {
            write!(to, " about [{quote}]")?;
        }
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:?}: {}", self.at, self.packet)
    }
}
