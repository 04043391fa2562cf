//! The ways to send a packet on: four from tc, one from XDP. Each gives the action that the program must return.

use core::{hint::black_box, mem::zeroed};

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, bpf_redir_neigh},
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use netpath_common::abi::Address;

/// Address family IPv4 (include/linux/socket.h).
const AF_INET: u32 = 2;

/// Into the network namespace of a veth's peer, without a second pass through the queues (kernel 5.10).
#[inline(always)]
pub(crate) fn into_peer(ifindex: u32) -> i32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Out of an interface; the neighbour `next_hop`, or the one that the routes say when it is 0.0.0.0, gives the Ethernet
/// header (kernel 5.10).
#[inline(always)]
pub(crate) fn by_neighbour(ifindex: u32, next_hop: Address) -> i32 {
    let next_hop = u32::from_ne_bytes(next_hop);
    // SAFETY: the structure is plain old data, for which zero is valid.
    let mut parameters: bpf_redir_neigh = unsafe { zeroed() };
    parameters.nh_family = AF_INET;
    parameters.__bindgen_anon_1.ipv4_nh = next_hop;
    // Length zero means no parameters. Computed, as a branch would have the verifier go through all that follows twice.
    let is_known = black_box(next_hop | next_hop.wrapping_neg()) >> 31;
    let length = is_known * size_of::<bpf_redir_neigh>() as u32;
    // SAFETY: the structure is valid for the call, and the length is the structure's or zero.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut parameters, length as i32, 0) as i32 }
}

/// Out of an interface as it is.
#[inline(always)]
pub(crate) fn out_of(ifindex: u32) -> i32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Up to the host's own sockets, as what came in by the loopback interface, whose number is 1 in every network namespace.
#[inline(always)]
pub(crate) fn in_by_loopback() -> i32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect(1, u64::from(BPF_F_INGRESS)) as i32 }
}

/// From XDP: the frame goes out of an interface; out of the host side of a veth that is into the other side's NAPI.
#[inline(always)]
pub(crate) fn frame_into(ifindex: u32) -> u32 {
    // SAFETY: plain numbers; the kernel checks the interface when the program has returned.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}
