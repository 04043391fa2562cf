//! Fragments that overtook the first of their datagram: held as bytes in a map, and put back in front of the uplink or the
//! container's veth when the first has come, so that they are looked at as if they came now.
//!
//! A program can't keep a packet, nor make one. So its bytes are copied, and later the first fragment lends its socket
//! buffer: its own bytes are put aside, those of each held fragment take their place for a copy that goes back to the
//! interface, and at last its own return.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use netpath_common::{
    abi::{FragmentKey, HeldFragment, HeldKey},
    parse::{Fragment, Headers},
    path::FRAGMENT_NS,
};

use crate::{kernel::clock, maps::held};

/// Fragments of one datagram that are held.
const PLACES: u32 = 8;

/// Holds a fragment. Gives whether there was room for it.
#[inline(never)]
pub(crate) fn hold(context: &TcContext, headers: &Headers) -> u32 {
    let Some(aside) = held::aside() else { return 0 };
    if !load(context, aside) {
        return 0;
    }
    let now_ns = clock::now_ns();
    aside.seen_ns = now_ns;
    let datagram = FragmentKey::of(headers);
    // A counter of its own: the verifier doesn't follow one inside a key.
    let mut place = 0;
    while place < PLACES {
        let key = HeldKey { datagram, place };
        if held::find(&key).is_none_or(|held| is_stale(held, now_ns)) {
            return u32::from(held::put(&key, aside));
        }
        place += 1;
    }
    0
}

/// Lets the fragments go that wait for this one.
#[inline(always)]
pub(crate) fn release(context: &TcContext, headers: &Headers) {
    if headers.fragment == Fragment::First {
        release_slowly(context, headers);
    }
}

#[inline(never)]
fn release_slowly(context: &TcContext, headers: &Headers) -> u32 {
    let first = HeldKey { datagram: FragmentKey::of(headers), place: 0 };
    if held::find(&first).is_none() {
        return 0;
    }
    let Some(aside) = held::aside() else { return 0 };
    if !load(context, aside) {
        return 0;
    }
    // SAFETY: the context is the kernel's own for the duration of the program.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    let now_ns = clock::now_ns();
    let datagram = first.datagram;
    let mut released = 0;
    let mut place = 0;
    while place < PLACES {
        let key = HeldKey { datagram, place };
        let Some(held) = held::find(&key) else { break };
        if !is_stale(held, now_ns) && store(context, held) {
            // SAFETY: the context is the program's own; a failure loses the copy only.
            unsafe { bpf_clone_redirect(context.skb.skb, ifindex, u64::from(BPF_F_INGRESS)) };
            released += 1;
        }
        held::remove(&key);
        place += 1;
    }
    store(context, aside);
    released
}

#[inline(always)]
fn is_stale(held: &HeldFragment, now_ns: u64) -> bool {
    now_ns.saturating_sub(held.seen_ns) >= FRAGMENT_NS
}

/// Copies the frame out of its buffer.
#[inline(always)]
fn load(context: &TcContext, to: &mut HeldFragment) -> bool {
    // SAFETY: the context is the kernel's own for the duration of the program.
    let len = unsafe { &raw const (*context.skb.skb).len };
    // SAFETY: as above.
    to.len = unsafe { len.read_volatile() };
    if to.len as usize > HeldFragment::LEN_MAX {
        return false;
    }
    // SAFETY: the buffer is longer than the length.
    unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), 0, to.bytes.as_mut_ptr().cast(), bounded(len)) == 0 }
}

/// Puts a frame into the buffer, whose own length changes for it.
#[inline(always)]
fn store(context: &TcContext, frame: &HeldFragment) -> bool {
    // SAFETY: the context is the program's own, and the bytes are longer than the length.
    unsafe {
        let len = bounded(&raw const frame.len);
        bpf_skb_change_tail(context.skb.skb, len, 0) == 0
            && bpf_skb_store_bytes(
                context.skb.skb,
                0,
                frame.bytes.as_ptr().cast(),
                bounded(&raw const frame.len),
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) == 0
    }
}

/// A length that was checked before, in bounds that the verifier sees too: the compiler would leave out what it knows.
///
/// # Safety
///
/// `len` can be read.
#[inline(always)]
unsafe fn bounded(len: *const u32) -> u32 {
    const MASK: u32 = HeldFragment::LEN_MAX as u32 - 1;
    // SAFETY: the caller's.
    (unsafe { len.read_volatile() }.wrapping_sub(1) & MASK) + 1
}

const _: () = assert!(HeldFragment::LEN_MAX.is_power_of_two(), "the bound is a mask");
