//! Endpoints by address. Written by the daemon.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{Address, Endpoint};

#[btf_map]
static ENDPOINTS: HashMap<Address, Endpoint, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The endpoint with this address.
#[inline(always)]
pub(crate) fn find(address: Address) -> Option<Endpoint> {
    // SAFETY: copied out at once. The daemon replaces an entry by a new element, which isn't preallocated: the old one
    // stays as it was until this run has ended.
    unsafe { ENDPOINTS.get(address) }.copied()
}
