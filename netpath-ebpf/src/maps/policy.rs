//! The operator's policy: two lists, which of them is in force, and how often each rule fitted. The lists are written by the
//! daemon, only ever where no program looks.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use netpath_common::abi::{Policy, Traffic};

#[btf_map]
static POLICIES: Array<Policy, { Policy::PLACES }> = Array::new();

#[btf_map]
static POLICY_IN_FORCE: Array<u32, 1> = Array::new();

#[btf_map]
static POLICY_HITS: PerCpuArray<Traffic, { Policy::COUNTERS }> = PerCpuArray::new();

/// The list in force.
#[inline(always)]
pub(crate) fn in_force() -> Option<&'static Policy> {
    let place = *POLICY_IN_FORCE.get(0)?;
    POLICIES.get(place)
}

/// Counts a packet of `bytes` that a rule fitted.
#[inline(always)]
pub(crate) fn fitted(counter: u16, bytes: u32) {
    if let Some(traffic) = POLICY_HITS.get_ptr_mut(u32::from(counter)) {
        // SAFETY: the slot is this CPU's own, and tc programs of one CPU don't interrupt each other.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += u64::from(bytes);
        }
    }
}
