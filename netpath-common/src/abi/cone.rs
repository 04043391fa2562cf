//! Cones: ports of the host that belong to one container's address and port towards everyone (RFC 4787, REQ-1), and
//! the ports that flows without one use, which no cone may get.

use super::{Address, FlowKey, FlowKind, Port, abi};

abi! {
    /// One of the host's addresses and ports.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct ConeKey[8] {
        /// The host's address.
        pub address: Address,
        /// The host's port.
        pub port: Port,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
    }
}

abi! {
    /// Who has a port of the host.
    pub struct Cone[24] {
        /// When it was last refreshed, in nanoseconds of the kernel's monotonic clock; written about once a second.
        pub last_seen_ns: u64,
        /// The container's address.
        pub address: Address,
        /// The container's port.
        pub port: Port,
        /// The generation of the container's hop when the cone began. Another one now: the cone has ended.
        pub hop_generation: u16,
        /// Index in the map of hops: the container's.
        pub hop: u32,
        /// The number of [`FlowKind::Cone`]; 0: nobody alone, flows without a cone use the port.
        pub kind: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

abi! {
    /// What a cone is looked for by from inside: a container's address and port, and the host's address that its flow
    /// leaves with.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct ConeOwner[12] {
        /// The container's address.
        pub address: Address,
        /// The host's address.
        pub outside: Address,
        /// The container's port.
        pub port: Port,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
    }
}

impl ConeKey {
    /// The source of a tuple as it leaves.
    #[inline(always)]
    #[must_use]
    pub const fn of_source(key: &FlowKey) -> Self {
        Self { address: key.source, port: key.source_port, protocol: key.protocol, reserved: 0 }
    }

    /// The destination of a tuple as it arrives.
    #[inline(always)]
    #[must_use]
    pub const fn of_destination(key: &FlowKey) -> Self {
        Self { address: key.destination, port: key.destination_port, protocol: key.protocol, reserved: 0 }
    }
}

impl Cone {
    /// Whether flows without a cone use the port.
    #[inline(always)]
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.kind != FlowKind::Cone as u8
    }

    /// What leads to this cone from inside.
    #[inline(always)]
    #[must_use]
    pub const fn owner(&self, key: &ConeKey) -> ConeOwner {
        ConeOwner { address: self.address, outside: key.address, port: self.port, protocol: key.protocol, reserved: 0 }
    }
}
