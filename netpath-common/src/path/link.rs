//! Docker's legacy links (`--link`), which open the exposed ports of one container to another where their network keeps
//! containers apart.
//!
//! As in Docker's rules nothing is remembered of a packet: the one side may send to the port, the other one from it.

use crate::{
    abi::AdmittedKey,
    parse::Headers,
    tables::{Arrival, Tables},
};

/// Whether a link lets a container's packet to a neighbour pass. Asked only where the network lets none, so that nobody else
/// pays for it.
#[inline(never)]
pub(super) fn is_open<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> bool {
    let key = &headers.key;
    let to = AdmittedKey {
        port: key.destination_port,
        protocol: key.protocol,
        side: AdmittedKey::ASKS,
        ..AdmittedKey::address(arrival.ifindex, key.destination)
    };
    tables.admitted(&to).is_some()
        || tables.admitted(&AdmittedKey { port: key.source_port, side: AdmittedKey::ANSWERS, ..to }).is_some()
}
