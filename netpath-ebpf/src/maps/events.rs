//! Events of flows. Written by the packet path while somebody listens, read by the listener.

use aya_ebpf::{
    btf_maps::{Array, RingBuf},
    macros::btf_map,
};
use netpath_common::abi::{Event, PathCount, event::EVENTS_BYTES};

use super::counters;

/// Holds [`Event`]s. Without a type: a ring buffer's values have no size, and libbpf's tools refuse to load one that says
/// both.
#[btf_map]
static EVENTS: RingBuf<(), { EVENTS_BYTES as usize }> = RingBuf::new();

/// Until when somebody listens. Written by the listener, again and again.
#[btf_map]
static LISTENER: Array<u64, 1> = Array::new();

/// Whether somebody listens now.
#[inline(always)]
pub(crate) fn are_listened_to(now_ns: u64) -> bool {
    LISTENER.get(0).is_some_and(|until_ns| now_ns < *until_ns)
}

/// Tells an event, or counts that it couldn't be told.
#[inline(always)]
pub(crate) fn tell(event: impl FnOnce() -> Event) {
    match EVENTS.reserve_untyped::<Event>(0) {
        Some(mut place) => {
            place.write(event());
            place.submit(0);
        }
        None => counters::took(PathCount::EventsLost as u32, 0),
    }
}
