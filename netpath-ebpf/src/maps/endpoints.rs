//! Endpoints by address. Written by the daemon.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{Address, Endpoint};

#[btf_map]
static ENDPOINTS: HashMap<Address, Endpoint, 1024> = HashMap::new();

/// The endpoint with this address.
#[inline(always)]
pub(crate) fn find(address: Address) -> Option<Endpoint> {
    // SAFETY: the entry is copied out at once. The map is preallocated: an entry that the daemon replaces at the same
    // time may be read half old, half new, and the next packet reads it whole.
    unsafe { ENDPOINTS.get(address) }.copied()
}
