//! Flows that nf_conntrack had before netpath came. Written by the daemon, kept alive by their packets.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{FlowKey, Handover};

#[btf_map]
static HANDOVER: HashMap<FlowKey, Handover, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Whether the flow stays with nf_conntrack; its packets keep it there.
#[inline(always)]
pub(crate) fn keeps(key: &FlowKey, now_ns: u64) -> bool {
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
