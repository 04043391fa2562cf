//! Counters per CPU: drops by reason, packets and bytes by way. Written here and nowhere else.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use netpath_common::{
    abi::{PathCount, Traffic},
    drop::DropReason,
};

#[btf_map]
static DROPS: PerCpuArray<u64, { DropReason::SLOTS as usize }> = PerCpuArray::new();

#[btf_map]
static TRAFFIC: PerCpuArray<Traffic, { PathCount::SLOTS as usize }> = PerCpuArray::new();

/// Counts a dropped packet, by the number of its [`DropReason`].
#[inline(always)]
pub(crate) fn dropped(reason: u32) {
    if let Some(count) = DROPS.get_ptr_mut(reason) {
        // SAFETY: the slot is this CPU's own, and tc and XDP programs of one CPU don't interrupt each other.
        unsafe { *count += 1 };
    }
}

/// Counts a packet of `bytes` on its way, by the number of its [`PathCount`].
#[inline(always)]
pub(crate) fn took(path: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(path) {
        // SAFETY: the slot is this CPU's own, and tc and XDP programs of one CPU don't interrupt each other.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += u64::from(bytes);
        }
    }
}
