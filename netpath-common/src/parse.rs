//! 1. Parse: from bytes to [`Headers`].
//!
//! Refuses what `ip_rcv` (net/ipv4/ip_input.c) would refuse, and transport headers that disagree with the packet's
//! length. The IPv4 header checksum isn't verified: it is updated incrementally, so a wrong one stays wrong and the
//! receiver refuses it.

use crate::{
    abi::FlowKey,
    drop::DropReason,
    packet::Packet,
    wire::{ethernet, icmp, ipv4, protocol, sctp, tcp, udp},
};

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The beginning, with the ports.
    First,
    /// A later part, without ports.
    Later,
}

/// What the packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with its flags.
    Tcp {
        /// The flags byte.
        flags: u8,
    },
    /// UDP.
    Udp,
    /// An ICMP echo request; the identifier takes the source port's place in the key.
    EchoRequest,
    /// An ICMP echo reply; the identifier takes the destination port's place.
    EchoReply,
    /// An ICMP error (types 3, 4, 11, 12), which quotes a packet. A redirect quotes one too, but says something about a
    /// link, which is another one behind a translation.
    IcmpError,
    /// A question to a host other than echo (types 13, 15, 17).
    IcmpQuery,
    /// Another ICMP message.
    IcmpOther,
    /// SCTP: it has ports, but its checksum covers them and not the addresses (RFC 9260), so they are never changed.
    Sctp,
    /// Another protocol: addresses are all that is known of it.
    Other,
    /// A later fragment whose ports are known from its first.
    Fragment,
    /// A later fragment: the ports are elsewhere.
    Unknown,
}

/// What the packet path knows of an IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// The tuple; ports are zero where the packet has none.
    pub key: FlowKey,
    /// Where the transport header begins, counted from the frame's start.
    pub transport_at: usize,
    /// Where the transport's payload begins, counted from the frame's start; for unknown ones the transport header's.
    pub payload_at: usize,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// The IPv4 header's checksum.
    pub checksum: [u8; 2],
    /// Identification, which names the fragments of a datagram.
    pub identification: [u8; 2],
    /// Which part of a datagram.
    pub fragment: Fragment,
    /// Where in the datagram it begins, in units of eight bytes.
    pub fragment_offset: u16,
    /// Whether parts follow it.
    pub more_fragments: bool,
    /// Whether the packet may be fragmented on its way.
    pub may_fragment: bool,
    /// What it carries.
    pub transport: Transport,
    /// The IPv4 packet's length in bytes.
    pub total_len: u32,
    /// The largest IPv4 packet that this one becomes on a wire, in bytes: itself, or one of its segments.
    pub wire_len: u32,
    /// TCP: the sequence number, in host order.
    pub sequence: u32,
    /// TCP: the acknowledgement number, in host order; means something only with the flag ACK.
    pub acknowledgement: u32,
}

/// What a frame carries, as far as the packet path cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLayer {
    /// IPv4: the headers have been read.
    Ipv4,
    /// Something for others to carry.
    Other,
}

/// Reads the headers of an IPv4 packet into `headers`; of anything else, nothing.
///
/// Not inlined: what it keeps on the BPF stack ends here. For the same reason it writes into its caller's memory.
///
/// # Errors
///
/// The packet is malformed: [`DropReason::Truncated`], [`DropReason::MalformedIpv4`] or
/// [`DropReason::MalformedTransport`].
#[inline(never)]
pub fn parse(packet: &impl Packet, headers: &mut Headers) -> Result<NetworkLayer, DropReason> {
    let ether_type = packet.read_u16(ethernet::ETHER_TYPE).ok_or(DropReason::Truncated)?;
    if ether_type != ethernet::IPV4 {
        return Ok(NetworkLayer::Other);
    }
    *headers = parse_ipv4(packet)?;
    parse_transport(packet, headers)?;
    let segment = packet.segment_payload_len();
    if segment != 0 {
        headers.wire_len = (headers.payload_at - ethernet::LEN) as u32 + segment;
    }
    Ok(NetworkLayer::Ipv4)
}

#[inline(always)]
fn parse_ipv4(packet: &impl Packet) -> Result<Headers, DropReason> {
    const AT: usize = ethernet::LEN;
    let words: [u32; 5] = packet.read_words(AT).ok_or(DropReason::Truncated)?;
    let [version_ihl, tos, len_high, len_low] = words[0].to_ne_bytes();
    let [id_high, id_low, fragment_high, fragment_low] = words[1].to_ne_bytes();
    let [ttl, protocol, checksum_high, checksum_low] = words[2].to_ne_bytes();
    let source = words[3].to_ne_bytes();
    let destination = words[4].to_ne_bytes();

    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < ipv4::LEN {
        return Err(DropReason::MalformedIpv4);
    }
    let mut total_len = u32::from(u16::from_be_bytes([len_high, len_low]));
    if total_len == 0 || total_len + AT as u32 > packet.first_len() {
        let available = packet.frame_len().saturating_sub(AT as u32);
        if total_len == 0 && available > 0xffff {
            // Segments merged beyond 64 KiB (BIG TCP, kernel 6.3) can't say their length in 16 bits.
            total_len = available;
        }
        if total_len > available {
            return Err(DropReason::MalformedIpv4);
        }
    }
    if total_len < header_len as u32 {
        return Err(DropReason::MalformedIpv4);
    }
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    if u32::from(fragment & ipv4::OFFSET) * 8 + total_len - header_len as u32 > ipv4::DATAGRAM_MAX
        && fragment & (ipv4::OFFSET | ipv4::MORE_FRAGMENTS) != 0
    {
        return Err(DropReason::MalformedIpv4);
    }
    Ok(Headers {
        key: FlowKey { source, destination, source_port: [0; 2], destination_port: [0; 2], protocol, reserved: [0; 3] },
        transport_at: AT + header_len,
        payload_at: AT + header_len,
        ttl,
        tos,
        checksum: [checksum_high, checksum_low],
        identification: [id_high, id_low],
        fragment: if fragment & ipv4::OFFSET != 0 {
            Fragment::Later
        } else if fragment & ipv4::MORE_FRAGMENTS != 0 {
            Fragment::First
        } else {
            Fragment::Whole
        },
        fragment_offset: fragment & ipv4::OFFSET,
        more_fragments: fragment & ipv4::MORE_FRAGMENTS != 0,
        may_fragment: fragment & ipv4::DONT_FRAGMENT == 0,
        transport: Transport::Unknown,
        total_len,
        wire_len: total_len,
        sequence: 0,
        acknowledgement: 0,
    })
}

#[inline(always)]
fn parse_transport(packet: &impl Packet, headers: &mut Headers) -> Result<(), DropReason> {
    let has_header = headers.fragment != Fragment::Later;
    match headers.key.protocol {
        protocol::TCP if has_header => parse_tcp(packet, headers),
        protocol::UDP if has_header => parse_udp(packet, headers),
        protocol::ICMP if has_header => parse_icmp(packet, headers),
        protocol::SCTP if has_header => parse_sctp(packet, headers),
        protocol::TCP | protocol::UDP | protocol::ICMP | protocol::SCTP => Ok(()),
        _ => {
            headers.transport = Transport::Other;
            Ok(())
        }
    }
}

/// Bytes of the IPv4 packet from the transport header on.
#[inline(always)]
const fn transport_len(headers: &Headers) -> u32 {
    headers.total_len - (headers.transport_at - ethernet::LEN) as u32
}

/// Source and destination port, the first word of a TCP or UDP header.
#[inline(always)]
const fn set_ports(headers: &mut Headers, word: u32) {
    let [a, b, c, d] = word.to_ne_bytes();
    headers.key.source_port = [a, b];
    headers.key.destination_port = [c, d];
}

#[inline(always)]
fn parse_tcp(packet: &impl Packet, headers: &mut Headers) -> Result<(), DropReason> {
    let at = headers.transport_at;
    let words: [u32; 4] = packet.read_words(at).ok_or(DropReason::Truncated)?;
    let [data_offset, flags, _, _] = words[tcp::DATA_OFFSET / 4].to_ne_bytes();
    let header_len = usize::from(data_offset >> 4) * 4;
    if header_len < tcp::LEN || header_len as u32 > transport_len(headers) {
        return Err(DropReason::MalformedTransport);
    }
    set_ports(headers, words[0]);
    headers.payload_at = at + header_len;
    headers.sequence = u32::from_be(words[tcp::SEQUENCE / 4]);
    headers.acknowledgement = u32::from_be(words[tcp::ACKNOWLEDGEMENT / 4]);
    headers.transport = Transport::Tcp { flags };
    Ok(())
}

#[inline(always)]
fn parse_udp(packet: &impl Packet, headers: &mut Headers) -> Result<(), DropReason> {
    let at = headers.transport_at;
    let words: [u32; 2] = packet.read_words(at).ok_or(DropReason::Truncated)?;
    let [high, low, _, _] = words[udp::LENGTH / 4].to_ne_bytes();
    let length = u32::from(u16::from_be_bytes([high, low]));
    let fits = headers.fragment == Fragment::First || length <= transport_len(headers);
    // Merged datagrams (UDP GRO) keep the length of one segment or of all: never more than there is.
    if length < udp::LEN as u32 || !fits || transport_len(headers) < udp::LEN as u32 {
        return Err(DropReason::MalformedTransport);
    }
    set_ports(headers, words[0]);
    headers.payload_at = at + udp::LEN;
    headers.transport = Transport::Udp;
    Ok(())
}

#[inline(always)]
fn parse_sctp(packet: &impl Packet, headers: &mut Headers) -> Result<(), DropReason> {
    if transport_len(headers) < sctp::LEN as u32 {
        return Err(DropReason::MalformedTransport);
    }
    let words: [u32; 3] = packet.read_words(headers.transport_at).ok_or(DropReason::Truncated)?;
    set_ports(headers, words[0]);
    headers.transport = Transport::Sctp;
    Ok(())
}

#[inline(always)]
fn parse_icmp(packet: &impl Packet, headers: &mut Headers) -> Result<(), DropReason> {
    let at = headers.transport_at;
    if transport_len(headers) < icmp::LEN as u32 {
        return Err(DropReason::MalformedTransport);
    }
    let words: [u32; 2] = packet.read_words(at).ok_or(DropReason::Truncated)?;
    let [kind, _, _, _] = words[0].to_ne_bytes();
    let [id_high, id_low, _, _] = words[icmp::IDENTIFIER / 4].to_ne_bytes();
    headers.payload_at = at + icmp::LEN;
    headers.transport = match kind {
        icmp::ECHO_REQUEST => {
            headers.key.source_port = [id_high, id_low];
            Transport::EchoRequest
        }
        icmp::ECHO_REPLY => {
            headers.key.destination_port = [id_high, id_low];
            Transport::EchoReply
        }
        icmp::UNREACHABLE | icmp::SOURCE_QUENCH | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => Transport::IcmpError,
        icmp::TIMESTAMP | icmp::INFORMATION | icmp::ADDRESS_MASK => Transport::IcmpQuery,
        _ => Transport::IcmpOther,
    };
    if !matches!(kind, icmp::ECHO_REQUEST | icmp::ECHO_REPLY) {
        // With zeros it would pass for a packet of the echo whose identifier is 0; of an echo, one of the two is.
        headers.key.source_port = [0xff; 2];
        headers.key.destination_port = [0xff; 2];
    }
    Ok(())
}

impl Headers {
    /// Headers of nothing, for [`parse`] to fill in.
    pub const EMPTY: Self = Self {
        key: FlowKey::EMPTY,
        transport_at: 0,
        payload_at: 0,
        ttl: 0,
        tos: 0,
        checksum: [0; 2],
        identification: [0; 2],
        fragment: Fragment::Whole,
        fragment_offset: 0,
        more_fragments: false,
        may_fragment: false,
        transport: Transport::Unknown,
        total_len: 0,
        wire_len: 0,
        sequence: 0,
        acknowledgement: 0,
    };

    /// TCP: the sequence number after this packet; SYN and FIN count as a byte each (RFC 9293, section 3.4).
    #[inline(always)]
    #[must_use]
    pub const fn sequence_end(&self) -> u32 {
        let Transport::Tcp { flags } = self.transport else { return 0 };
        let payload = (self.total_len + ethernet::LEN as u32).wrapping_sub(self.payload_at as u32);
        let syn = (flags & tcp::SYN != 0) as u32;
        let fin = (flags & tcp::FIN != 0) as u32;
        self.sequence.wrapping_add(payload).wrapping_add(syn).wrapping_add(fin)
    }
}
