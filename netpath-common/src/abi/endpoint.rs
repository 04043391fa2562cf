//! Endpoints (a container's address on one network) and hops (where a packet leaves the host).

use super::{Address, Mac, abi};

abi! {
    /// A container's address on one network.
    pub struct Endpoint[32] {
        /// The host side of the container's veth.
        pub ifindex: u32,
        /// The bridge of the network.
        pub bridge_ifindex: u32,
        /// Index in the map of hops.
        pub hop: u32,
        /// Number of the network, given by the daemon; the same for all endpoints of one network. Never 0.
        pub network: u16,
        /// The container's Ethernet address.
        pub mac: Mac,
        /// The host's address on the network; 0.0.0.0: it has none.
        pub gateway: Address,
        /// The address that flows to the world leave with; 0.0.0.0: the route decides.
        pub masquerade: Address,
        /// 1: its UDP ports are cones (endpoint-independent mapping and filtering).
        pub full_cone: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

abi! {
    /// Where a packet leaves the host. Flows point here, so that one write moves or ends all flows of an endpoint.
    pub struct Hop[24] {
        /// The host side of the container's veth, or the uplink.
        pub ifindex: u32,
        /// The largest IPv4 packet that this link takes, in bytes.
        pub mtu: u32,
        /// Raised each time the slot gets another meaning: flows that remember another generation have ended.
        pub generation: u16,
        /// [`HopKind`].
        pub kind: u8,
        /// Whether XDP may send frames into it: 1 for a container whose side of the veth has a NAPI, else 0.
        pub takes_frames: u8,
        /// Endpoint: the frame's first twelve bytes, destination and source address, as words as they lie in memory
        /// ([`Hop::addresses`]). Uplink: the address of its gateway, as it lies in memory ([`Hop::gateway`]), then zeros.
        pub addresses: [u32; 3],
    }
}

impl Hop {
    /// The words of [`Hop::addresses`] for a frame from `source` to `destination`.
    #[must_use]
    pub const fn addresses(destination: Mac, source: Mac) -> [u32; 3] {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l])]
    }

    /// The address of an uplink's gateway; 0.0.0.0: it has none.
    #[inline(always)]
    #[must_use]
    pub const fn gateway(&self) -> Address {
        self.addresses[0].to_ne_bytes()
    }
}

/// What a hop is.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopKind {
    /// The slot is free; packets of flows that point here are dropped or open anew.
    Free = 0,
    /// A container's veth: the packet enters the container's network namespace.
    Endpoint = 1,
    /// An uplink: the kernel's neighbour table gives the next Ethernet address.
    Uplink = 2,
}
