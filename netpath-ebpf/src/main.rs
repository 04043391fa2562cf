//! Entry points of the eBPF programs: take a packet, call the packet path, count, give the verdict.
//!
//! The packet path itself is `netpath_common::path`. Here is only what a kernel must lend to it: [`packet`] reads and
//! writes real packets, [`maps`] are its tables, [`kernel`] wraps helpers, [`verdict`] is the one place that knows
//! `TC_ACT_*` and `XDP_*`. Unsafe code lives in the first three.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(clippy::needless_pass_by_value, reason = "the attribute macros hand the context over by value")]

mod collect;
mod held;
mod host_access;
mod kernel;
mod loopback;
mod maps;
mod packet;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};
use netpath_common::{
    forward::Fate,
    path::{
        Workspace, early::early, egress_guard::egress_guard, express::in_driver, from_container, from_host,
        from_host_to_wire, from_wire,
    },
};

use crate::{
    kernel::clock,
    maps::{KernelTables, scratch},
    packet::{tc::TcPacket, xdp::XdpPacket},
};

/// XDP in an uplink's driver: early drops, and the express way. Takes frames in several buffers, as large MTUs need them.
#[xdp(frags)]
fn np_xdp_uplink(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&context);
    let mut tables = KernelTables::new(context.ctx.cast());
    let Some(work) = scratch::workspace() else { return verdict::pass() };
    let fate = in_driver(&mut packet, &mut tables, &mut work.headers, &clock::arrival_at_xdp(&context));
    verdict::xdp(&packet, fate)
}

/// Early drops behind the driver, where the express way would save nothing: there is a buffer already. Not for several
/// buffers: for a program that takes them the kernel copies the socket buffer and forgets the length of its Ethernet header
/// (`skb_pp_cow_data`, seen on 6.18), so that tc would then see the packet without one.
#[xdp]
fn np_xdp_generic(context: XdpContext) -> u32 {
    let packet = XdpPacket::new(&context);
    let Some(work) = scratch::workspace() else { return verdict::pass() };
    match early(&packet, &KernelTables::new(context.ctx.cast()), &mut work.headers) {
        Err(reason) => verdict::xdp(&packet, Fate::dropped(reason)),
        Ok(_) => verdict::pass(),
    }
}

/// tc ingress on an uplink: packets from the wire.
#[classifier]
fn np_uplink(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(&context);
    if !packet.is_ours() {
        return verdict::not_ours(&packet);
    }
    let mut tables = KernelTables::new(context.skb.skb.cast());
    let Some(work) = scratch::workspace() else { return verdict::not_ours(&packet) };
    let fate = from_wire::from_wire(&mut packet, &mut tables, work, &clock::arrival(&context));
    with_held(&context, &packet, work, fate)
}

/// The verdict at an ingress where fragments are held; this one may be what others wait for. Those go last: few verdicts
/// are left for which the verifier looks at that.
#[inline(always)]
fn with_held(context: &TcContext, packet: &TcPacket<'_>, work: &Workspace, fate: Fate) -> i32 {
    if fate.is_held() {
        return verdict::held(packet, held::hold(context, &work.headers) != 0);
    }
    let action = verdict::tc(packet, fate, work.next_hop);
    held::release(context, &work.headers);
    action
}

/// tc egress on an uplink: the host's own packets to the world, and a last look at what others forward there.
#[classifier]
fn np_egress(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(&context);
    let mut tables = KernelTables::new(context.skb.skb.cast());
    if packet::tc::is_forwarded(&context) {
        return verdict::egress(&packet, egress_guard(&packet, &tables));
    }
    // A tagged frame is an interface's above this one.
    let Some(work) = scratch::workspace().filter(|_| !packet.is_tagged()) else { return verdict::next() };
    let arrival = clock::arrival(&context);
    let fate = from_host_to_wire::from_host_to_wire(&mut packet, &mut tables, work, &arrival);
    verdict::egress(&packet, fate)
}

/// tc ingress on the host side of a container's veth: packets from the container.
#[classifier]
fn np_container(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(&context);
    if !packet.is_ours() {
        return verdict::not_ours(&packet);
    }
    let mut tables = KernelTables::new(context.skb.skb.cast());
    let Some(work) = scratch::workspace() else { return verdict::not_ours(&packet) };
    let fate = from_container::from_container(&mut packet, &mut tables, work, &clock::arrival(&context));
    with_held(&context, &packet, work, fate)
}

/// tc egress on a bridge: packets from the host to its containers.
#[classifier]
fn np_bridge(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(&context);
    if !packet.is_ours() {
        return verdict::not_ours(&packet);
    }
    let mut tables = KernelTables::new(context.skb.skb.cast());
    let fate = from_host::from_host(&mut packet, &mut tables, &clock::arrival(&context), packet::tc::came_by(&context));
    verdict::tc(&packet, fate, [0; 4])
}

/// tc egress on the loopback interface: what the host's own sockets send to published ports there, and the kernel's errors about
/// what containers have sent.
#[classifier]
fn np_loopback(context: TcContext) -> i32 {
    loopback::loopback(&context)
}

/// Never attached: deletes the expired flows among the keys that userspace hands it as packet data.
#[classifier]
fn np_collect(context: TcContext) -> i32 {
    collect::collect(&context)
}

/// Never attached: removes the cones that have ended among the keys that userspace hands it as packet data.
#[classifier]
fn np_collect_cone(context: TcContext) -> i32 {
    collect::collect_cones(&context)
}

/// Never attached: removes the flows whose keys userspace hands it as packet data, whatever they are doing.
#[classifier]
fn np_remove(context: TcContext) -> i32 {
    collect::remove(&context)
}

/// cgroup: a process connects to an IPv4 address.
#[cgroup_sock_addr(connect4)]
fn np_connect4(context: SockAddrContext) -> i32 {
    host_access::connect4(&context)
}

/// cgroup: a process connects to an IPv6 address.
#[cgroup_sock_addr(connect6)]
fn np_connect6(context: SockAddrContext) -> i32 {
    host_access::connect6(&context)
}

/// cgroup: a process sends a datagram to an IPv4 address by a socket that isn't connected.
#[cgroup_sock_addr(sendmsg4)]
fn np_sendmsg4(context: SockAddrContext) -> i32 {
    host_access::sendmsg4(&context)
}

/// cgroup: a process sends a datagram to an IPv6 address by a socket that isn't connected.
#[cgroup_sock_addr(sendmsg6)]
fn np_sendmsg6(context: SockAddrContext) -> i32 {
    host_access::sendmsg6(&context)
}

/// cgroup: a process is shown a datagram's sender, IPv4.
#[cgroup_sock_addr(recvmsg4)]
fn np_recvmsg4(context: SockAddrContext) -> i32 {
    host_access::show4(&context)
}

/// cgroup: a process is shown a datagram's sender, IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn np_recvmsg6(context: SockAddrContext) -> i32 {
    host_access::show6(&context)
}

/// cgroup: a process is shown its peer, IPv4.
#[cgroup_sock_addr(getpeername4)]
fn np_getpeername4(context: SockAddrContext) -> i32 {
    host_access::show4(&context)
}

/// cgroup: a process is shown its peer, IPv6.
#[cgroup_sock_addr(getpeername6)]
fn np_getpeername6(context: SockAddrContext) -> i32 {
    host_access::show6(&context)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that are used are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
