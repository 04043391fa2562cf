//! 5. Forward: where a packet goes next, as a value.

use crate::{
    abi::{Address, Direction, Flow, FlowKind, Hop, HopKind, NextHop, PathCount},
    drop::DropReason,
    packet::Packet,
    wire::ethernet,
};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Forward {
    /// Up the kernel's own way, unchanged.
    Kernel,
    /// Into the network namespace behind this veth, as if it had arrived there.
    IntoContainer {
        /// The host side of the veth.
        ifindex: u32,
    },
    /// Out of this uplink; the kernel's neighbours give the Ethernet header, of the next hop if that is known, else of the
    /// one that its routes say.
    OutOfUplink {
        /// The uplink.
        ifindex: u32,
    },
    /// Out of this interface as it is, Ethernet header included.
    Out {
        /// The interface.
        ifindex: u32,
    },
    /// To the host's own sockets, as if it had come in by the loopback interface.
    InByLoopback,
}

/// A packet's fate: where it goes and how it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Where it goes.
    pub forward: Forward,
    /// How it is counted.
    pub path: PathCount,
}

impl Verdict {
    /// Leaves the packet to the kernel.
    #[inline(always)]
    pub const fn kernel(path: PathCount) -> Self {
        Self { forward: Forward::Kernel, path }
    }
}

/// What became of a packet, in one register: so it passes between BPF functions without memory, and the debug
/// information of their signatures stays within what BTF can say (kernel/bpf/btf.c refuses an enum whose discriminant
/// isn't its first member, which is how a nested `Result` lies in memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Fate(u64);

impl Fate {
    /// Nothing is decided yet.
    pub const UNDECIDED: Self = Self(0);

    const DROPPED: u64 = 1;
    const KERNEL: u64 = 2;
    const INTO_CONTAINER: u64 = 3;
    const OUT_OF_UPLINK: u64 = 4;
    const OUT: u64 = 5;
    const ANSWERED: u64 = 6;
    const HELD: u64 = 7;
    const ANSWERED_OUT: u64 = 8;
    const IN_BY_LOOPBACK: u64 = 9;

    /// The packet is dropped.
    #[inline(always)]
    pub const fn dropped(reason: DropReason) -> Self {
        Self::pack(Self::DROPPED, reason as u32, 0)
    }

    /// The packet is dropped, and what lies in its place now is an answer to its sender, the container behind the veth
    /// `ifindex`.
    #[inline(always)]
    pub const fn answered_into(reason: DropReason, ifindex: u32) -> Self {
        Self::pack(Self::ANSWERED, reason as u32, ifindex)
    }

    /// The packet is dropped, and what lies in its place now is an answer to its sender, Ethernet header included, out of
    /// the interface by which the packet came.
    #[inline(always)]
    pub const fn answered_out(reason: DropReason, ifindex: u32) -> Self {
        Self::pack(Self::ANSWERED_OUT, reason as u32, ifindex)
    }

    /// The fragment has overtaken its first: it is to be held until that comes, and looked at then.
    #[inline(always)]
    pub const fn held() -> Self {
        Self::pack(Self::HELD, PathCount::FragmentHeld as u32, 0)
    }

    /// The packet goes on.
    #[inline(always)]
    pub const fn forwarded(verdict: Verdict) -> Self {
        let (tag, ifindex) = match verdict.forward {
            Forward::Kernel => (Self::KERNEL, 0),
            Forward::IntoContainer { ifindex } => (Self::INTO_CONTAINER, ifindex),
            Forward::OutOfUplink { ifindex } => (Self::OUT_OF_UPLINK, ifindex),
            Forward::Out { ifindex } => (Self::OUT, ifindex),
            Forward::InByLoopback => (Self::IN_BY_LOOPBACK, 0),
        };
        Self::pack(tag, verdict.path as u32, ifindex)
    }

    /// Whether anything is decided.
    #[inline(always)]
    #[must_use]
    pub const fn is_decided(self) -> bool {
        self.0 != Self::UNDECIDED.0
    }

    /// Whether the packet is dropped and its sender answered; then [`Self::forward`] says where the answer goes.
    #[inline(always)]
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self.0 & 0xff, Self::ANSWERED | Self::ANSWERED_OUT)
    }

    /// Whether the fragment is to be held.
    #[inline(always)]
    #[must_use]
    pub const fn is_held(self) -> bool {
        self.0 & 0xff == Self::HELD
    }

    /// Where the packet, or the answer to it, goes; `None` when it is dropped or held.
    #[inline(always)]
    #[must_use]
    pub const fn forward(self) -> Option<Forward> {
        let ifindex = (self.0 >> 32) as u32;
        match self.0 & 0xff {
            Self::KERNEL => Some(Forward::Kernel),
            Self::INTO_CONTAINER | Self::ANSWERED => Some(Forward::IntoContainer { ifindex }),
            Self::OUT_OF_UPLINK => Some(Forward::OutOfUplink { ifindex }),
            Self::OUT | Self::ANSWERED_OUT => Some(Forward::Out { ifindex }),
            Self::IN_BY_LOOPBACK => Some(Forward::InByLoopback),
            _ => None,
        }
    }

    /// Where it is counted: the number of the [`PathCount`], or of the [`DropReason`] when it is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        (self.0 >> 8) as u32 & 0xff
    }

    /// The reason for which the packet is dropped, if it is.
    #[must_use]
    pub fn drop_reason(self) -> Option<DropReason> {
        let is_dropped = self.0 & 0xff == Self::DROPPED || self.is_answered();
        DropReason::ALL.get(self.counter() as usize).copied().filter(|_| is_dropped)
    }

    /// The way the packet took, unless it is dropped.
    #[must_use]
    pub fn path(self) -> Option<PathCount> {
        PathCount::ALL.get(self.counter() as usize).copied().filter(|_| self.forward().is_some() && !self.is_answered())
    }

    #[inline(always)]
    const fn pack(tag: u64, counter: u32, ifindex: u32) -> Self {
        Self(tag | (counter as u64) << 8 | (ifindex as u64) << 32)
    }
}

impl From<Result<Option<Verdict>, DropReason>> for Fate {
    #[inline(always)]
    fn from(result: Result<Option<Verdict>, DropReason>) -> Self {
        match result {
            Ok(Some(verdict)) => Self::forwarded(verdict),
            Ok(None) => Self::UNDECIDED,
            Err(reason) => Self::dropped(reason),
        }
    }
}

const _: () = assert!(DropReason::SLOTS <= 256 && PathCount::SLOTS <= 256, "a counter's number fits in a byte");

/// Whose Ethernet address a packet needs that leaves by an uplink; 0.0.0.0: the kernel asks its routes.
#[inline(always)]
#[must_use]
pub const fn next_hop(flow: &Flow, uplink: &Hop, destination: Address) -> Address {
    const DESTINATION: u8 = NextHop::Destination as u8;
    const GATEWAY: u8 = NextHop::Gateway as u8;
    match flow.next_hop {
        DESTINATION => destination,
        GATEWAY => uplink.gateway(),
        _ => [0; 4],
    }
}

/// Sends a translated packet the way of its flow: towards its hop, but for the answers to a socket that is bound to 127.0.0.0/8,
/// which nobody but the loopback interface may bring. Their hop is still the container's: with that they end.
///
/// # Errors
///
/// As [`towards`].
#[inline(always)]
pub fn along(packet: &mut impl Packet, flow: &Flow, hop: &Hop) -> Result<Forward, DropReason> {
    if flow.role == Flow::pack_role(Direction::Reply, FlowKind::Loopback) {
        packet.write_words(ethernet::DESTINATION, [0; 3])?;
        return Ok(Forward::InByLoopback);
    }
    towards(packet, hop)
}

/// Writes the Ethernet header that the hop needs and says where the packet goes. Comes before the transport checksum,
/// which may move the packet.
///
/// # Errors
///
/// [`DropReason::HopGone`] for a free slot, [`DropReason::RewriteFailed`] when the header can't be written.
#[inline(always)]
pub fn towards(packet: &mut impl Packet, hop: &Hop) -> Result<Forward, DropReason> {
    if hop.kind == HopKind::Endpoint as u8 {
        packet.write_words(ethernet::DESTINATION, hop.addresses)?;
        return Ok(Forward::IntoContainer { ifindex: hop.ifindex });
    }
    if hop.kind == HopKind::Uplink as u8 {
        return Ok(Forward::OutOfUplink { ifindex: hop.ifindex });
    }
    Err(DropReason::HopGone)
}
