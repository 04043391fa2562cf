//! Telling of flows that begin and end. Not inlined: nobody listens most of the time, and the event's bytes then take no
//! room in the frame of what opens a flow.

use crate::{
    abi::{Direction, EndReason, Event, EventKind, Flow, FlowKey},
    conntrack::NewFlow,
    tables::Tables,
};

/// Tells that a flow was opened by a packet with this key, which has shown `seen`.
#[inline(never)]
pub(super) fn began<T: Tables>(tables: &mut T, key: &FlowKey, new: &NewFlow, seen: u8, now_ns: u64) {
    tables.announce(|_| Event {
        time_ns: now_ns,
        last_seen_ns: now_ns,
        key: *key,
        reply_key: new.translated.reversed(),
        network: new.network,
        kind: EventKind::New as u8,
        reason: 0,
        role: Flow::pack_role_number(Direction::Original, new.kind),
        seen,
        reply_seen: 0,
        reserved: 0,
    });
}

/// Tells that the flow of this entry ends, from the entry's side: [`Event::of_original`].
#[inline(never)]
pub(super) fn ended<T: Tables>(tables: &mut T, key: &FlowKey, entry: T::Entry, reason: EndReason, now_ns: u64) {
    let other = tables.flow(&tables.load(entry).reply_key(key.protocol));
    tables.announce(|tables| {
        let flow = tables.load(entry);
        let (other_seen, other_last_seen_ns) = match other {
            Some(other) => {
                let other = tables.load(other);
                (other.seen, other.last_seen_ns)
            }
            None => (0, 0),
        };
        Event {
            time_ns: now_ns,
            last_seen_ns: if flow.last_seen_ns > other_last_seen_ns { flow.last_seen_ns } else { other_last_seen_ns },
            key: *key,
            reply_key: flow.reply_key(key.protocol),
            network: flow.network,
            kind: EventKind::Destroy as u8,
            reason: reason as u8,
            role: flow.role,
            seen: flow.seen,
            reply_seen: other_seen,
            reserved: 0,
        }
    });
}
