//! Memory to work in: the headers of the packet that this CPU is at. Not pinned, read by nobody else.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use netpath_common::parse::Headers;

#[btf_map]
static SCRATCH: PerCpuArray<Headers, 1> = PerCpuArray::new();

/// This CPU's headers. Always there: the verifier only doesn't know.
#[inline(always)]
pub(crate) fn headers() -> Option<&'static mut Headers> {
    let headers = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own. The programs that use it run at tc ingress, in the network softirq, which
    // isn't interrupted by itself; and each uses it once, so there is no second reference. The kernel zeroes the slot at
    // first, and zero is a valid value of every field; later it holds what `parse` wrote.
    Some(unsafe { &mut *headers })
}
