//! The kernel's atomic operations that give the value of before (kernel 5.12). They are full barriers on every architecture: what
//! was written before one is seen by who sees its result.
//!
//! Assembly, as rustc has none for this target: it says of BPF that it lacks compare-and-swap, and offers loads and stores only. The
//! host's, by which the lints go where the compiler for BPF has none, are the standard library's.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

/// Adds to a number, and gives what it was.
///
/// # Safety
///
/// The pointer leads to a number in a map's value.
#[inline(always)]
pub(crate) unsafe fn fetch_add(number: *mut u64, summand: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let was;
        // SAFETY: the caller's; the instruction touches these eight bytes only.
        unsafe {
            core::arch::asm!(
                "{value} = atomic_fetch_add((u64 *)({at} + 0), {value})",
                at = in(reg) number,
                value = inout(reg) summand => was,
                options(nostack),
            );
        }
        was
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe { AtomicU64::from_ptr(number) }.fetch_add(summand, Ordering::SeqCst)
}

/// Inverts bits of a number.
///
/// # Safety
///
/// The pointer leads to a number in a map's value.
#[inline(always)]
pub(crate) unsafe fn fetch_xor(number: *mut u64, bits: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's; the instruction touches these eight bytes only.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_xor((u64 *)({at} + 0), {value})",
            at = in(reg) number,
            value = inout(reg) bits => _,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe { AtomicU64::from_ptr(number) }.fetch_xor(bits, Ordering::SeqCst);
}
