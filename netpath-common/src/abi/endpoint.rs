//! Endpoints (a container's address on one network) and hops (where a packet leaves the host).

use super::{Address, Mac, Port, abi};

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
        /// What its network allows: bits of [`Terms`].
        pub terms: u16,
        /// 1: its UDP ports are cones (endpoint-independent mapping and filtering).
        pub full_cone: u8,
        /// Zero.
        pub reserved: u8,
    }
}

/// Bits of [`Endpoint::terms`]: how a network differs from one without options.
pub struct Terms;

impl Terms {
    /// Its containers don't reach each other (`enable_icc=false`).
    pub const ICC_OFF: u16 = 1;
    /// With [`Self::ICC_OFF`]: the kernel's bridge doesn't ask Docker's rules, so netpath drops in takeover too.
    pub const ICC_UNGUARDED: u16 = 2;
    /// Nothing comes in or goes out (`--internal`).
    pub const INTERNAL: u16 = 4;
    /// What leaves keeps the container's address (masquerading off, or gateway mode `routed`).
    pub const NO_MASQUERADE: u16 = 8;
    /// Gateway mode `routed`: everybody reaches its published ports by the container's address, and may ping it.
    pub const ROUTED: u16 = 16;
    /// Gateway mode `nat-unprotected`: everybody reaches every port by the container's address.
    pub const UNPROTECTED: u16 = 32;
    /// Everybody reaches its published ports by the container's address (dockerd's `--allow-direct-routing`).
    pub const DIRECT: u16 = 64;
    /// The same for whom a trusted interface brings: [`Admitted::TRUSTED`].
    pub const TRUSTED: u16 = 128;
    /// Its containers don't reach ports that other networks publish.
    pub const KEEPS_TO_ITSELF: u16 = 256;
    /// Of the endpoint, not its network: its container is on other networks too, whose containers it answers there.
    pub const ON_SEVERAL: u16 = 512;

    /// Any of these: its containers and the world can talk without translation.
    pub const UNTRANSLATED: u16 = Self::NO_MASQUERADE | Self::ROUTED | Self::UNPROTECTED | Self::DIRECT | Self::TRUSTED;
}

abi! {
    /// An interface, and what of it is let in.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct AdmittedKey[12] {
        /// A container's veth, or an uplink.
        pub ifindex: u32,
        /// Of a veth: an address that its container has on another network, or 0.0.0.0 for the veth itself; of a link: the
        /// neighbour's. Of an uplink: the number of a network, in network byte order, whose [`Terms::TRUSTED`] it is.
        pub subject: Address,
        /// Of a link: the port of the container that is linked; else 0.
        pub port: Port,
        /// Of a link: the protocol; else 0.
        pub protocol: u8,
        /// Of a link: [`AdmittedKey::ASKS`] or [`AdmittedKey::ANSWERS`]; else 0.
        pub side: u8,
    }
}

abi! {
    /// What is let in by an interface.
    pub struct Admitted[8] {
        /// Bits: [`Admitted::SENDS`] and its like.
        pub admits: u32,
        /// Of a veth: the number of its network.
        pub network: u16,
        /// Of a veth: its network's bits of [`Terms`].
        pub terms: u16,
    }
}

impl Admitted {
    /// The veth is a known container's, who may send with this address.
    pub const SENDS: u32 = 1;
    /// Its container may send with any address that no other container and not the host has.
    pub const ANY_SOURCE: u32 = 2;
    /// The network trusts the uplink.
    pub const TRUSTED: u32 = 4;
    /// A link of the veth's container: it reaches the neighbour although [`Terms::ICC_OFF`].
    pub const LINKED: u32 = 8;
}

impl AdmittedKey {
    /// Side of a link: to the port.
    pub const ASKS: u8 = 1;
    /// Side of a link: from the port.
    pub const ANSWERS: u8 = 2;

    /// The veth itself.
    #[inline(always)]
    #[must_use]
    pub const fn veth(ifindex: u32) -> Self {
        Self::address(ifindex, [0; 4])
    }

    /// An address that a veth's container has on another network.
    #[inline(always)]
    #[must_use]
    pub const fn address(ifindex: u32, address: Address) -> Self {
        Self { ifindex, subject: address, port: [0; 2], protocol: 0, side: 0 }
    }

    /// An uplink that a network may trust.
    #[inline(always)]
    #[must_use]
    pub const fn trusted(ifindex: u32, network: u16) -> Self {
        Self::address(ifindex, (network as u32).to_be_bytes())
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
