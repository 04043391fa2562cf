//! Ports of fragmented datagrams. Written by the packet path; the oldest make room for new ones.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use netpath_common::abi::{FragmentKey, FragmentPorts};

#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, 8192> = LruHashMap::new();

/// Remembers a datagram's ports. A map that can't take them costs that datagram only.
#[inline(always)]
pub(crate) fn remember(key: &FragmentKey, ports: &FragmentPorts) {
    _ = FRAGMENTS.insert(key, ports, u64::from(BPF_ANY));
}

/// A datagram's ports.
#[inline(always)]
pub(crate) fn find(key: &FragmentKey) -> Option<FragmentPorts> {
    // SAFETY: copied out at once; an entry that is reused at this moment misdirects one fragment of a dying datagram.
    unsafe { FRAGMENTS.get(key) }.copied()
}
