//! Published ports: the keys and values of a trie of prefixes, so that ports that follow each other share entries.
//!
//! A block of 2^n ports that begins at a multiple of 2^n has the first 16 - n bits of their numbers in common, and is one
//! entry. One look-up finds the entry of a port, whatever the size of its block: that with the longest prefix.

use super::{Address, Port, abi};

abi! {
    /// A published port as a client addresses it, or a block of them (the kernel's `struct bpf_lpm_trie_key`).
    #[derive(Hash, PartialOrd, Ord)]
    pub struct PublishedKey[12] {
        /// How many bits of what follows are the same for all of the block; for one port [`Self::BITS`].
        pub prefix_len: u32,
        /// The host address, or 0.0.0.0 for each of the host's addresses.
        pub address: Address,
        /// 6 (TCP), 17 (UDP) or 132 (SCTP).
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
        /// The host port, or the first of the block.
        pub port: Port,
    }
}

impl PublishedKey {
    /// Bits behind the length: the port comes last, so that blocks are prefixes.
    pub const BITS: u32 = 64;

    /// The key of one port; every port is looked up by it.
    #[inline(always)]
    #[must_use]
    pub const fn port(address: Address, protocol: u8, port: Port) -> Self {
        Self { prefix_len: Self::BITS, address, protocol, reserved: 0, port }
    }
}

abi! {
    /// Where the ports of a block lead.
    pub struct PublishedBlock[8] {
        /// The container's address; an entry of the map of endpoints.
        pub address: Address,
        /// What is added to a host port, modulo 2^16, to get the container's.
        pub shift: u16,
        /// Zero.
        pub reserved: [u8; 2],
    }
}
