//! Hops by index. Written by the daemon; an array, so that the look-up is inlined.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use netpath_common::abi::Hop;

#[btf_map]
static HOPS: Array<Hop, 1024> = Array::new();

/// The hop with this index.
#[inline(always)]
pub(crate) fn get(index: u32) -> Option<Hop> {
    HOPS.get(index).copied()
}
