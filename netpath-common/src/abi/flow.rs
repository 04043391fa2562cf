//! The flow table: one entry per direction of a flow, each self-sufficient.
//!
//! The key of an entry is the packet as it arrives, the value is the packet as it leaves and where it goes. So one
//! look-up serves a packet of a known flow. The key of the opposite direction is the value's tuple, reversed
//! ([`Flow::reply_key`]): the two entries find each other without a pointer.

use super::{Address, Port, abi};

abi! {
    /// The packet as it arrives. Aligned so that addresses are compared as words. For ICMP echo the identifier takes the
    /// port's place: of the source in a request, of the destination in a reply; the other port is zero. Protocols without
    /// ports have zeros.
    #[derive(Hash, PartialOrd, Ord)]
    #[repr(align(4))]
    pub struct FlowKey[16] {
        /// Source address.
        pub source: Address,
        /// Destination address.
        pub destination: Address,
        /// Source port.
        pub source_port: Port,
        /// Destination port.
        pub destination_port: Port,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub reserved: [u8; 3],
    }
}

impl FlowKey {
    /// No packet's.
    pub const EMPTY: Self = Self {
        source: [0; 4],
        destination: [0; 4],
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: 0,
        reserved: [0; 3],
    };

    /// Whether two keys are the same: in one comparison, for the verifier to follow one way on.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let (one, other): ([u32; 4], [u32; 4]) = (bytemuck::cast(*self), bytemuck::cast(*other));
        (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
    }

    /// The tuple of a packet that answers this one.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            reserved: [0; 3],
        }
    }
}

abi! {
    /// One direction of a flow: how its packets leave.
    pub struct Flow[48] {
        /// When a packet of this direction was last seen, in nanoseconds of the kernel's monotonic clock; written at
        /// most about once a second.
        pub last_seen_ns: u64,
        /// Source address as the packet leaves.
        pub source: Address,
        /// Destination address as the packet leaves.
        pub destination: Address,
        /// Source port as the packet leaves.
        pub source_port: Port,
        /// Destination port as the packet leaves.
        pub destination_port: Port,
        /// RFC 1624 difference of the two addresses, folded, in the packet's byte order: for the IPv4 header and,
        /// through the pseudo-header, for TCP and UDP.
        pub address_delta: u16,
        /// RFC 1624 difference of the two ports or of the echo identifier, folded, in the packet's byte order.
        pub port_delta: u16,
        /// Index in the map of hops: where the packet goes.
        pub hop: u32,
        /// The hop's generation when the flow began. Another one now: the flow has ended.
        pub hop_generation: u16,
        /// What this direction has shown so far: bits of [`Seen`].
        pub seen: u8,
        /// [`Direction`] in bit 0, [`FlowKind`] in bits 1 to 3.
        pub role: u8,
        /// The interface that packets of this direction must come in by; 0: any.
        pub ingress_ifindex: u32,
        /// The Docker network of the container: [`super::Endpoint::network`]; 0: a flow of the host's own.
        pub network: u16,
        /// [`NextHop`], where this direction leaves by an uplink: what the routes said when [`Self::last_seen_ns`] was written.
        pub next_hop: u8,
        /// Zero.
        pub reserved: u8,
        /// TCP: the highest sequence number that this direction has sent, plus one; host order.
        pub sequence_end: u32,
        /// TCP: the highest sequence number that this direction waits for (its acknowledgement field); host order.
        pub acknowledged: u32,
    }
}

impl Flow {
    /// No flow.
    pub const EMPTY: Self = Self {
        last_seen_ns: 0,
        source: [0; 4],
        destination: [0; 4],
        source_port: [0; 2],
        destination_port: [0; 2],
        address_delta: 0,
        port_delta: 0,
        hop: 0,
        hop_generation: 0,
        seen: 0,
        role: 0,
        ingress_ifindex: 0,
        network: 0,
        next_hop: 0,
        reserved: 0,
        sequence_end: 0,
        acknowledged: 0,
    };
}

/// Which way a packet of a flow goes.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The way of the packet that opened the flow.
    Original = 0,
    /// The way of the answers.
    Reply = 1,
}

/// Whose Ethernet address a packet that leaves by an uplink needs.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The kernel asks its routes for each packet.
    Asked = 0,
    /// The destination's: it is on the uplink's link.
    Destination = 1,
    /// The uplink's gateway's: [`super::Hop::gateway`].
    Gateway = 2,
}

/// What netpath does for a flow.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// A container reaches the world; its source becomes the host's (SNAT).
    Masquerade = 0,
    /// The world reaches a published port; the destination becomes the container's (DNAT).
    Published = 1,
    /// A container reaches a published port by one of the host's addresses; the destination becomes the other
    /// container's, and the source the gateway's where both are the same container.
    Hairpin = 2,
    /// The host itself reaches the world with a tuple that a container's flow holds; its source port becomes another.
    Host = 3,
    /// The world reaches a container's cone; the destination becomes the container's.
    Cone = 4,
    /// A container and somebody else reach each other under their own addresses: nothing is translated.
    Routed = 5,
    /// A socket of the host that is bound to 127.0.0.0/8 reaches a published port; the destination becomes the container's, and
    /// the source the gateway's.
    Loopback = 6,
}

impl FlowKind {
    /// The stable name that commands show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "masquerade",
            Self::Published => "published",
            Self::Hairpin => "hairpin",
            Self::Host => "host",
            Self::Cone => "cone",
            Self::Routed => "routed",
            Self::Loopback => "loopback",
        }
    }
}

impl Flow {
    /// Whether what a container sends leaves with this address of the host's, which netpath has chosen. Asked of the direction
    /// that opened the flow, with its key. The host's own packets have the address that the host has chosen itself: without it
    /// they aren't sent, and connections wait for it to return.
    #[must_use]
    pub fn leaves_with(&self, key: &FlowKey, address: Address) -> bool {
        match self.kind() {
            FlowKind::Masquerade => self.source == address,
            FlowKind::Cone => key.destination == address,
            FlowKind::Published | FlowKind::Hairpin | FlowKind::Host | FlowKind::Routed | FlowKind::Loopback => false,
        }
    }

    /// Packs direction and kind into [`Flow::role`].
    #[inline(always)]
    #[must_use]
    pub const fn pack_role(direction: Direction, kind: FlowKind) -> u8 {
        Self::pack_role_number(direction, kind as u8)
    }

    /// The same with the number of a [`FlowKind`].
    #[inline(always)]
    #[must_use]
    pub const fn pack_role_number(direction: Direction, kind: u8) -> u8 {
        direction as u8 | kind << 1
    }

    /// Which way packets of this entry go.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.role & 1 == 0 { Direction::Original } else { Direction::Reply }
    }

    /// What netpath does for this flow.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> FlowKind {
        const PUBLISHED: u8 = FlowKind::Published as u8;
        const HAIRPIN: u8 = FlowKind::Hairpin as u8;
        const HOST: u8 = FlowKind::Host as u8;
        const CONE: u8 = FlowKind::Cone as u8;
        const ROUTED: u8 = FlowKind::Routed as u8;
        const LOOPBACK: u8 = FlowKind::Loopback as u8;
        match self.role >> 1 & 7 {
            PUBLISHED => FlowKind::Published,
            HAIRPIN => FlowKind::Hairpin,
            HOST => FlowKind::Host,
            CONE => FlowKind::Cone,
            ROUTED => FlowKind::Routed,
            LOOPBACK => FlowKind::Loopback,
            _ => FlowKind::Masquerade,
        }
    }

    /// The key of the opposite direction's entry.
    #[inline(always)]
    #[must_use]
    pub const fn reply_key(&self, protocol: u8) -> FlowKey {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol,
            reserved: [0; 3],
        }
    }
}

/// Bits of [`Flow::seen`]: what a direction has shown. Each direction writes its own; only a reset, and a SYN that opens
/// a pair anew, write both.
pub struct Seen;

impl Seen {
    /// Any packet at all.
    pub const PACKET: u8 = 1;
    /// A TCP SYN.
    pub const SYN: u8 = 2;
    /// A TCP ACK.
    pub const ACK: u8 = 4;
    /// A TCP FIN.
    pub const FIN: u8 = 8;
    /// A TCP RST whose sequence number the other side may believe.
    pub const RST: u8 = 16;
    /// TCP: the other direction has sent such a RST since this one's last packet.
    pub const PEER_RST: u8 = 32;
    /// UDP: there was a packet more than a second after the first.
    pub const AGED: u8 = 64;
    /// UDP: there was a packet more than two seconds after the first: a stream, no single question.
    pub const STREAM: u8 = 128;
}

abi! {
    /// A flow that nf_conntrack had before netpath came and that stays with it until it ends.
    pub struct Handover[16] {
        /// When a packet of the flow was last passed to the kernel, in nanoseconds of the monotonic clock.
        pub last_seen_ns: u64,
        /// Without a packet for so long, in nanoseconds, the flow has ended.
        pub timeout_ns: u64,
    }
}

impl Handover {
    /// Words of the filter before the map: a bit for each hash of a key, set if such a key may be there. Small enough for
    /// the CPU's caches, in which the map isn't.
    pub const FILTER_WORDS: u32 = 4096;

    /// The word of the filter that a key belongs to, and its bit there. Not keyed: who finds tuples with the same bit gains
    /// no more than that the map is looked into.
    #[inline(always)]
    #[must_use]
    pub const fn place(key: &FlowKey) -> (u32, u64) {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let ([a, b], [c, d]) = (key.source_port, key.destination_port);
        let addresses = (u32::from_ne_bytes(key.source) as u64) << 32 | u32::from_ne_bytes(key.destination) as u64;
        let ports = (u32::from_ne_bytes([a, b, c, d]) as u64) << 8 | key.protocol as u64;
        let hash = (addresses.wrapping_mul(MULTIPLIER) ^ ports).wrapping_mul(MULTIPLIER);
        let hash = hash ^ hash >> 32;
        ((hash >> 6) as u32 % Self::FILTER_WORDS, 1 << (hash & 63))
    }
}

abi! {
    /// Names the fragments of one datagram (RFC 791).
    #[derive(Hash)]
    pub struct FragmentKey[12] {
        /// Source address as it arrives.
        pub source: Address,
        /// Destination address as it arrives.
        pub destination: Address,
        /// The IPv4 identification field.
        pub identification: [u8; 2],
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
    }
}

abi! {
    /// A place for a fragment that overtook the first of its datagram.
    #[derive(Hash)]
    pub struct HeldKey[16] {
        /// The datagram.
        pub datagram: FragmentKey,
        /// Which of the datagram's places.
        pub place: u32,
    }
}

abi! {
    /// A fragment that waits for the first of its datagram.
    pub struct HeldFragment[2064] {
        /// When it came, in nanoseconds of the monotonic clock.
        pub seen_ns: u64,
        /// Bytes of the frame.
        pub len: u32,
        /// Zero.
        pub reserved: u32,
        /// The frame.
        pub bytes: [u8; HeldFragment::LEN_MAX],
    }
}

impl HeldFragment {
    /// The longest frame that is held: more than an Ethernet frame of the usual size.
    pub const LEN_MAX: usize = 2048;
}

abi! {
    /// What is known of a fragmented datagram: the ports that only its first fragment carries, and which parts have come.
    pub struct FragmentPorts[32] {
        /// When the first fragment came, in nanoseconds of the monotonic clock.
        pub seen_ns: u64,
        /// Source port, or the identifier of an echo request.
        pub source_port: Port,
        /// Destination port, or the identifier of an echo reply.
        pub destination_port: Port,
        /// Zero.
        pub reserved: u32,
        /// Parts that have come: the first unit of eight bytes in the upper half, the one after the last in the lower;
        /// 0: no part.
        pub parts: [u32; 4],
    }
}
