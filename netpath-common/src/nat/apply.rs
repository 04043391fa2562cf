//! Writes a flow's translation into a packet: addresses, ports or echo identifier, time to live, checksums.
//!
//! Changed fields only, and the transport checksum last: see [`Packet::update_transport_checksum`].

use crate::{
    abi::{Address, Flow},
    drop::DropReason,
    packet::{Packet, ZeroChecksum},
    parse::{Fragment, Headers, Transport},
    wire::{checksum::Checksum, ethernet, icmp, ipv4, tcp, udp},
};

/// Writes the network header: addresses, one hop less to live, and the header checksum.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when a field can't be written.
#[inline(always)]
pub fn network_header(packet: &mut impl Packet, headers: &Headers, flow: &Flow) -> Result<(), DropReason> {
    rewrite(packet, headers, flow.source, flow.destination, Checksum::from_folded(flow.address_delta))
}

/// Writes addresses, one hop less to live, and the header checksum; `addresses` is what the addresses change in it.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when the header can't be written.
#[inline(always)]
pub fn rewrite(
    packet: &mut impl Packet,
    headers: &Headers,
    source: Address,
    destination: Address,
    addresses: Checksum,
) -> Result<(), DropReason> {
    let ttl = headers.ttl.saturating_sub(1);
    let protocol = headers.key.protocol;
    let delta = addresses.plus(Checksum::NONE.replace_u16([headers.ttl, protocol], [ttl, protocol]));
    let [high, low] = delta.apply(headers.checksum);
    let words =
        [u32::from_ne_bytes([ttl, protocol, high, low]), u32::from_ne_bytes(source), u32::from_ne_bytes(destination)];
    packet.write_words(ethernet::LEN + ipv4::TTL, words)
}

/// Writes ports or echo identifier and the transport's checksum. A later fragment has neither.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when a field can't be written.
#[inline(always)]
pub fn transport_header(packet: &mut impl Packet, headers: &Headers, flow: &Flow) -> Result<(), DropReason> {
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let at = headers.transport_at;
    match headers.transport {
        Transport::Tcp { .. } => ports(packet, headers, flow, at + tcp::CHECKSUM, ZeroChecksum::IsValue),
        Transport::Udp => ports(packet, headers, flow, at + udp::CHECKSUM, ZeroChecksum::IsNone),
        Transport::EchoRequest | Transport::EchoReply => echo(packet, headers, flow),
        Transport::IcmpError
        | Transport::IcmpQuery
        | Transport::IcmpOther
        | Transport::Sctp
        | Transport::Other
        | Transport::Fragment
        | Transport::Unknown => Ok(()),
    }
}

#[inline(always)]
fn ports(
    packet: &mut impl Packet,
    headers: &Headers,
    flow: &Flow,
    checksum_at: usize,
    zero: ZeroChecksum,
) -> Result<(), DropReason> {
    let key = &headers.key;
    if flow.source_port != key.source_port || flow.destination_port != key.destination_port {
        let [a, b] = flow.source_port;
        let [c, d] = flow.destination_port;
        packet.write_u32(headers.transport_at + tcp::SOURCE_PORT, [a, b, c, d])?;
    }
    packet.update_transport_checksum(
        checksum_at,
        Checksum::from_folded(flow.address_delta),
        Checksum::from_folded(flow.port_delta),
        zero,
    )
}

/// The echo identifier; ICMP over IPv4 has no pseudo-header, so its checksum changes only with the identifier.
#[inline(always)]
fn echo(packet: &mut impl Packet, headers: &Headers, flow: &Flow) -> Result<(), DropReason> {
    if flow.port_delta == 0 {
        return Ok(());
    }
    let at = headers.transport_at;
    // One of the two is zero: a request has its identifier in the source's place, a reply in the destination's.
    let [a, b] = flow.source_port;
    let [c, d] = flow.destination_port;
    packet.write_u16(at + icmp::IDENTIFIER, [a | c, b | d])?;
    let checksum = packet.read_u16(at + icmp::CHECKSUM).ok_or(DropReason::RewriteFailed)?;
    packet.write_u16(at + icmp::CHECKSUM, Checksum::from_folded(flow.port_delta).apply(checksum))
}
