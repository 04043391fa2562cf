//! Writes a flow's translation into a packet: addresses, ports or echo identifier, time to live, checksums.
//!
//! Changed fields only, and the transport checksum last: see [`Packet::update_transport_checksum`].

use crate::{
    abi::Flow,
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
    let key = &headers.key;
    if flow.source != key.source {
        packet.write_u32(ethernet::LEN + ipv4::SOURCE, flow.source)?;
    }
    if flow.destination != key.destination {
        packet.write_u32(ethernet::LEN + ipv4::DESTINATION, flow.destination)?;
    }
    let delta = Checksum::from_folded(flow.address_delta);
    decrement_ttl(packet, headers, delta)
}

/// Writes one hop less to live, and the header checksum for that and for `delta`.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when a field can't be written.
#[inline(always)]
pub fn decrement_ttl(packet: &mut impl Packet, headers: &Headers, delta: Checksum) -> Result<(), DropReason> {
    const TTL_AT: usize = ethernet::LEN + ipv4::TTL;
    const CHECKSUM_AT: usize = ethernet::LEN + ipv4::CHECKSUM;
    let ttl = headers.ttl.saturating_sub(1);
    let protocol = headers.key.protocol;
    packet.write_u8(TTL_AT, ttl)?;
    let delta = delta.plus(Checksum::NONE.replace_u16([headers.ttl, protocol], [ttl, protocol]));
    let checksum = packet.read_u16(CHECKSUM_AT).ok_or(DropReason::RewriteFailed)?;
    packet.write_u16(CHECKSUM_AT, delta.apply(checksum))
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
        Transport::Echo => echo(packet, headers, flow),
        Transport::IcmpError | Transport::Other | Transport::Unknown => Ok(()),
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
