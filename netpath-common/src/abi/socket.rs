//! What the host's own sockets asked for, before their destination became a container's.

use super::{Address, Port, abi};

abi! {
    /// A socket of the host and the container's port that it was led to.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct AskedKey[16] {
        /// The kernel's number for the socket.
        pub cookie: u64,
        /// The container's address.
        pub address: Address,
        /// The container's port.
        pub port: Port,
        /// 6 (TCP) or 17 (UDP).
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
    }
}

abi! {
    /// The destination that a program asked for; what it is shown as its peer.
    pub struct Asked[20] {
        /// The IPv6 address as words as they lie in memory; an IPv4 address in its mapped form (RFC 4291, section 2.5.5.2).
        pub address: [u32; 4],
        /// The port.
        pub port: Port,
        /// Zero.
        pub reserved: [u8; 2],
    }
}

impl Asked {
    /// The word that makes `::ffff:a.b.c.d` of an IPv4 address.
    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    /// The last word of `::1`.
    const ONE: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

    /// An IPv4 destination.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(address: Address, port: Port) -> Self {
        Self { address: Self::mapped(address), port, reserved: [0; 2] }
    }

    /// An IPv6 destination, which may be a mapped IPv4 one.
    #[inline(always)]
    #[must_use]
    pub const fn ipv6(address: [u32; 4], port: Port) -> Self {
        Self { address, port, reserved: [0; 2] }
    }

    /// The IPv6 form of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn mapped(address: Address) -> [u32; 4] {
        [0, 0, Self::MAPPED, u32::from_ne_bytes(address)]
    }

    /// The IPv4 address, if the address is a mapped one.
    #[inline(always)]
    #[must_use]
    pub const fn as_ipv4(&self) -> Option<Address> {
        let [first, second, third, last] = self.address;
        if first | second == 0 && third == Self::MAPPED { Some(last.to_ne_bytes()) } else { None }
    }

    /// Whether the address is `::1`, or `::`, which stands for it in a connect() or sendto().
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6_loopback(&self) -> bool {
        let [first, second, third, last] = self.address;
        first | second | third == 0 && (last == 0 || last == Self::ONE)
    }
}
