//! When this CPU last answered a packet by itself: a bound on answers. Not pinned.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

/// Between two answers of a CPU: a thousand a second, as the kernel's own limit is (net.ipv4.icmp_msgs_per_sec).
const INTERVAL_NS: u64 = 1_000_000;

#[btf_map]
static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Whether the CPU may answer now; if so, it has.
#[inline(always)]
pub(crate) fn may_answer(now_ns: u64) -> bool {
    let Some(last_ns) = ANSWERS.get_ptr_mut(0) else { return false };
    // SAFETY: the place is this CPU's own.
    unsafe {
        if now_ns.saturating_sub(*last_ns) < INTERVAL_NS {
            return false;
        }
        *last_ns = now_ns;
    }
    true
}
