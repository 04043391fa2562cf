//! A CPU's budget of answers that netpath gives by itself. Not pinned.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use netpath_common::nat::answer::spend;

#[btf_map]
static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Whether the CPU may answer now; if so, it has.
#[inline(always)]
pub(crate) fn may_answer(now_ns: u64) -> bool {
    let Some(full_at_ns) = ANSWERS.get_ptr_mut(0) else { return false };
    // SAFETY: the place is this CPU's own.
    spend(unsafe { &mut *full_at_ns }, now_ns)
}
