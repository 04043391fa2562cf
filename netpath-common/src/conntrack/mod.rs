//! 3. Track: the state of a flow, its lifetime, and opening a new one.
//!
//! Each direction writes only its own entry, so two CPUs never contend for one. What a flow is doing follows from what
//! both directions have shown ([`state`]); how long it may be silent follows from that.

mod announce;
mod open;
pub mod state;

pub use open::{NewFlow, Way, open};
pub use state::{PairState, pair_state};

use crate::{
    abi::{Direction, EndReason, Flow, FlowKey, PathCount, Seen},
    parse::{Headers, Transport},
    tables::{Arrival, Tables},
    wire::tcp,
};

/// A direction that was seen within this time lives in every state: the shortest timeout there is.
pub const FRESH_NS: u64 = 10 * state::SECOND_NS;
/// `last_seen_ns` is written when it is at least this old: a busy flow's entry stays clean in the cache.
pub const TOUCH_INTERVAL_NS: u64 = state::SECOND_NS;

/// What this packet shows: bits of [`Seen`].
#[inline(always)]
#[must_use]
pub const fn shown(transport: Transport) -> u8 {
    let Transport::Tcp { flags } = transport else { return Seen::PACKET };
    let mut seen = Seen::PACKET;
    if flags & tcp::SYN != 0 {
        seen |= Seen::SYN;
    }
    if flags & tcp::ACK != 0 {
        seen |= Seen::ACK;
    }
    if flags & tcp::FIN != 0 {
        seen |= Seen::FIN;
    }
    if flags & tcp::RST != 0 {
        seen |= Seen::RST;
    }
    seen
}

/// Whether a TCP packet asks for a new connection: SYN and nothing that answers or ends one.
#[inline(always)]
#[must_use]
pub const fn opens(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Takes note of a packet of a known flow.
#[inline(always)]
pub fn track<T: Tables>(tables: &mut T, entry: T::Entry, flow: &Flow, headers: &Headers, arrival: &Arrival) {
    let shows = shown(headers.transport);
    if let Transport::Tcp { flags } = headers.transport
        && opens(flags)
        && flow.direction() == Direction::Original
    {
        return reopen(tables, entry, headers.key.protocol, arrival.now_ns);
    }
    let seen = flow.seen | shows;
    if seen != flow.seen || arrival.now_ns.saturating_sub(flow.last_seen_ns) >= TOUCH_INTERVAL_NS {
        tables.touch(entry, arrival.now_ns, seen);
    }
}

/// A SYN on a pair that has ended begins a new connection with the same mapping (RFC 6191; nf_conntrack does the same).
#[inline(never)]
fn reopen<T: Tables>(tables: &mut T, entry: T::Entry, protocol: u8, now_ns: u64) {
    let flow = tables.load(entry);
    let reply = tables.flow(&flow.reply_key(protocol));
    let reply_seen = match reply {
        Some(reply) => tables.load(reply).seen,
        None => 0,
    };
    let mut seen = flow.seen | Seen::PACKET | Seen::SYN;
    if (flow.seen | reply_seen) & (Seen::FIN | Seen::RST) != 0 {
        seen = Seen::PACKET | Seen::SYN;
        if let Some(reply) = reply {
            tables.touch(reply, now_ns, 0);
        }
    }
    tables.touch(entry, now_ns, seen);
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
    now_ns.saturating_sub(flow.last_seen_ns) >= FRESH_NS
}

/// Whether the pair has been silent for longer than its state allows.
#[inline(never)]
pub fn is_pair_expired<T: Tables>(tables: &T, entry: T::Entry, protocol: u8, now_ns: u64) -> bool {
    let flow = tables.load(entry);
    let Some(other) = tables.flow(&flow.reply_key(protocol)) else { return true };
    let other = tables.load(other);
    let (original, reply) = match flow.direction() {
        Direction::Original => (flow.seen, other.seen),
        Direction::Reply => (other.seen, flow.seen),
    };
    let last_seen_ns = if flow.last_seen_ns > other.last_seen_ns { flow.last_seen_ns } else { other.last_seen_ns };
    now_ns.saturating_sub(last_seen_ns) >= pair_state(protocol, original, reply).timeout_ns()
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
