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

/// Counts a dropped packet.
#[inline(always)]
pub(crate) fn dropped(reason: DropReason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's own, and tc and XDP programs of one CPU don't interrupt each other.
        unsafe { *count += 1 };
    }
}

/// Counts a packet of `bytes` on its way.
#[inline(always)]
pub(crate) fn took(path: PathCount, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(path as u32) {
        // SAFETY: the slot is this CPU's own, and tc and XDP programs of one CPU don't interrupt each other.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += u64::from(bytes);
        }
    }
}
