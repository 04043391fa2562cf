//! Datagrams to closed ports of the host: what may become of them, written by the daemon; what is noted about their
//! senders, and how many the kernel may still get on this CPU, written by the packet path.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use netpath_common::abi::{ClosedPorts, Rate, Refusal, Sender};

#[btf_map]
static CLOSED_PORTS: Array<ClosedPorts, 1> = Array::new();

#[btf_map]
static SENDERS: Array<Sender, { Sender::PLACES as usize }> = Array::new();

/// When the CPU's bucket will be full again. Not pinned.
#[btf_map]
static CLOSED_BUDGET: PerCpuArray<u64, 1> = PerCpuArray::new();

/// What was refused a moment ago: [`Refusal`]s. Not pinned.
#[btf_map]
static REFUSED: Array<u64, { Refusal::PLACES as usize }> = Array::new();

/// What may become of them.
#[inline(always)]
pub(crate) fn get() -> Option<&'static ClosedPorts> {
    CLOSED_PORTS.get(0)
}

/// What is noted about the senders of a place.
#[inline(always)]
pub(crate) fn sender(place: u32) -> Sender {
    SENDERS.get(place).copied().unwrap_or(Sender { full_at_ns: 0, asked_at_ns: 0 })
}

/// Notes when the bucket of a place will be full again.
#[inline(always)]
pub(crate) fn spend(place: u32, full_at_ns: u64) {
    if let Some(sender) = SENDERS.get_ptr_mut(place) {
        // SAFETY: the pointer is to a place of the array; the field is written whole. Two CPUs at a time may spend one token
        // twice, which only lets one packet more pass.
        unsafe { (*sender).full_at_ns = full_at_ns };
    }
}

/// Notes that somebody of a place was asked.
#[inline(always)]
pub(crate) fn ask(place: u32, now_ns: u64) {
    if let Some(sender) = SENDERS.get_ptr_mut(place) {
        // SAFETY: as above; any of the times that CPUs write at once is right.
        unsafe { (*sender).asked_at_ns = now_ns };
    }
}

/// Whether this CPU may give the kernel one more; if so, it has.
#[inline(always)]
pub(crate) fn may_ask_kernel(rate: &Rate, now_ns: u64) -> bool {
    let Some(full_at_ns) = CLOSED_BUDGET.get_ptr_mut(0) else { return true };
    // SAFETY: the place is this CPU's own.
    rate.spend(unsafe { &mut *full_at_ns }, now_ns)
}

/// The last refusal of a place.
#[inline(always)]
pub(crate) fn refusal(place: u32) -> Refusal {
    Refusal(REFUSED.get(place).copied().unwrap_or(0))
}

/// Notes a refusal.
#[inline(always)]
pub(crate) fn set_refusal(place: u32, refusal: Refusal) {
    if let Some(word) = REFUSED.get_ptr_mut(place) {
        // SAFETY: the pointer is to a place of the array; the word is written whole, and any CPU's will do.
        unsafe { *word = refusal.0 };
    }
}
