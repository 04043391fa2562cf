//! Containers as gateways: what a container sends to a neighbour's Ethernet address for somebody behind that neighbour.
//!
//! Such frames are the bridge's: it brings them to the neighbour and nowhere else, and the neighbour routes them. Frames for
//! the host to route have the bridge's own Ethernet address.

use super::sender::Sender;
use crate::{
    abi::{Address, HopKind, PathCount, Terms},
    drop::DropReason,
    forward::{Fate, Verdict},
    packet::Packet,
    parse::Headers,
    tables::{Arrival, Tables},
    wire::ethernet,
};

/// What a container sends with its own address by a neighbour to somebody else. Undecided: it is no such packet. An internal
/// network's containers reach nobody so.
#[inline(never)]
pub(super) fn by_neighbour<T: Tables>(
    packet: &impl Packet,
    tables: &T,
    headers: &Headers,
    arrival: &Arrival,
    sender: Sender,
) -> Fate {
    if !sender.is_own() || sender.terms() & Terms::INTERNAL != 0 {
        return Fate::UNDECIDED;
    }
    match passes_by_host(packet, tables, headers.key.source, arrival.ifindex) {
        Ok(true) => {}
        Ok(false) => return Fate::UNDECIDED,
        Err(reason) => return Fate::dropped(reason),
    }
    if let Some(destination) = tables.endpoint(headers.key.destination)
        && destination.network == sender.network()
    {
        return Fate::UNDECIDED;
    }
    if sender.terms() & Terms::ICC_OFF == 0 {
        return Fate::forwarded(Verdict::kernel(PathCount::ToKernel));
    }
    match sender.icc_off(tables.config().mode()) {
        Ok(verdict) => Fate::forwarded(verdict),
        Err(reason) => Fate::dropped(reason),
    }
}

/// Whether a container has sent a frame to another Ethernet address than its bridge's, a group aside; no, if `source` isn't
/// its own address on this veth.
///
/// # Errors
///
/// [`DropReason::Truncated`].
#[inline(always)]
pub(super) fn passes_by_host<T: Tables>(
    packet: &impl Packet,
    tables: &T,
    source: Address,
    ifindex: u32,
) -> Result<bool, DropReason> {
    let [a, b, c, d] = packet.read_u32(ethernet::DESTINATION).ok_or(DropReason::Truncated)?;
    if a & ethernet::GROUP != 0 {
        return Ok(false);
    }
    let [e, f] = packet.read_u16(ethernet::DESTINATION + 4).ok_or(DropReason::Truncated)?;
    Ok(is_of_neighbour(
        tables,
        u32::from_ne_bytes(source),
        ifindex,
        u32::from_ne_bytes([a, b, c, d]),
        u16::from_ne_bytes([e, f]),
    ))
}

/// The same with the address in two words, as numbers: the verifier looks into what lies on the stack.
#[inline(never)]
fn is_of_neighbour<T: Tables>(tables: &T, source: u32, ifindex: u32, first: u32, last: u16) -> bool {
    let Some(own) = tables.endpoint(source.to_ne_bytes()) else { return false };
    let Some(hop) = tables.hop(own.hop).filter(|hop| hop.kind == HopKind::Endpoint as u8 && hop.ifindex == ifindex)
    else {
        return false;
    };
    // A frame to the container bears the bridge's address behind the container's.
    let [_, middle, end] = hop.addresses;
    let [_, _, a, b] = middle.to_ne_bytes();
    let [c, d, e, f] = end.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]) != first || u16::from_ne_bytes([e, f]) != last
}
