//! Flows that nf_conntrack had before netpath came. Written by the daemon, kept alive by their packets.
//!
//! Nearly every packet that asks is of none of them, and a map of this size is in no cache: the filter says so at once.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use netpath_common::abi::{FlowKey, Handover};

#[btf_map]
static HANDOVER: HashMap<FlowKey, Handover, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static HANDOVER_FILTER: Array<u64, { Handover::FILTER_WORDS as usize }> = Array::new();

/// Whether the flow stays with nf_conntrack; its packets keep it there.
#[inline(always)]
pub(crate) fn keeps(key: &FlowKey, now_ns: u64) -> bool {
    let (word, bit) = Handover::place(key);
    if HANDOVER_FILTER.get(word).is_none_or(|word| word & bit == 0) {
        return false;
    }
    let Some(entry) = HANDOVER.get_ptr_mut(key) else { return false };
    // SAFETY: the pointer came from a look-up in this run; both fields are read and written whole.
    unsafe {
        if now_ns.saturating_sub((*entry).last_seen_ns) >= (*entry).timeout_ns {
            return false;
        }
        (*entry).last_seen_ns = now_ns;
    }
    true
}
