//! Which published port a packet asks for, wherever it comes from.

use crate::{
    abi::{Address, PublishedKey},
    parse::{Headers, Transport},
    tables::{Published, Tables},
};

/// The published port that the packet asks for: on exactly this address, or on each of the host's.
#[inline(always)]
pub(super) fn published<T: Tables>(tables: &T, headers: &Headers) -> Option<Published> {
    if !matches!(headers.transport, Transport::Tcp { .. } | Transport::Udp | Transport::Sctp) {
        return None;
    }
    let key = &headers.key;
    if key.destination == [0; 4] {
        // "This host" (RFC 791, section 3.2); in the map it stands for all addresses.
        return None;
    }
    if let Some(published) = published_on(tables, headers, key.destination) {
        return Some(published);
    }
    let published = published_on(tables, headers, [0; 4])?;
    tables.is_host_address(key.destination).then_some(published)
}

/// The packet's destination port as it is published on an address; of a network whose containers are reached by their own,
/// that may be the container's.
#[inline(always)]
pub(super) fn published_on<T: Tables>(tables: &T, headers: &Headers, address: Address) -> Option<Published> {
    let key = &headers.key;
    let block = tables.published(&PublishedKey::port(address, key.protocol, key.destination_port))?;
    Some(Published::of(block, key.destination_port))
}

/// Whether the packet can be translated to the container's port: SCTP's checksum covers the ports.
#[inline(always)]
pub(super) fn is_translatable(headers: &Headers, published: &Published) -> bool {
    headers.transport != Transport::Sctp || published.port == headers.key.destination_port
}
