//! The ways to send a packet on: three from tc, one from XDP. Each gives the action that the program must return.

use core::ptr::null_mut;

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};

/// Into the network namespace of a veth's peer, without a second pass through the queues (kernel 5.10).
#[inline(always)]
pub(crate) fn into_peer(ifindex: u32) -> i32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Out of an interface; routes and neighbours give the Ethernet header (kernel 5.10).
#[inline(always)]
pub(crate) fn by_neighbour(ifindex: u32) -> i32 {
    // SAFETY: no parameters: a null pointer with length zero, as the helper documents.
    unsafe { bpf_redirect_neigh(ifindex, null_mut(), 0, 0) as i32 }
}

/// Out of an interface as it is.
#[inline(always)]
pub(crate) fn out_of(ifindex: u32) -> i32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// From XDP: the frame goes out of an interface; out of the host side of a veth that is into the other side's NAPI.
#[inline(always)]
pub(crate) fn frame_into(ifindex: u32) -> u32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}
