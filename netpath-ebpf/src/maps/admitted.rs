//! What interfaces let in. Written by the daemon.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{Admitted, AdmittedKey};

#[btf_map]
static ADMITTED: HashMap<AdmittedKey, Admitted, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What an interface lets in.
#[inline(always)]
pub(crate) fn find(key: &AdmittedKey) -> Option<Admitted> {
    // SAFETY: copied out at once; eight bytes, replaced by the daemon as a new element.
    unsafe { ADMITTED.get(key) }.copied()
}
