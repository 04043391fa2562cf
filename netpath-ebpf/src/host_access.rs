//! The host's own sockets and published ports: leads a socket to the container, and shows the program what it asked for.
//!
//! The programs sit at the root of the cgroups and run for every process of the machine. So each first asks for the
//! network namespace; who isn't of the host's pays for that and nothing else.

use aya_ebpf::programs::SockAddrContext;
use netpath_common::{
    abi::{Asked, Mode},
    path::from_socket::{key, may_leave, may_leave_ipv6, published},
    tables::{Published, Tables as _},
};

use crate::{
    kernel::socket_address::{self, SocketAddress},
    maps::{KernelTables, asked},
};

/// Lets the system call go on.
const GO_ON: i32 = 1;

/// connect() to an IPv4 address.
#[inline(always)]
pub(crate) fn connect4(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let asked = socket.ipv4()
        && let Some(target) = target(context, &socket, &asked)
        && may_leave(socket.bound_ipv4())
    {
        remember(&socket, &asked, &target);
        socket.set_ipv4(target.address, target.port);
    }
    GO_ON
}

/// connect() to an IPv6 address. The kernel makes a socket that asks for a mapped address an IPv4 one right after this.
#[inline(always)]
pub(crate) fn connect6(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let asked = socket.ipv6()
        && let Some(target) = target(context, &socket, &asked)
    {
        if !can_be_led(&socket) {
            return stay(context, &asked);
        }
        remember(&socket, &asked, &target);
        socket.set_ipv6(Asked::mapped(target.address), target.port);
    }
    GO_ON
}

/// sendto() an IPv4 address, also by an IPv6 socket to a mapped one.
#[inline(always)]
pub(crate) fn sendmsg4(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let asked = socket.ipv4()
        && let Some(target) = target(context, &socket, &asked)
        && may_leave(socket.message_source())
    {
        remember(&socket, &asked, &target);
        socket.set_ipv4(target.address, target.port);
    }
    GO_ON
}

/// sendto() an IPv6 address: the kernel lets it become another IPv6 address only, so the datagram itself is changed
/// later, by `np_loopback`. Here is remembered that this is wanted.
#[inline(always)]
pub(crate) fn sendmsg6(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let asked = socket.ipv6()
        && let Some(target) = target(context, &socket, &asked)
    {
        if !can_be_led(&socket) {
            return stay(context, &asked);
        }
        let asked = if asked.is_ipv6_loopback() { Asked::ipv6(LOOPBACK, asked.port) } else { asked };
        remember(&socket, &asked, &target);
    }
    GO_ON
}

/// Whether an IPv6 socket can talk to an IPv4 container.
#[inline(always)]
fn can_be_led(socket: &SocketAddress) -> bool {
    may_leave_ipv6(socket.bound_ipv6()) && !socket.is_ipv6_only()
}

/// What becomes of an IPv6 socket that asks for a published port and can't be led there: docker-proxy serves it. In sole mode
/// there is none, and dockerd's own socket on the port would take the connection and never answer: so it is refused.
#[inline(always)]
fn stay(context: &SockAddrContext, asked: &Asked) -> i32 {
    let tables = KernelTables::new(context.sock_addr.cast());
    // An IPv4 packet after all, of which `np_loopback` decides.
    if asked.as_ipv4().is_some() || tables.config().mode() == Mode::Takeover {
        return GO_ON;
    }
    socket_address::refuse()
}

/// ::1, which :: stands for too.
const LOOPBACK: [u32; 4] = [0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])];

/// The sender that recvfrom() shows, or the peer that getpeername() shows, of an IPv4 socket.
#[inline(always)]
pub(crate) fn show4(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let Some(asked) = recall(&socket, &socket.ipv4())
        && let Some(address) = asked.as_ipv4()
    {
        socket.set_ipv4(address, asked.port);
    }
    GO_ON
}

/// The same of an IPv6 socket.
#[inline(always)]
pub(crate) fn show6(context: &SockAddrContext) -> i32 {
    let socket = SocketAddress::new(context);
    if socket.is_of_host()
        && let Some(asked) = recall(&socket, &socket.ipv6())
    {
        socket.set_ipv6(asked.address, asked.port);
    }
    GO_ON
}

/// The container's port that a socket is to be led to.
#[inline(always)]
fn target(context: &SockAddrContext, socket: &SocketAddress, asked: &Asked) -> Option<Published> {
    let tables = KernelTables::new(context.sock_addr.cast());
    published(&tables, asked, socket.protocol()).filter(|_| !socket.is_bound_to_interface())
}

#[inline(always)]
fn remember(socket: &SocketAddress, asked: &Asked, target: &Published) {
    asked::remember(&key(socket.cookie(), target.address, target.port, socket.protocol()), asked);
}

#[inline(always)]
fn recall(socket: &SocketAddress, peer: &Asked) -> Option<Asked> {
    let address = peer.as_ipv4()?;
    asked::find(&key(socket.cookie(), address, peer.port, socket.protocol()))
}
