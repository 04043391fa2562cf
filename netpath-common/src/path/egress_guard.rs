//! The last look at what others send on to the world: nothing leaves with a container's address.
//!
//! What netpath carries is translated by then. This is about what it left to the kernel in takeover mode: Docker's rules
//! don't translate what nf_conntrack calls invalid, such as a reset of a connection that is gone, and send it on.

use crate::{
    abi::Terms,
    drop::DropReason,
    forward::Fate,
    packet::Packet,
    tables::Tables,
    wire::{ethernet, ipv4},
};

/// Drops a packet that leaves by an uplink with the address of a container whose network is translated. Undecided: it
/// may leave.
#[inline(always)]
pub fn egress_guard<T: Tables>(packet: &impl Packet, tables: &T) -> Fate {
    if packet.read_u16(ethernet::ETHER_TYPE) != Some(ethernet::IPV4) {
        return Fate::UNDECIDED;
    }
    let source = packet.read_u32(ethernet::LEN + ipv4::SOURCE);
    match source.and_then(|address| tables.endpoint(address)) {
        Some(endpoint) if endpoint.terms & Terms::UNTRANSLATED == 0 => Fate::dropped(DropReason::Untranslated),
        _ => Fate::UNDECIDED,
    }
}
