//! The express way: from the uplink's driver straight into a container, before the kernel spends a buffer on the packet.
//!
//! Only for whole UDP datagrams of known flows, and only into a container whose interface takes frames
//! ([`Hop::takes_frames`](crate::abi::Hop)). Whatever else there is to decide, tc decides: opening and ending flows,
//! errors, fragments, TCP (which lives from segments that are merged on their way up, and XDP merges none).
//!
//! All packets of a flow take the same way, so none overtakes another: what is looked at doesn't change within a flow but
//! for its first packet and those that tc must answer. Even a sum that merely looks like that of an unfinished packet is
//! told from it.

use super::{carry, closed_port, early};
use crate::{
    abi::FlowKey,
    conntrack,
    forward::Fate,
    packet::Packet,
    parse::{Fragment, Headers, NetworkLayer, Transport},
    tables::{Arrival, Tables},
    wire::{checksum::Checksum, ethernet, protocol, udp},
};

/// The largest datagram whose sum is added up: one of an Ethernet of 1500 bytes.
const SUMMED_MAX: usize = 1480;

/// All that is decided about a frame in an uplink's driver, its headers in `headers`. Undecided: tc decides, and the frame is
/// unchanged.
#[inline(always)]
pub fn in_driver<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    headers: &mut Headers,
    arrival: &Arrival,
) -> Fate {
    match early::read(packet, headers) {
        Ok(NetworkLayer::Ipv4) => {}
        Ok(NetworkLayer::Other) => return Fate::UNDECIDED,
        Err(reason) => return Fate::dropped(reason),
    }
    // Before any look-up in a hash map: what a flood repeats is nearly always in the CPU's caches.
    if closed_port::is_repeated(tables, headers, arrival) {
        return closed_port::REFUSED;
    }
    if let Err(reason) = early::is_for_host(tables, headers) {
        return Fate::dropped(reason);
    }
    express(packet, tables, headers, arrival)
}

/// Carries a datagram whose headers have been read, or drops one that nobody waits for ([`closed_port`]). Undecided: it
/// isn't one for this way, and unchanged.
#[inline(always)]
fn express<P: Packet, T: Tables>(packet: &mut P, tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    if !matches!(headers.transport, Transport::Udp) || headers.fragment != Fragment::Whole {
        return Fate::UNDECIDED;
    }
    if ethernet::LEN as u32 + headers.total_len > packet.first_len() {
        return Fate::UNDECIDED;
    }
    let Some(entry) = tables.flow(&headers.key) else { return closed_port::at_xdp(tables, headers, arrival) };
    let flow = tables.load(entry);
    if flow.ingress_ifindex != 0 && flow.ingress_ifindex != arrival.ifindex {
        return Fate::UNDECIDED;
    }
    let hop = match tables.hop(flow.hop) {
        Some(hop) if hop.generation == flow.hop_generation && hop.takes_frames != 0 => hop,
        _ => return Fate::UNDECIDED,
    };
    if headers.ttl <= 1 || headers.wire_len > hop.mtu || is_unfinished(packet, headers) {
        return Fate::UNDECIDED;
    }
    if conntrack::is_silent(&flow, arrival.now_ns)
        && conntrack::is_pair_expired(tables, entry, headers.key.protocol, arrival.now_ns)
    {
        return Fate::UNDECIDED;
    }
    conntrack::track(tables, entry, &flow, headers, arrival);
    Fate::from(carry(packet, headers, &flow, &hop).map(Some))
}

/// Whether a datagram's checksum is still to be made by a device: it came over a virtual link from a sender that leaves
/// that to its interface, and holds the sum of the pseudo-header alone (`udp4_hwcsum`, net/ipv4/udp.c). Only a socket
/// buffer says so; at XDP it must be seen from the sum. One of 65,536 finished datagrams has the same, so that is verified.
#[inline(always)]
fn is_unfinished(packet: &impl Packet, headers: &Headers) -> bool {
    let at = headers.transport_at;
    let (Some(len), Some(checksum)) = (packet.read_u16(at + udp::LENGTH), packet.read_u16(at + udp::CHECKSUM)) else {
        return true;
    };
    let pseudo = pseudo_header(&headers.key, len);
    checksum == pseudo.folded().to_ne_bytes() && !is_sum_right(packet, at, usize::from(u16::from_be_bytes(len)), pseudo)
}

/// The sum of the pseudo-header (RFC 768).
#[inline(always)]
const fn pseudo_header(key: &FlowKey, len: [u8; 2]) -> Checksum {
    Checksum::NONE.with_u32(key.source).with_u32(key.destination).with_u16([0, protocol::UDP]).with_u16(len)
}

/// Whether a datagram's checksum fits its bytes; not so for one that is longer than [`SUMMED_MAX`].
#[inline(never)]
fn is_sum_right(packet: &impl Packet, at: usize, len: usize, pseudo: Checksum) -> bool {
    let mut sum = pseudo;
    let mut position = 0;
    while position + 2 <= SUMMED_MAX {
        if position + 2 > len {
            break;
        }
        let Some(word) = packet.read_u16(at + position) else { return false };
        sum = sum.with_u16(word);
        position += 2;
    }
    if position + 1 == len {
        // The last byte, with the one before it: single bytes aren't read. The box keeps the compiler from checking one
        // pointer and reading through another, which the verifier can't follow.
        let Some([_, last]) = packet.read_u16(core::hint::black_box(at + len - 2)) else { return false };
        sum = sum.with_u16([last, 0]);
        position += 1;
    }
    position == len && sum.folded() == u16::MAX
}
