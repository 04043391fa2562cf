//! A socket of a process, at the moment when the kernel takes its destination from it or shows it its peer.
//!
//! Fields are read and written one by one and volatile: the verifier knows this structure by its single fields only.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    Global,
    bindings::bpf_sock_addr,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    },
    programs::{SockAddrContext, TcContext},
};
use netpath_common::abi::{Address, Asked, Port};

/// The namespace that netpath works for; the loader sets it. No namespace has the number 0.
#[unsafe(no_mangle)]
static HOST_NETNS_COOKIE: Global<u64> = Global::new(0);

/// Refuses a system call as if nobody listened; what the program must return.
#[inline(always)]
pub(crate) fn refuse() -> i32 {
    /// include/uapi/asm-generic/errno.h.
    const ECONNREFUSED: i32 = 111;
    // SAFETY: a plain number, which the kernel checks.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    0
}

/// The address that a process gave or will be shown, and the socket that it is about.
pub(crate) struct SocketAddress(*mut bpf_sock_addr);

impl SocketAddress {
    #[inline(always)]
    pub(crate) const fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// Whether the socket is of the host's network namespace; the program sees those of every process of the machine.
    #[inline(always)]
    pub(crate) fn is_of_host(&self) -> bool {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { bpf_get_netns_cookie(self.0.cast()) == HOST_NETNS_COOKIE.load() }
    }

    /// The kernel's number for the socket.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The IP protocol; 0 for what has no number of eight bits.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        // SAFETY: a field of the kernel's own context.
        let protocol = unsafe { read_volatile(&raw const (*self.0).protocol) };
        if protocol <= 255 { protocol as u8 } else { 0 }
    }

    /// The address, in a program for IPv4.
    #[inline(always)]
    pub(crate) fn ipv4(&self) -> Asked {
        // SAFETY: a field of the kernel's own context.
        let address = unsafe { read_volatile(&raw const (*self.0).user_ip4) };
        Asked::ipv4(address.to_ne_bytes(), self.port())
    }

    /// The address, in a program for IPv6.
    #[inline(always)]
    pub(crate) fn ipv6(&self) -> Asked {
        // SAFETY: fields of the kernel's own context.
        let address = unsafe {
            [
                read_volatile(&raw const (*self.0).user_ip6[0]),
                read_volatile(&raw const (*self.0).user_ip6[1]),
                read_volatile(&raw const (*self.0).user_ip6[2]),
                read_volatile(&raw const (*self.0).user_ip6[3]),
            ]
        };
        Asked::ipv6(address, self.port())
    }

    /// Replaces the address, in a program for IPv4.
    #[inline(always)]
    pub(crate) fn set_ipv4(&self, address: Address, port: Port) {
        // SAFETY: fields of the kernel's own context that these programs may write.
        unsafe {
            write_volatile(&raw mut (*self.0).user_ip4, u32::from_ne_bytes(address));
            write_volatile(&raw mut (*self.0).user_port, u32::from(u16::from_ne_bytes(port)));
        }
    }

    /// Replaces the address, in a program for IPv6.
    #[inline(always)]
    pub(crate) fn set_ipv6(&self, address: [u32; 4], port: Port) {
        // SAFETY: fields of the kernel's own context that these programs may write.
        unsafe {
            write_volatile(&raw mut (*self.0).user_ip6[0], address[0]);
            write_volatile(&raw mut (*self.0).user_ip6[1], address[1]);
            write_volatile(&raw mut (*self.0).user_ip6[2], address[2]);
            write_volatile(&raw mut (*self.0).user_ip6[3], address[3]);
            write_volatile(&raw mut (*self.0).user_port, u32::from(u16::from_ne_bytes(port)));
        }
    }

    /// The IPv4 address that a datagram is to be sent with, in a program for sendto(); zero: the kernel will choose.
    #[inline(always)]
    pub(crate) fn message_source(&self) -> Address {
        // SAFETY: a field of the kernel's own context.
        unsafe { read_volatile(&raw const (*self.0).msg_src_ip4) }.to_ne_bytes()
    }

    /// The IPv4 address that the socket is bound to; zero: none.
    #[inline(always)]
    pub(crate) fn bound_ipv4(&self) -> Address {
        // SAFETY: the context leads to the socket, whose fields the kernel translates.
        unsafe {
            let socket = read_volatile(&raw const (*self.0).__bindgen_anon_1.sk);
            read_volatile(&raw const (*socket).src_ip4).to_ne_bytes()
        }
    }

    /// The IPv6 address that the socket is bound to; zero: none.
    #[inline(always)]
    pub(crate) fn bound_ipv6(&self) -> [u32; 4] {
        // SAFETY: as above.
        unsafe {
            let socket = read_volatile(&raw const (*self.0).__bindgen_anon_1.sk);
            [
                read_volatile(&raw const (*socket).src_ip6[0]),
                read_volatile(&raw const (*socket).src_ip6[1]),
                read_volatile(&raw const (*socket).src_ip6[2]),
                read_volatile(&raw const (*socket).src_ip6[3]),
            ]
        }
    }

    /// Whether the socket is bound to an interface (SO_BINDTODEVICE), so that it can't choose the bridge.
    #[inline(always)]
    pub(crate) fn is_bound_to_interface(&self) -> bool {
        // SAFETY: as above.
        unsafe {
            let socket = read_volatile(&raw const (*self.0).__bindgen_anon_1.sk);
            read_volatile(&raw const (*socket).bound_dev_if) != 0
        }
    }

    /// Whether the socket is one of IPv6 alone (IPV6_V6ONLY), which can't talk to an IPv4 container.
    ///
    /// No helper tells. The byte that does stands in the head of every socket, where it has been since Linux 3.16
    /// (9fe516ba3fb2, `skc_ipv6only` in include/net/sock.h).
    #[inline(always)]
    pub(crate) fn is_ipv6_only(&self) -> bool {
        /// Behind the two addresses, the hash, the two ports, the family and the state of `struct sock_common`.
        const FLAGS_AT: usize = 19;
        /// `skc_reuse:4, skc_reuseport:1, skc_ipv6only:1`, from the lowest bit on.
        const IPV6_ONLY: u8 = 1 << 5;
        // SAFETY: the context leads to the socket, and the helper fails instead of reading what isn't there.
        let head = unsafe {
            let socket = read_volatile(&raw const (*self.0).__bindgen_anon_1.sk);
            bpf_probe_read_kernel(socket.cast::<[u8; FLAGS_AT + 1]>())
        };
        head.is_ok_and(|head| head[FLAGS_AT] & IPV6_ONLY != 0)
    }

    #[inline(always)]
    fn port(&self) -> Port {
        // SAFETY: a field of the kernel's own context, whose lower half is the port in network order.
        (unsafe { read_volatile(&raw const (*self.0).user_port) } as u16).to_ne_bytes()
    }
}

/// The kernel's number for the socket that sent a packet; 0: none did.
#[inline(always)]
pub(crate) fn cookie_of_sender(context: &TcContext) -> u64 {
    // SAFETY: the context is the kernel's own for the duration of the program.
    unsafe { bpf_get_socket_cookie(context.skb.skb.cast()) }
}
