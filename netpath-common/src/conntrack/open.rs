//! Opening a flow: the reply's key is the reservation, the source port what is searched for.
//!
//! The reply entry is inserted first and only if it isn't there: that one operation makes the mapping unique, whatever other
//! CPUs do at the same time. Uniqueness is on the whole tuple, as in nf_nat, so one port serves
//! many destinations. A clash with a pair that has expired takes its place; when no port is free, so does one with a pair
//! that is expendable and silent.

use super::{
    announce, end,
    evict::{make_room, take_over},
    has_ended, opens, shown,
};
use crate::{
    abi::{Direction, EndReason, Flow, FlowKey, FlowKind, NextHop, PathCount, Refusal, Seen},
    drop::DropReason,
    nat::{
        cone,
        port::{Candidates, ROUNDS_MAX, is_reserved},
    },
    parse::{Headers, Transport},
    tables::{Arrival, InsertError, Tables},
    wire::{checksum::Checksum, protocol},
};

/// Where one direction of a new flow goes, and where it must come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Index of the hop.
    pub hop: u32,
    /// The hop's generation.
    pub hop_generation: u16,
    /// The interface that packets come in by; 0: any.
    pub ingress_ifindex: u32,
}

impl Way {
    /// Nowhere yet.
    const NOWHERE: Self = Self { hop: 0, hop_generation: 0, ingress_ifindex: 0 };
}

/// A flow to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow {
    /// The number of the [`FlowKind`]. No enum: where it comes out of a map, the verifier goes through what follows once
    /// for all kinds.
    pub kind: u8,
    /// Not 0: its port of the host is its container's cone.
    pub full_cone: u8,
    /// The Docker network of its container.
    pub network: u16,
    /// The opening packet's tuple as it should leave; its source port is kept when it is free.
    pub translated: FlowKey,
    /// The way of the opening packet.
    pub original: Way,
    /// The way of the answers.
    pub reply: Way,
    /// The key of a flow that is to make room for it.
    pub victim: FlowKey,
    /// Memory to write an entry in before it is inserted: here, and not on the BPF stack, whose chain is longest there.
    pub entry: Flow,
}

impl NewFlow {
    /// No flow yet.
    pub const EMPTY: Self = Self {
        kind: FlowKind::Masquerade as u8,
        full_cone: 0,
        network: 0,
        translated: FlowKey::EMPTY,
        original: Way::NOWHERE,
        reply: Way::NOWHERE,
        victim: FlowKey::EMPTY,
        entry: Flow::EMPTY,
    };

    /// Makes it a flow of a kind whose packets with this key leave as they are; nothing else is known of it so far. In place, for it
    /// not to lie on the stack meanwhile.
    #[inline(always)]
    pub const fn begin(&mut self, kind: u8, key: &FlowKey) {
        self.kind = kind;
        self.full_cone = 0;
        self.network = 0;
        self.translated = *key;
        self.original = Way::NOWHERE;
        self.reply = Way::NOWHERE;
    }
}

/// Opens a flow for the packet with these headers.
///
/// # Errors
///
/// [`DropReason::PortsExhausted`] when every port that was tried is taken, [`DropReason::FlowTableFull`].
#[inline(never)]
pub fn open<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    new: &mut NewFlow,
    arrival: &Arrival,
) -> Result<(), DropReason> {
    tables.foresee_flow(&headers.key);
    tables.foresee_flow(&new.translated.reversed());
    let mut candidates = Candidates::new(tables.config(), &headers.key, new.full_cone);
    if new.kind == FlowKind::Routed as u8 {
        candidates.keep_port();
    }
    let hash = candidates.hash();
    let mut failure = DropReason::PortsExhausted;
    let mut round = 0;
    while round < ROUNDS_MAX {
        // The flow's own port comes first, whoever holds it: that may be a pair that has ended.
        if round == 0 || candidates.find_free(tables, &mut new.translated, new.full_cone) {
            match try_port(tables, headers, new, arrival) {
                Ok(()) => {
                    note(tables, &headers.key, &new.translated, hash);
                    return Ok(());
                }
                Err(InsertError::Exists) => {}
                Err(InsertError::Full) => {
                    failure = DropReason::FlowTableFull;
                    break;
                }
            }
        }
        round += 1;
    }
    let is_rescued = match failure {
        DropReason::FlowTableFull => make_room(tables, new, hash, arrival.now_ns),
        _ => candidates.may_change() && take_over(tables, &mut candidates, new, arrival.now_ns),
    };
    if !is_rescued {
        return Err(failure);
    }
    if let Some(entry) = tables.flow(&new.victim) {
        end(tables, &new.victim, entry, EndReason::Evicted, arrival.now_ns);
    }
    if try_port(tables, headers, new, arrival).is_err() {
        return Err(failure);
    }
    note(tables, &headers.key, &new.translated, hash);
    Ok(())
}

/// Opens the flow with the source port that it has been given.
#[inline(always)]
fn try_port<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    new: &mut NewFlow,
    arrival: &Arrival,
) -> Result<(), InsertError> {
    let hides_source = new.translated.source != headers.key.source || new.kind == FlowKind::Host as u8;
    if hides_source && is_reserved(tables, &new.translated, arrival.now_ns) {
        return Err(InsertError::Exists);
    }
    reserve(tables, &headers.key, new, arrival.now_ns)?;
    if hides_source && !cone::hold(tables, &headers.key, new, arrival.now_ns) {
        tables.remove_flow(&new.translated.reversed());
        return Err(InsertError::Exists);
    }
    insert_original(tables, headers, new, arrival.now_ns)
}

/// What an opened flow leaves elsewhere. From here on somebody waits for its answers: that such were refused a moment ago, as
/// nobody did, holds no longer. Only answers to one of the host's addresses can have been: those of flows whose source alone
/// is translated.
#[inline(never)]
fn note<T: Tables>(tables: &mut T, key: &FlowKey, translated: &FlowKey, hash: u32) {
    tables.remember_recent(hash, key);
    if key.protocol == protocol::UDP && translated.destination == key.destination {
        let (place, refusal) = Refusal::of(tables.config().port_seed, &translated.reversed(), 0);
        if refusal.is_of_tuple(tables.refusal(place)) {
            tables.set_refusal(place, Refusal(0));
        }
    }
}

/// Inserts the reply entry, in the place of a pair that has ended if one holds the key.
#[inline(never)]
fn reserve<T: Tables>(tables: &mut T, key: &FlowKey, new: &mut NewFlow, now_ns: u64) -> Result<(), InsertError> {
    let reply_key = new.translated.reversed();
    write_entry(&reply_key, &key.reversed(), new, Direction::Reply, now_ns);
    let Err(error) = tables.insert_flow(&reply_key, &new.entry) else { return Ok(()) };
    // Also in a full table: who has the key may make room.
    match tables.flow(&reply_key) {
        Some(holder) if has_ended(tables, holder, reply_key.protocol, now_ns) => {
            end(tables, &reply_key, holder, EndReason::Evicted, now_ns);
            tables.insert_flow(&reply_key, &new.entry)
        }
        Some(_) => Err(InsertError::Exists),
        None => Err(error),
    }
}

/// Inserts the entry of the opening packet's direction; when another CPU has opened the same flow meanwhile, its mapping
/// holds and the reservation is given back.
#[inline(never)]
fn insert_original<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    new: &mut NewFlow,
    now_ns: u64,
) -> Result<(), InsertError> {
    // What the packet shows is noted when it is carried.
    let leaves = new.translated;
    write_entry(&headers.key, &leaves, new, Direction::Original, now_ns);
    match tables.insert_flow(&headers.key, &new.entry) {
        Ok(()) => {
            tables.count(PathCount::FlowsOpened, headers.total_len);
            if tables.is_listened_to(now_ns) {
                announce::began(tables, &headers.key, new, first_shown(headers), now_ns);
            }
            Ok(())
        }
        Err(error) => {
            tables.remove_flow(&new.translated.reversed());
            if error == InsertError::Exists { Ok(()) } else { Err(error) }
        }
    }
}

/// What the packet that opens a flow shows, for who is told of it.
#[inline(always)]
const fn first_shown(headers: &Headers) -> u8 {
    match headers.transport {
        Transport::Tcp { flags } if opens(flags) => Seen::PACKET | Seen::SYN,
        transport => shown(transport),
    }
}

#[inline(always)]
fn write_entry(arrives: &FlowKey, leaves: &FlowKey, new: &mut NewFlow, direction: Direction, now_ns: u64) {
    let NewFlow { kind, network, original, reply, entry, .. } = new;
    let way = match direction {
        Direction::Original => original,
        Direction::Reply => reply,
    };
    entry.last_seen_ns = now_ns;
    entry.source = leaves.source;
    entry.destination = leaves.destination;
    entry.source_port = leaves.source_port;
    entry.destination_port = leaves.destination_port;
    entry.address_delta = Checksum::NONE
        .replace_u32(arrives.source, leaves.source)
        .replace_u32(arrives.destination, leaves.destination)
        .folded();
    entry.port_delta =
        if arrives.source_port == leaves.source_port && arrives.destination_port == leaves.destination_port {
            0
        } else {
            Checksum::NONE
                .replace_u16(arrives.source_port, leaves.source_port)
                .replace_u16(arrives.destination_port, leaves.destination_port)
                .folded()
        };
    entry.hop = way.hop;
    entry.hop_generation = way.hop_generation;
    entry.seen = 0;
    entry.role = Flow::pack_role_number(direction, *kind);
    entry.ingress_ifindex = way.ingress_ifindex;
    entry.network = *network;
    entry.next_hop = NextHop::Asked as u8;
    entry.reserved = 0;
    entry.sequence_end = 0;
    entry.acknowledged = 0;
}
