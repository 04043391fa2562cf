//! What the daemon allows the programs to do about datagrams to ports of the host that nobody listens on, and what they
//! note about senders.

use super::{Address, FlowKey, abi};

abi! {
    /// How often something may be: a bucket of tokens, in times.
    pub struct Rate[16] {
        /// How far apart tokens come; 0: as often as one likes.
        pub interval_ns: u64,
        /// How far ahead of the time they may be spent: all but one of those that the bucket holds.
        pub ahead_ns: u64,
    }
}

abi! {
    /// What becomes of datagrams to closed ports.
    pub struct ClosedPorts[40] {
        /// Until when they may be dropped, by the monotonic clock; then all of them are the kernel's again. The daemon
        /// prolongs it: without one, nobody sees whether something else on the host begins to wait for them.
        pub until_ns: u64,
        /// How often the kernel gets one of a sender.
        pub sender: Rate,
        /// How often a CPU gets one, whoever sends.
        pub all: Rate,
    }
}

abi! {
    /// What is noted about senders whose addresses have one hash.
    pub struct Sender[16] {
        /// When the kernel will have been spared for so long that the bucket is full again.
        pub full_at_ns: u64,
        /// When a container's datagram to one of them was last left to the kernel, which may have translated it: its answers
        /// are nobody's but the kernel's. 0: never.
        pub asked_at_ns: u64,
    }
}

impl Rate {
    /// So many in a second, and so many at once. 0 in a second: without limit.
    #[must_use]
    pub const fn per_second(per_second: u64, burst: u64) -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        match SECOND_NS.checked_div(per_second) {
            None => Self { interval_ns: 0, ahead_ns: 0 },
            Some(interval_ns) => Self { interval_ns, ahead_ns: interval_ns.saturating_mul(burst.saturating_sub(1)) },
        }
    }

    /// Whether a bucket that will be full again at `full_at_ns` has a token; if so, it is spent.
    #[inline(always)]
    pub const fn spend(&self, full_at_ns: &mut u64, now_ns: u64) -> bool {
        let from = if *full_at_ns > now_ns { *full_at_ns } else { now_ns };
        if from - now_ns > self.ahead_ns {
            return false;
        }
        *full_at_ns = from + self.interval_ns;
        true
    }
}

impl ClosedPorts {
    /// All datagrams are the kernel's.
    pub const KERNEL: Self =
        Self { until_ns: 0, sender: Rate { interval_ns: 0, ahead_ns: 0 }, all: Rate { interval_ns: 0, ahead_ns: 0 } };
}

impl Sender {
    /// How many hashes there are; a power of two.
    pub const PLACES: u32 = 16_384;

    /// The two places of an address, by a keyed hash: who floods can't know whose places they are.
    #[inline(always)]
    #[must_use]
    pub const fn places(seed: u32, address: Address) -> [u32; 2] {
        let mut hash = (seed ^ u32::from_ne_bytes(address)).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^= hash >> 16;
        [hash % Self::PLACES, (hash >> 16 ^ hash.wrapping_mul(0x9e37_79b9) >> 14) % Self::PLACES]
    }
}

/// That a datagram with some tuple was refused a moment ago, in one word, so that CPUs never see half of it: a keyed hash of
/// the tuple in the upper 40 bits, the time below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u64);

impl Refusal {
    /// How many places there are; a power of two.
    pub const PLACES: u32 = 131_072;
    /// For how long it holds: for the unit of its time in which it was noted, and for one more.
    const HOLDS: u64 = 1;
    /// The unit in bits of nanoseconds: 17 milliseconds. Within it a flood of thousands of tuples comes back to each of them;
    /// who opens a socket or publishes a port doesn't notice.
    const UNIT_BITS: u32 = 24;
    const TIME: u64 = (1 << 24) - 1;

    /// That a datagram of this tuple is refused now, and its place.
    #[inline(always)]
    #[must_use]
    pub const fn of(seed: u32, key: &FlowKey, now_ns: u64) -> (u32, Self) {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let [a, b] = key.source_port;
        let [c, d] = key.destination_port;
        let addresses = (u32::from_ne_bytes(key.source) as u64) << 32 | u32::from_ne_bytes(key.destination) as u64;
        let mut hash = (addresses ^ seed as u64).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 29;
        hash = (hash ^ (u32::from_ne_bytes([a, b, c, d]) as u64) << 16 ^ (seed as u64) << 8).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(MULTIPLIER);
        let place = (hash >> 8) as u32 % Self::PLACES;
        (place, Self(hash & !Self::TIME | now_ns >> Self::UNIT_BITS & Self::TIME))
    }

    /// Whether another of the same tuple was refused just before.
    #[inline(always)]
    #[must_use]
    pub const fn repeats(self, before: Self) -> bool {
        self.is_of_tuple(before) && self.0.wrapping_sub(before.0) & Self::TIME <= Self::HOLDS
    }

    /// Whether both are of the same tuple, whenever they were.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_tuple(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::TIME == 0
    }
}
