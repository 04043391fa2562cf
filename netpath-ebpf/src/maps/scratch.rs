//! Memory to work in, for the packet that this CPU is at. Not pinned, read by nobody else.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use netpath_common::path::Workspace;

#[btf_map]
static SCRATCH: PerCpuArray<Workspace, 1> = PerCpuArray::new();

/// This CPU's workspace. Always there: the verifier only doesn't know.
#[inline(always)]
pub(crate) fn workspace() -> Option<&'static mut Workspace> {
    let workspace = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own. The programs that use it run in the network softirq or, on egress, with softirqs
    // off, so none interrupts another; and each uses it once, so there is no second reference. The kernel zeroes the slot
    // at first, and zero is a valid value of every field; later it holds what the packet path wrote.
    Some(unsafe { &mut *workspace })
}
