//! Uplinks by interface. Written by the daemon.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::Uplink;

#[btf_map]
static UPLINKS: HashMap<u32, Uplink, 64, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The uplink with this interface.
#[inline(always)]
pub(crate) fn find(ifindex: u32) -> Option<Uplink> {
    // SAFETY: copied out at once; read for new flows only.
    unsafe { UPLINKS.get(ifindex) }.copied()
}
