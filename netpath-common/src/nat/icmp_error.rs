//! The packet that an ICMP error quotes: which flow it belongs to, and its translation (RFC 5508, section 4).
//!
//! An error travels against the packet that it quotes, so the flow entry of the *error's* direction is found by the
//! quoted tuple, reversed; and what that entry does to source and destination happens, mirrored, inside the quote.

use core::hint::black_box;

use crate::{
    abi::{Flow, FlowKey},
    drop::DropReason,
    packet::Packet,
    parse::Headers,
    wire::{checksum::Checksum, ethernet, icmp, ipv4, protocol, tcp, udp},
};

/// The quoted packet as far as translation needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Where its network header begins, counted from the frame's start.
    pub network_at: usize,
    /// Where its transport header begins.
    pub transport_at: usize,
    /// Its tuple, reversed: the key of the flow entry in the error's direction.
    pub reversed: FlowKey,
}

/// Reads the quote. `None`: it belongs to no protocol that is tracked, or it is too short to tell.
#[inline(always)]
pub fn quote(packet: &impl Packet, headers: &Headers) -> Option<Quote> {
    let network_at = headers.transport_at + icmp::LEN;
    let words: [u32; 5] = packet.read_words(network_at)?;
    let [version_ihl, _, _, _] = words[0].to_ne_bytes();
    let [_, _, fragment_high, fragment_low] = words[1].to_ne_bytes();
    let [_, protocol, _, _] = words[2].to_ne_bytes();
    let source = words[3].to_ne_bytes();
    let destination = words[4].to_ne_bytes();

    let header_len = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < ipv4::LEN {
        return None;
    }
    if u16::from_be_bytes([fragment_high, fragment_low]) & ipv4::OFFSET != 0 {
        return None;
    }
    let transport_at = network_at + header_len;
    if transport_at + icmp::QUOTE_MIN > ethernet::LEN + headers.total_len as usize {
        return None;
    }
    let words: [u32; 2] = packet.read_words(transport_at)?;
    let [a, b, c, d] = words[0].to_ne_bytes();
    let (source_port, destination_port) = match protocol {
        protocol::TCP | protocol::UDP => ([a, b], [c, d]),
        protocol::ICMP => {
            let [id_high, id_low, _, _] = words[icmp::IDENTIFIER / 4].to_ne_bytes();
            match a {
                icmp::ECHO_REQUEST => ([id_high, id_low], [0; 2]),
                icmp::ECHO_REPLY => ([0; 2], [id_high, id_low]),
                _ => return None,
            }
        }
        _ => return None,
    };
    let quoted = FlowKey { source, destination, source_port, destination_port, protocol, reserved: [0; 3] };
    Some(Quote { network_at, transport_at, reversed: quoted.reversed() })
}

/// Writes the translation into the quote and the error's own checksum. `flow` is the entry of [`Quote::reversed`].
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when a field can't be written.
#[inline(always)]
pub fn apply(packet: &mut impl Packet, headers: &Headers, quote: &Quote, flow: &Flow) -> Result<(), DropReason> {
    let key = &quote.reversed;
    let mut delta = Checksum::NONE;
    // What leaves as the flow's source is what the quoted packet was sent to, and the reverse.
    delta = replace_u32(packet, quote.network_at + ipv4::SOURCE, key.destination, flow.destination, delta)?;
    delta = replace_u32(packet, quote.network_at + ipv4::DESTINATION, key.source, flow.source, delta)?;
    let addresses = Checksum::from_folded(flow.address_delta);
    delta = adjust(packet, quote.network_at + ipv4::CHECKSUM, addresses, delta)?;
    delta = quoted_ports(packet, headers, quote, flow, delta)?;

    let at = headers.transport_at + icmp::CHECKSUM;
    let checksum = packet.read_u16(at).ok_or(DropReason::RewriteFailed)?;
    packet.write_u16(at, delta.apply(checksum))
}

#[inline(always)]
fn quoted_ports(
    packet: &mut impl Packet,
    headers: &Headers,
    quote: &Quote,
    flow: &Flow,
    mut delta: Checksum,
) -> Result<Checksum, DropReason> {
    let at = quote.transport_at;
    let key = &quote.reversed;
    let ports = Checksum::from_folded(flow.port_delta);
    let end = ethernet::LEN + headers.total_len as usize;
    match key.protocol {
        protocol::ICMP => {
            let [a, b] = key.source_port;
            let [c, d] = key.destination_port;
            let old = [a | c, b | d];
            let [a, b] = flow.source_port;
            let [c, d] = flow.destination_port;
            delta = replace_u16(packet, at + icmp::IDENTIFIER, old, [a | c, b | d], delta)?;
            adjust(packet, at + icmp::CHECKSUM, ports, delta)
        }
        transport => {
            delta = replace_u16(packet, at + udp::SOURCE_PORT, key.destination_port, flow.destination_port, delta)?;
            delta = replace_u16(packet, at + udp::DESTINATION_PORT, key.source_port, flow.source_port, delta)?;
            let both = Checksum::from_folded(flow.address_delta).plus(ports);
            if transport == protocol::UDP {
                let checksum = packet.read_u16(at + udp::CHECKSUM).ok_or(DropReason::RewriteFailed)?;
                if checksum == [0, 0] {
                    return Ok(delta);
                }
                return adjust(packet, at + udp::CHECKSUM, both, delta);
            }
            // A quote needs only reach the ports (RFC 792); TCP's checksum is beyond that.
            if at + tcp::CHECKSUM + 2 <= end {
                return adjust(packet, at + tcp::CHECKSUM, both, delta);
            }
            Ok(delta)
        }
    }
}

#[inline(always)]
fn replace_u32(
    packet: &mut impl Packet,
    at: usize,
    old: [u8; 4],
    new: [u8; 4],
    delta: Checksum,
) -> Result<Checksum, DropReason> {
    // Unseen by the compiler, which else compares it as a signed number; the verifier then doesn't know that it is none.
    packet.write_u32(black_box(at), new)?;
    Ok(delta.plus(Checksum::NONE.replace_u32(old, new)))
}

#[inline(always)]
fn replace_u16(
    packet: &mut impl Packet,
    at: usize,
    old: [u8; 2],
    new: [u8; 2],
    delta: Checksum,
) -> Result<Checksum, DropReason> {
    // As above.
    packet.write_u16(black_box(at), new)?;
    Ok(delta.plus(Checksum::NONE.replace_u16(old, new)))
}

/// Applies a difference to a checksum inside the quote and adds that change to `delta`.
#[inline(always)]
fn adjust(packet: &mut impl Packet, at: usize, change: Checksum, delta: Checksum) -> Result<Checksum, DropReason> {
    let old = packet.read_u16(at).ok_or(DropReason::RewriteFailed)?;
    replace_u16(packet, at, old, change.apply(old), delta)
}
