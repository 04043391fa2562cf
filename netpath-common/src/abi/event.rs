//! Events: what is told of flows that begin and end, while somebody listens.
//!
//! An event goes through the ring buffer `EVENTS`, in the order in which it happened on a CPU. Whether anybody listens
//! says the map `LISTENER`: until when, in nanoseconds of the kernel's monotonic clock. A listener that dies without a
//! word is forgotten at that time.

use super::{Direction, FlowKey, abi};

/// Bytes of the ring buffer: 4,096 events of 64 bytes, their headers included.
pub const EVENTS_BYTES: u32 = 256 * 1024;

abi! {
    /// A flow has begun or ended, as the direction of [`Self::role`] has it. [`Self::of_original`] has the original one's.
    pub struct Event[56] {
        /// When, in nanoseconds of the kernel's monotonic clock.
        pub time_ns: u64,
        /// When a packet of either direction was last seen, by the same clock.
        pub last_seen_ns: u64,
        /// The packets of the direction, as they arrive.
        pub key: FlowKey,
        /// Their answers, as they arrive.
        pub reply_key: FlowKey,
        /// The Docker network of the container.
        pub network: u16,
        /// [`EventKind`].
        pub kind: u8,
        /// [`EndReason`] of a flow that has ended, else 0.
        pub reason: u8,
        /// [`super::Flow::role`].
        pub role: u8,
        /// What the direction had shown: bits of [`super::Seen`].
        pub seen: u8,
        /// What its answers had shown.
        pub reply_seen: u8,
        /// Zero.
        pub reserved: u8,
    }
}

impl Event {
    /// The same as the original direction has it. Turned by who reads: in the programs both ways would lie on the stack.
    #[must_use]
    pub const fn of_original(self) -> Self {
        if self.role & Direction::Reply as u8 == 0 {
            return self;
        }
        Self {
            key: self.reply_key,
            reply_key: self.key,
            role: self.role & !(Direction::Reply as u8),
            seen: self.reply_seen,
            reply_seen: self.seen,
            ..self
        }
    }
}

/// What has happened to a flow.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was opened.
    New = 1,
    /// Both entries are gone.
    Destroy = 2,
}

/// Why a flow has ended.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// It was silent for longer than its state allows.
    Expired = 1,
    /// Its hop has another meaning: the container is gone.
    HopGone = 2,
    /// It made room for a new flow: it had ended, or was half open, closed, unanswered, or no stream.
    Evicted = 3,
    /// Somebody removed it.
    Removed = 4,
    /// Its container's address came in by another interface.
    AddressMoved = 5,
    /// It was closing, and a new connection came from its other side.
    Reopened = 6,
}

impl EventKind {
    /// What this number stands for.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::New),
            2 => Some(Self::Destroy),
            _ => None,
        }
    }
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::HopGone, Self::Evicted, Self::Removed, Self::AddressMoved, Self::Reopened];

    /// The stable name that the command line shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::HopGone => "hop_gone",
            Self::Evicted => "evicted",
            Self::Removed => "removed",
            Self::AddressMoved => "address_moved",
            Self::Reopened => "reopened",
        }
    }
}
