//! Keys of recent flows, where an expendable one is looked for when the flow table is full. Written and read by the packet
//! path only; not pinned, since after a restart new flows fill it soon.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use netpath_common::abi::FlowKey;

const PLACES: usize = 16_384;

#[btf_map]
static RECENT: Array<FlowKey, PLACES> = Array::new();

/// Remembers a key at the place of a hash.
#[inline(always)]
pub(crate) fn remember(hash: u32, key: &FlowKey) {
    if let Some(place) = RECENT.get_ptr_mut(hash % PLACES as u32) {
        // SAFETY: the pointer is to a place of the array. Another CPU may write it at the same time; a mixture of two
        // keys is the key of no flow.
        unsafe { *place = *key };
    }
}

/// The key at the place of a hash.
#[inline(always)]
pub(crate) fn get(hash: u32) -> Option<FlowKey> {
    RECENT.get(hash % PLACES as u32).copied()
}
