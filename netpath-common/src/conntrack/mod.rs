//! 3. Track: the state of a flow, its lifetime, and opening a new one.
//!
//! Each direction writes its own entry, so two CPUs hardly ever contend for one. What a flow is doing follows from what
//! both directions have shown ([`state`]); how long it may be silent follows from that. What turns a TCP connection (SYN,
//! FIN, RST) is in [`tcp`]; all other packets only move [`Flow::sequence_end`] and [`Flow::acknowledged`] on.

mod announce;
mod evict;
mod open;
pub mod state;
mod tcp;

pub use open::{NewFlow, Way, open};
pub use state::{PairState, Shown, pair_state};
pub use tcp::{opens, turn, turns};

use crate::{
    abi::{Direction, EndReason, Flow, FlowKey, FlowKind, PathCount, Seen},
    nat::cone,
    parse::{Headers, Transport},
    tables::{Arrival, Tables},
    wire::{self, protocol},
};
use state::{SECOND_NS, is_before};

/// `last_seen_ns` is written when it is at least this old: a busy flow's entry stays clean in the cache. Also how much
/// longer than its timeout a pair lives at most.
pub const TOUCH_INTERVAL_NS: u64 = SECOND_NS;

/// What this packet shows by being there: bits of [`Seen`]. What turns a TCP connection, [`turn`] adds.
#[inline(always)]
#[must_use]
const fn shown(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp { flags } if flags & wire::tcp::RST != 0 => 0,
        Transport::Tcp { flags } if flags & wire::tcp::ACK != 0 => Seen::PACKET | Seen::ACK,
        _ => Seen::PACKET,
    }
}

/// Takes note of a packet of a known flow. Gives whether that was due for more than its sequence numbers: for the first
/// packet of a kind, and about once a second.
#[inline(always)]
pub fn track<T: Tables>(tables: &mut T, entry: T::Entry, flow: &Flow, headers: &Headers, arrival: &Arrival) -> bool {
    let silent_ns = arrival.now_ns.saturating_sub(flow.last_seen_ns);
    let mut seen = flow.seen | shown(headers.transport);
    if silent_ns >= TOUCH_INTERVAL_NS && headers.key.protocol == protocol::UDP {
        seen |= aged(flow.seen, silent_ns);
    }
    let is_due = seen != flow.seen || silent_ns >= TOUCH_INTERVAL_NS;
    if is_due {
        tables.touch(entry, arrival.now_ns, seen);
        if headers.key.protocol == protocol::UDP {
            cone::refresh(tables, flow, &headers.key, arrival.now_ns);
        }
    }
    if let Transport::Tcp { flags } = headers.transport
        && flags & (wire::tcp::SYN | wire::tcp::RST) == 0
    {
        follow(tables, entry, flow, headers);
    }
    is_due
}

/// Moves the sequence numbers of a direction on.
#[inline(always)]
fn follow<T: Tables>(tables: &mut T, entry: T::Entry, flow: &Flow, headers: &Headers) {
    let sequence_end = later(flow.sequence_end, headers.sequence_end(), flow.sequence_end == 0);
    let acknowledged = later(flow.acknowledged, headers.acknowledgement, flow.seen & Seen::ACK == 0);
    if sequence_end != flow.sequence_end || acknowledged != flow.acknowledged {
        tables.follow(entry, sequence_end, acknowledged);
    }
}

#[inline(always)]
const fn later(old: u32, new: u32, is_first: bool) -> u32 {
    if is_first || is_before(old, new) { new } else { old }
}

/// UDP: how old a flow has shown itself to be; nf_conntrack calls one a stream after two seconds.
#[inline(always)]
const fn aged(seen: u8, silent_ns: u64) -> u8 {
    if seen & Seen::AGED != 0 || (seen & Seen::PACKET != 0 && silent_ns >= 2 * SECOND_NS) {
        Seen::AGED | Seen::STREAM
    } else if seen & Seen::PACKET != 0 {
        Seen::AGED
    } else {
        0
    }
}

/// Whether a flow has ended: its hop has another meaning by now, or the pair has been silent for longer than its state
/// allows. Looks at the other direction only when this one has been silent for long.
#[inline(always)]
pub fn has_ended<T: Tables>(tables: &T, entry: T::Entry, protocol: u8, now_ns: u64) -> bool {
    let flow = tables.load(entry);
    match tables.hop(flow.hop) {
        Some(hop) if hop.generation == flow.hop_generation => {}
        _ => return true,
    }
    is_silent(&flow, now_ns) && is_pair_expired(tables, entry, protocol, now_ns)
}

/// Whether a direction has been silent for so long that the pair's state must be looked at.
#[inline(always)]
#[must_use]
pub const fn is_silent(flow: &Flow, now_ns: u64) -> bool {
    now_ns.saturating_sub(flow.last_seen_ns) >= TOUCH_INTERVAL_NS
}

/// Whether the pair has been silent for longer than its state allows.
#[inline(always)]
pub fn is_pair_expired<T: Tables>(tables: &T, entry: T::Entry, protocol: u8, now_ns: u64) -> bool {
    tables.standing(entry, protocol, now_ns) & EXPIRED != 0
}

/// The pair has been silent for longer than its state allows.
const EXPIRED: u32 = 1;
/// The pair is half open, closed or unanswered.
const EXPENDABLE: u32 = 2;
/// The pair may make room when the table is full.
const MAKES_ROOM: u32 = 4;

/// How a pair stands: [`EXPIRED`], [`EXPENDABLE`], [`MAKES_ROOM`]. The one place that looks at both directions, in one
/// register: see [`crate::forward::Fate`]. Asked for by [`Tables::standing`].
#[inline(always)]
pub fn standing<T: Tables>(tables: &T, entry: T::Entry, protocol: u8, now_ns: u64) -> u32 {
    let flow = tables.load(entry);
    let Some(other) = tables.flow(&flow.reply_key(protocol)) else { return EXPIRED };
    let other = tables.load(other);
    let (original, reply) = match flow.direction() {
        Direction::Original => (&flow, &other),
        Direction::Reply => (&other, &flow),
    };
    let state = pair_state(protocol, &Shown::of(original), &Shown::of(reply));
    let only_outbound = protocol == protocol::UDP && tables.config().inbound_refresh == 0;
    let last_seen_ns = match original.kind() {
        FlowKind::Masquerade if only_outbound => original.last_seen_ns,
        FlowKind::Cone if only_outbound => reply.last_seen_ns,
        _ if original.last_seen_ns > reply.last_seen_ns => original.last_seen_ns,
        _ => reply.last_seen_ns,
    };
    // A packet may have come up to an interval later than is written.
    let timeout_ns = u64::from(tables.timeout_s(state)) * SECOND_NS + TOUCH_INTERVAL_NS;
    let is_expired = now_ns.saturating_sub(last_seen_ns) >= timeout_ns;
    (if is_expired { EXPIRED } else { 0 })
        | (if state.is_expendable() { EXPENDABLE } else { 0 })
        | (if state.may_make_room() { MAKES_ROOM } else { 0 })
}

/// Ends a flow: both entries go.
#[inline(never)]
pub fn end<T: Tables>(tables: &mut T, key: &FlowKey, entry: T::Entry, reason: EndReason, now_ns: u64) {
    if tables.is_listened_to(now_ns) {
        announce::ended(tables, key, entry, reason, now_ns);
    }
    if let EndReason::Evicted = reason {
        tables.count(PathCount::FlowsEvicted, 0);
    }
    let reply_key = tables.load(entry).reply_key(key.protocol);
    tables.remove_flow(&reply_key);
    tables.remove_flow(key);
}

/// Deletes a pair when it has expired, seen afresh: the collector's step for one candidate key.
///
/// Gives whether it was deleted.
#[inline(always)]
pub fn collect<T: Tables>(tables: &mut T, key: &FlowKey, now_ns: u64) -> bool {
    let Some(entry) = tables.flow(key) else { return false };
    if !has_ended(tables, entry, key.protocol, now_ns) {
        return false;
    }
    let flow = tables.load(entry);
    let reason = match tables.hop(flow.hop) {
        Some(hop) if hop.generation == flow.hop_generation => EndReason::Expired,
        _ => EndReason::HopGone,
    };
    end(tables, key, entry, reason, now_ns);
    true
}

/// Removes a pair, whatever its state: an operator's wish for one key.
///
/// Gives whether it was there.
#[inline(always)]
pub fn remove<T: Tables>(tables: &mut T, key: &FlowKey, now_ns: u64) -> bool {
    let Some(entry) = tables.flow(key) else { return false };
    end(tables, key, entry, EndReason::Removed, now_ns);
    true
}
