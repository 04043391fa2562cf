//! The kernel's monotonic clock, at the resolution of a timer tick: enough for lifetimes, and cheaper than the exact one.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::{TcContext, XdpContext},
};
use netpath_common::tables::Arrival;

/// Where and when this packet came in.
#[inline(always)]
pub(crate) fn arrival(context: &TcContext) -> Arrival {
    // SAFETY: the context is the kernel's own for the duration of the program.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    Arrival { ifindex, now_ns: now_ns() }
}

/// The same at XDP.
#[inline(always)]
pub(crate) fn arrival_at_xdp(context: &XdpContext) -> Arrival {
    // SAFETY: the context is the kernel's own for the duration of the program.
    let ifindex = unsafe { (*context.ctx).ingress_ifindex };
    Arrival { ifindex, now_ns: now_ns() }
}

/// Nanoseconds since boot, suspended time not counted (CLOCK_MONOTONIC_COARSE, kernel 5.11).
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and gives a number.
    unsafe { bpf_ktime_get_coarse_ns() }
}
