//! Datagrams to one of the host's IPv6 addresses that a socket of the host sends to a published port: from IPv6 to IPv4, and into the container.
//!
//! Everything else on the loopback interface goes on after one look at its protocol, and isn't counted.

use aya_ebpf::{bindings::TC_ACT_OK, programs::TcContext};
use netpath_common::{
    path::{
        from_loopback::{Datagram, Leaving, leave},
        from_socket,
    },
    tables::Tables as _,
    wire::protocol,
};

use crate::{
    kernel::socket_address,
    maps::{KernelTables, asked},
    packet::tc::TcPacket,
    verdict,
};

/// Leads a datagram to its container, if its socket asked for that.
#[inline(always)]
pub(crate) fn loopback(context: &TcContext) -> i32 {
    if !TcPacket::is_ipv6(context) {
        return TC_ACT_OK;
    }
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
