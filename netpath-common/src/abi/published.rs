//! Published ports: one entry per host address, port and protocol, so that a look-up costs the same for any number.

use super::{Address, Port, abi};

abi! {
    /// A published port as a client addresses it.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct PublishedKey[8] {
        /// The host address, or 0.0.0.0 for each of the host's addresses.
        pub address: Address,
        /// The host port.
        pub port: Port,
        /// 6 (TCP) or 17 (UDP).
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
    }
}

abi! {
    /// Where a published port leads.
    pub struct Published[8] {
        /// The container's address; an entry of the map of endpoints.
        pub address: Address,
        /// The container's port.
        pub port: Port,
        /// Zero.
        pub reserved: [u8; 2],
    }
}
