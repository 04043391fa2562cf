//! From the packet path's answer to the kernel's action. The only place that counts verdicts and knows the codes.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use netpath_common::{
    abi::{Address, PathCount},
    drop::DropReason,
    forward::{Fate, Forward},
    packet::Packet as _,
};

use crate::{
    kernel::redirect,
    maps::counters,
    packet::{tc::TcPacket, xdp::XdpPacket},
};

/// The action for a packet at tc. `next_hop` counts where it leaves by an uplink.
#[inline(always)]
pub(crate) fn tc(packet: &TcPacket<'_>, fate: Fate, next_hop: Address) -> i32 {
    #[cfg(feature = "trace")]
    packet.log(fate);
    let Some(forward) = fate.forward() else {
        counters::dropped(fate.counter());
        return TC_ACT_SHOT;
    };
    if fate.is_answered() {
        counters::dropped(fate.counter());
        counters::took(PathCount::Answered as u32, packet.len());
    } else {
        counters::took(fate.counter(), packet.len());
    }
    match forward {
        Forward::Kernel => TC_ACT_OK,
        Forward::IntoContainer { ifindex } => {
            packet.address_to_receiver();
            redirect::into_peer(ifindex)
        }
        Forward::OutOfUplink { ifindex } => {
            if next_hop == [0; 4] {
                // If the neighbour doesn't answer, the kernel says so about packets that were for the host (`__icmp_send`).
                packet.address_to_receiver();
            }
            redirect::by_neighbour(ifindex, next_hop)
        }
        Forward::Out { ifindex } => redirect::out_of(ifindex),
        Forward::InByLoopback => redirect::in_by_loopback(),
    }
}

/// The action for a packet that leaves by the loopback interface: into a container from the host's side. What isn't
/// netpath's isn't counted.
#[inline(always)]
pub(crate) fn loopback(packet: &TcPacket<'_>, fate: Fate) -> i32 {
    if !fate.is_decided() {
        return TC_ACT_OK;
    }
    let Some(forward) = fate.forward() else {
        counters::dropped(fate.counter());
        return TC_ACT_SHOT;
    };
    counters::took(fate.counter(), packet.len());
    match forward {
        Forward::IntoContainer { ifindex } | Forward::Out { ifindex } => redirect::out_of(ifindex),
        Forward::Kernel | Forward::OutOfUplink { .. } | Forward::InByLoopback => TC_ACT_OK,
    }
}

/// The action for a packet that leaves by an uplink: programs and filters of others come next. What isn't netpath's isn't
/// counted.
#[inline(always)]
pub(crate) fn egress(packet: &TcPacket<'_>, fate: Fate) -> i32 {
    #[cfg(feature = "trace")]
    packet.log(fate);
    if !fate.is_decided() {
        return next();
    }
    if fate.forward().is_none() {
        counters::dropped(fate.counter());
        return TC_ACT_SHOT;
    }
    counters::took(fate.counter(), packet.len());
    next()
}

/// The action for a packet that is left to the programs and filters of others.
#[inline(always)]
pub(crate) const fn next() -> i32 {
    TC_ACT_UNSPEC
}

/// The action for a fragment that was to be held: its buffer isn't needed any more.
#[inline(always)]
pub(crate) fn held(packet: &TcPacket<'_>, is_held: bool) -> i32 {
    if is_held {
        counters::took(PathCount::FragmentHeld as u32, packet.len());
    } else {
        counters::dropped(DropReason::FragmentUnknown as u32);
    }
    TC_ACT_SHOT
}

/// The action for a packet that the packet path doesn't look at.
#[inline(always)]
pub(crate) fn not_ours(packet: &TcPacket<'_>) -> i32 {
    counters::took(PathCount::ToKernel as u32, packet.len());
    TC_ACT_OK
}

/// The action for a frame at XDP: undecided ones go up to tc, which counts them.
#[inline(always)]
pub(crate) fn xdp(packet: &XdpPacket<'_>, fate: Fate) -> u32 {
    if !fate.is_decided() {
        return pass();
    }
    let Some(Forward::IntoContainer { ifindex }) = fate.forward() else {
        counters::dropped(fate.counter());
        return xdp_action::XDP_DROP;
    };
    counters::took(fate.counter(), packet.frame_len());
    redirect::frame_into(ifindex)
}

/// The action for a frame that goes up to tc.
#[inline(always)]
pub(crate) const fn pass() -> u32 {
    xdp_action::XDP_PASS
}
