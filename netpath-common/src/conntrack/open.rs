//! Opening a flow: the reply's key is the reservation, the source port what is searched for.
//!
//! The reply entry is inserted first and only if it isn't there (`BPF_NOEXIST`): that one operation makes the mapping
//! unique, whatever other CPUs do at the same time. Uniqueness is on the whole tuple, as in nf_nat, so one port serves
//! many destinations. A clash with a pair that has expired takes its place.

use super::{end, is_pair_expired, shown};
use crate::{
    abi::{Direction, Flow, FlowKey, FlowKind, PathCount},
    conntrack,
    drop::DropReason,
    nat::port::{Candidates, is_reserved},
    parse::Headers,
    tables::{Arrival, InsertError, Tables},
    wire::checksum::Checksum,
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

/// A flow to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow {
    /// What netpath does for it.
    pub kind: FlowKind,
    /// The Docker network of its container.
    pub network: u16,
    /// The opening packet's tuple as it should leave; its source port is kept when it is free.
    pub translated: FlowKey,
    /// The way of the opening packet.
    pub original: Way,
    /// The way of the answers.
    pub reply: Way,
}

/// Opens a flow for the packet with these headers and gives the entry of its direction.
///
/// # Errors
///
/// [`DropReason::PortsExhausted`] when every port that was tried is taken, [`DropReason::FlowTableFull`].
#[inline(never)]
pub fn open<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    new: &NewFlow,
    arrival: Arrival,
) -> Result<Flow, DropReason> {
    let key = headers.key;
    let mut candidates = Candidates::new(tables.config(), &new.translated);
    while let Some(port) = candidates.next() {
        let mut translated = new.translated;
        candidates.place(&mut translated, port);
        if is_reserved(tables, new.kind, &translated, arrival.now_ns) {
            continue;
        }
        let original = original_entry(&key, &translated, new, headers, arrival);
        match reserve(tables, &key, &translated, new, arrival) {
            Ok(()) => return insert_original(tables, &key, &translated, &original, headers.total_len),
            Err(InsertError::Exists) => {}
            Err(InsertError::Full) => return Err(DropReason::FlowTableFull),
        }
    }
    Err(DropReason::PortsExhausted)
}

/// Inserts the reply entry, in the place of an expired pair if one holds the key.
#[inline(always)]
fn reserve<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    translated: &FlowKey,
    new: &NewFlow,
    arrival: Arrival,
) -> Result<(), InsertError> {
    let reply_key = translated.reversed();
    let reply = reply_entry(key, translated, new, arrival);
    let result = tables.insert_flow(&reply_key, &reply);
    if result != Err(InsertError::Exists) {
        return result;
    }
    let Some(holder) = tables.flow(&reply_key) else { return result };
    let holder = tables.load(holder);
    let ended = match tables.hop(holder.hop) {
        Some(hop) => hop.generation != holder.hop_generation,
        None => true,
    };
    if !ended && !is_pair_expired(tables, &holder, reply_key.protocol, arrival.now_ns) {
        return result;
    }
    end(tables, &reply_key, &holder);
    tables.insert_flow(&reply_key, &reply)
}

/// Inserts the entry of the opening packet's direction; when another CPU has opened the same flow meanwhile, its mapping
/// holds and the reservation is given back.
#[inline(always)]
fn insert_original<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    translated: &FlowKey,
    original: &Flow,
    bytes: u32,
) -> Result<Flow, DropReason> {
    match tables.insert_flow(key, original) {
        Ok(()) => {
            tables.count(PathCount::FlowsOpened, bytes);
            Ok(*original)
        }
        Err(error) => {
            tables.remove_flow(&translated.reversed());
            match (error, tables.flow(key)) {
                (InsertError::Exists, Some(winner)) => Ok(tables.load(winner)),
                _ => Err(DropReason::FlowTableFull),
            }
        }
    }
}

#[inline(always)]
fn original_entry(
    key: &FlowKey,
    translated: &FlowKey,
    new: &NewFlow,
    headers: &Headers,
    arrival: Arrival,
) -> Flow {
    entry(key, translated, new, Direction::Original, shown(headers.transport), arrival)
}

#[inline(always)]
fn reply_entry(key: &FlowKey, translated: &FlowKey, new: &NewFlow, arrival: Arrival) -> Flow {
    entry(&translated.reversed(), &key.reversed(), new, Direction::Reply, 0, arrival)
}

#[inline(always)]
fn entry(
    arrives: &FlowKey,
    leaves: &FlowKey,
    new: &NewFlow,
    direction: Direction,
    seen: u8,
    arrival: Arrival,
) -> Flow {
    let way = match direction {
        Direction::Original => &new.original,
        Direction::Reply => &new.reply,
    };
    Flow {
        last_seen_ns: arrival.now_ns,
        source: leaves.source,
        destination: leaves.destination,
        source_port: leaves.source_port,
        destination_port: leaves.destination_port,
        address_delta: Checksum::NONE
            .replace_u32(arrives.source, leaves.source)
            .replace_u32(arrives.destination, leaves.destination)
            .folded(),
        port_delta: if arrives.source_port == leaves.source_port && arrives.destination_port == leaves.destination_port
        {
            0
        } else {
            Checksum::NONE
                .replace_u16(arrives.source_port, leaves.source_port)
                .replace_u16(arrives.destination_port, leaves.destination_port)
                .folded()
        },
        hop: way.hop,
        hop_generation: way.hop_generation,
        seen,
        role: Flow::pack_role(direction, new.kind),
        ingress_ifindex: way.ingress_ifindex,
        network: new.network,
        reserved: 0,
    }
}

const _: () = assert!(conntrack::TOUCH_INTERVAL_NS < conntrack::FRESH_NS, "a live flow is always fresh");
