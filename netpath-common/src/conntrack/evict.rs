//! Making room in a full table: a new flow takes the place of one that is half open, closed, unanswered, or a question by
//! UDP that has had its answer, never of one that is open.
//!
//! A hash map can't be searched from a packet. So the key of every new flow is also written into a table of recent keys,
//! at a place that its hash gives; when the flow table is full, a few places of that are looked at. Under a flood of
//! half-open connections nearly every place holds one of them.

use super::{EXPENDABLE, EXPIRED, MAKES_ROOM, NewFlow, is_silent};
use crate::{abi::FlowKey, nat::port::Candidates, tables::Tables};

/// Places that are looked at: enough under a flood, when most are expendable; few, because each costs look-ups in the
/// packet path and the verifier's patience.
const LOOKS_MAX: u32 = 4;

/// Finds an expendable flow: [`NewFlow::victim`]. Gives whether there was one.
#[inline(never)]
pub(super) fn make_room<T: Tables>(tables: &T, new: &mut NewFlow, hash: u32, now_ns: u64) -> bool {
    let mut look = 0;
    while look < LOOKS_MAX {
        if let Some(key) = tables.recent(hash.wrapping_add(look)) {
            new.victim = key;
            if may_go(tables, &new.victim, now_ns, Spare::Nobody) {
                return true;
            }
        }
        look += 1;
    }
    false
}

/// Whom an eviction leaves alone. Room in the table is everybody's, and an answered question may make it; a port is one
/// container's, and only who is expendable loses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Spare {
    /// Nobody: the table is full. The number: how a pair must stand to be ended.
    Nobody = EXPIRED | MAKES_ROOM,
    /// Who was answered, or opened, this very second: it may be in the middle of its handshake.
    Fresh = EXPIRED | EXPENDABLE,
}

/// Whether there are grounds for ending the flow with this key.
#[inline(never)]
fn may_go<T: Tables>(tables: &T, key: &FlowKey, now_ns: u64, spare: Spare) -> bool {
    let Some(entry) = tables.flow(key) else { return false };
    if spare == Spare::Fresh && !is_silent(&tables.load(entry), now_ns) {
        return false;
    }
    tables.standing(entry, key.protocol, now_ns) & spare as u32 != 0
}

/// Finds the holder of a port that a new flow would have liked, when none is free: the first that is expendable, and not
/// somebody's handshake of this very second. It is [`NewFlow::victim`], and the new flow has its port.
#[inline(never)]
pub(super) fn take_over<T: Tables>(tables: &T, candidates: &mut Candidates, new: &mut NewFlow, now_ns: u64) -> bool {
    let mut look = 0;
    while look < LOOKS_MAX {
        new.translated.source_port = candidates.next();
        new.victim = new.translated.reversed();
        if may_go(tables, &new.victim, now_ns, Spare::Fresh) {
            return true;
        }
        look += 1;
    }
    false
}
