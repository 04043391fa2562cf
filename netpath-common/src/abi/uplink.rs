//! Uplinks: the interfaces that lead to the world, and the addresses that masqueraded flows leave with.

use super::{Address, abi};

abi! {
    /// One of an uplink's addresses with its subnet.
    pub struct UplinkAddress[8] {
        /// The host's address.
        pub address: Address,
        /// The subnet's mask in network byte order.
        pub mask: Address,
    }
}

abi! {
    /// An uplink. A masqueraded flow leaves with the address whose subnet holds the next hop, else with the first: the
    /// choice of the kernel's masquerade (`inet_select_addr` in net/ipv4/devinet.c).
    pub struct Uplink[72] {
        /// Index in the map of hops.
        pub hop: u32,
        /// How many of `addresses` are set.
        pub address_count: u32,
        /// Primary addresses in the kernel's order.
        pub addresses: [UplinkAddress; Uplink::ADDRESSES_MAX],
    }
}

impl Uplink {
    /// How many addresses of an uplink are looked at. More don't change the choice but for next hops in their subnets.
    pub const ADDRESSES_MAX: usize = 8;
}
