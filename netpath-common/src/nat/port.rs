//! Choosing the source port (or echo identifier) of a translated flow.
//!
//! The packet's own port comes first; on a clash a bounded number of others, spread over the configured range from a
//! keyed hash of the tuple, so that an observer can't predict them (RFC 6056, algorithm 3).

use crate::{
    abi::{Config, FlowKey, Mode, Port, PublishedKey},
    nat::cone,
    tables::Tables,
    wire::protocol,
};

/// How often a port is chosen for a flow before it is refused: its own, then each time the first free one of
/// [`LOOKS_MAX`]. Between 1 and 193 ports are looked at. Towards a destination that already holds 95 % of the range, all of
/// them are taken for 1 flow of 160; the search is bounded because each look costs a map operation in the packet path, and
/// each round, which checks one port in full, much of what the verifier takes.
pub const ROUNDS_MAX: u32 = 4;
/// Ports that are looked at in one round.
const LOOKS_MAX: u32 = 64;

/// The ports to try for one flow.
#[derive(Debug, Clone, Copy)]
pub struct Candidates {
    first: u32,
    size: u32,
    offset: u32,
    stride: u32,
    hash: u32,
    may_change: bool,
}

impl Candidates {
    /// Candidates for the flow of a packet with this tuple, as it arrived: flows that are to leave with the same tuple must
    /// not look at the same ports. A protocol whose ports can't be changed, or that has none, has none.
    ///
    /// For a cone (`full_cone` is 1) the destination doesn't count: two CPUs that make one for the same owner then come to the
    /// same port.
    #[inline(always)]
    #[must_use]
    pub const fn new(config: Config, arrived: &FlowKey, full_cone: u8) -> Self {
        let first = config.port_first as u32;
        let last = config.port_last as u32;
        let size = if last >= first { last - first + 1 } else { 1 };
        let hash = hash(config.port_seed, arrived, full_cone);
        Self {
            first,
            size,
            offset: hash % size,
            // Odd, so that it doesn't repeat soon whatever even number the size is.
            stride: (hash >> 16) | 1,
            hash,
            may_change: matches!(arrived.protocol, protocol::TCP | protocol::UDP | protocol::ICMP),
        }
    }

    /// The keyed hash of the tuple.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u32 {
        self.hash
    }

    /// The flow's own port is the only candidate: nothing of the flow is translated.
    #[inline(always)]
    pub const fn keep_port(&mut self) {
        self.may_change = false;
    }

    /// Whether there are candidates.
    #[inline(always)]
    #[must_use]
    pub const fn may_change(&self) -> bool {
        self.may_change
    }

    /// The next port.
    #[inline(always)]
    pub const fn next(&mut self) -> Port {
        let port = (self.first + self.offset) as u16;
        // Never zero, which the compiler can't see.
        self.offset = match self.size {
            0 => 0,
            size => (self.offset + self.stride) % size,
        };
        port.to_be_bytes()
    }

    /// Gives the tuple the next port that no flow holds, nor another's cone, if one of the next few is such.
    #[inline(never)]
    pub fn find_free<T: Tables>(&mut self, tables: &T, translated: &mut FlowKey, full_cone: u8) -> bool {
        let holds = translated.protocol == protocol::UDP && tables.config().cone_timeout_s != 0;
        let mut look = 0;
        while look < LOOKS_MAX && self.may_change {
            translated.source_port = self.next();
            if tables.flow(&translated.reversed()).is_none()
                && (!holds || cone::is_open_to(tables, translated, full_cone))
            {
                return true;
            }
            look += 1;
        }
        false
    }
}

/// Whether a tuple whose source becomes one of the host's addresses must not be used although no flow holds it: a host
/// socket or a published port would take its answers, the port is reserved, or the flow belongs to nf_conntrack.
#[inline(never)]
pub fn is_reserved<T: Tables>(tables: &mut T, translated: &FlowKey, now_ns: u64) -> bool {
    let reply = translated.reversed();
    if tables.config().mode() == Mode::Takeover && tables.is_handed_over(&reply, now_ns) {
        return true;
    }
    match translated.protocol {
        // The key of a request with identifier 0 is also that of a reply: somebody's ping of the host would enter the
        // container.
        protocol::ICMP => translated.source_port == [0; 2],
        protocol::TCP | protocol::UDP => {
            tables.is_reserved_port(u16::from_be_bytes(translated.source_port))
                || is_published(tables, &reply)
                || tables.host_socket_takes(&reply)
        }
        _ => is_published(tables, &reply),
    }
}

/// Whether the destination of a tuple is a published port.
#[inline(always)]
fn is_published<T: Tables>(tables: &T, key: &FlowKey) -> bool {
    let on = |address| tables.published(&PublishedKey::port(address, key.protocol, key.destination_port)).is_some();
    on(key.destination) || on([0; 4])
}

/// A keyed mix of the tuple: murmur3's finaliser over its words. Unpredictable to who doesn't know the seed, spread
/// evenly, and cheap without a helper call.
#[inline(always)]
const fn hash(seed: u32, key: &FlowKey, full_cone: u8) -> u32 {
    const fn mix(hash: u32, word: u32) -> u32 {
        let mut mixed = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        mixed ^= mixed >> 13;
        mixed = mixed.wrapping_mul(0xc2b2_ae35);
        mixed ^ mixed >> 16
    }
    const fn ports(source: Port, destination: Port) -> u32 {
        u32::from_ne_bytes([source[0], source[1], destination[0], destination[1]])
    }
    // All ones or none, without a branch: what follows is long, and the verifier would go through it twice.
    let keep = (full_cone as u32).wrapping_sub(1);
    let hash = mix(seed, u32::from_ne_bytes(key.source));
    let hash = mix(hash, u32::from_ne_bytes(key.destination) & keep);
    let hash = mix(hash, ports(key.source_port, [0; 2]));
    let hash = mix(hash, ports([0; 2], key.destination_port) & keep);
    mix(hash, key.protocol as u32)
}
