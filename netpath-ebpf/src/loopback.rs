//! What the host's sockets send to published ports by the loopback interface: datagrams to one of the host's IPv6 addresses,
//! which become IPv4's, and in sole mode what comes from sockets that are bound to 127.0.0.0/8. Besides, the kernel's ICMP errors
//! about what containers have sent. All of it goes into the container.
//!
//! Everything else goes on, in takeover after one look at its protocol, and isn't counted.

use aya_ebpf::{bindings::TC_ACT_OK, programs::TcContext};
use netpath_common::{
    abi::Mode,
    packet::Packet as _,
    path::{
        bound_to_loopback::bound_to_loopback,
        from_loopback::{Datagram, Leaving, leave},
        from_socket,
    },
    tables::Tables as _,
    wire::{ethernet, ipv4, protocol},
};

use crate::{
    kernel::{clock, socket_address},
    maps::{KernelTables, asked, scratch},
    packet::tc::TcPacket,
    verdict,
};

/// Leads a packet to its container, if its socket asked for that.
#[inline(always)]
pub(crate) fn loopback(context: &TcContext) -> i32 {
    if TcPacket::is_ipv6(context) { ipv6(context) } else { ipv4(context) }
}

#[inline(always)]
fn ipv4(context: &TcContext) -> i32 {
    let mut tables = KernelTables::new(context.skb.skb.cast());
    let mut packet = TcPacket::new(context);
    if tables.config().mode() == Mode::Takeover && !may_be_error(&packet) {
        return TC_ACT_OK;
    }
    let Some(work) = scratch::workspace() else { return TC_ACT_OK };
    let now_ns = clock::arrival(context).now_ns;
    let fate = bound_to_loopback(&mut packet, &mut tables, work, now_ns);
    verdict::loopback(&packet, fate)
}

/// Whether the packet may be an ICMP error, which the kernel sends in takeover too.
#[inline(always)]
fn may_be_error(packet: &TcPacket<'_>) -> bool {
    matches!(packet.read_u16(ethernet::LEN + ipv4::TTL), Some([_, protocol::ICMP]))
}

/// A frame of its own for the sake of the BPF stack, of which the way of IPv4 needs the most.
#[inline(never)]
fn ipv6(context: &TcContext) -> i32 {
    let mut packet = TcPacket::new(context);
    let Some(leaving) = wanted(context, &packet) else { return TC_ACT_OK };
    if !packet.shorten_to_ipv4() {
        return TC_ACT_OK;
    }
    let fate = leave(&mut packet, &leaving);
    verdict::tc(&packet, fate, [0; 4])
}

/// Where the datagram goes; `None`: it stays what it is.
#[inline(always)]
fn wanted(context: &TcContext, packet: &TcPacket<'_>) -> Option<Leaving> {
    let datagram = Datagram::read(packet)?;
    let tables = KernelTables::new(context.skb.skb.cast());
    let target = from_socket::published(&tables, &datagram.asked, protocol::UDP)?;
    let cookie = socket_address::cookie_of_sender(context);
    let asked = asked::find(&from_socket::key(cookie, target.address, target.port, protocol::UDP))?;
    let endpoint = tables.endpoint(target.address)?;
    let hop = tables.hop(endpoint.hop)?;
    let len = datagram.ipv4_len().filter(|len| u32::from(*len) <= hop.mtu)?;
    // The host's address on the container's network, which it would choose by itself.
    let source = endpoint.gateway;
    if asked != datagram.asked || source == [0; 4] {
        return None;
    }
    let checksum = datagram.with_addresses(source, target.address);
    Some(Leaving { target, source, ifindex: endpoint.ifindex, addresses: hop.addresses, len, checksum })
}
