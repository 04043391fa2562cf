//! Published ports. Written by the daemon.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{Published, PublishedKey};

#[btf_map]
static PUBLISHED: HashMap<PublishedKey, Published, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Where a published port leads.
#[inline(always)]
pub(crate) fn find(key: &PublishedKey) -> Option<Published> {
    // SAFETY: copied out at once; eight bytes, replaced by the daemon as a new element.
    unsafe { PUBLISHED.get(key) }.copied()
}
