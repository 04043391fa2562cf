//! What is decided before the kernel spends a buffer on a frame: malformed ones, those that address a container
//! without having been let in, and those with a loopback address.

use super::is_loopback;
use crate::{
    abi::Terms,
    drop::DropReason,
    packet::Packet,
    parse::{Headers, NetworkLayer, parse},
    tables::Tables,
};

/// Looks at a frame that came in by an uplink; it goes on unchanged. Gives what it carries, and of IPv4 the headers in
/// `headers`.
///
/// # Errors
///
/// The reason for which the frame must be dropped.
#[inline(always)]
pub fn early<T: Tables>(packet: &impl Packet, tables: &T, headers: &mut Headers) -> Result<NetworkLayer, DropReason> {
    let layer = read(packet, headers)?;
    if layer == NetworkLayer::Ipv4 {
        is_for_host(tables, headers)?;
    }
    Ok(layer)
}

/// The part of [`early`] that needs nothing but the frame.
///
/// # Errors
///
/// As [`early`].
#[inline(always)]
pub fn read(packet: &impl Packet, headers: &mut Headers) -> Result<NetworkLayer, DropReason> {
    let layer = parse(packet, headers)?;
    if layer == NetworkLayer::Ipv4 && (is_loopback(headers.key.source) || is_loopback(headers.key.destination)) {
        return Err(DropReason::LoopbackFromWire);
    }
    Ok(layer)
}

/// The other part of [`early`], which looks the destination up.
///
/// # Errors
///
/// As [`early`].
#[inline(always)]
pub fn is_for_host<T: Tables>(tables: &T, headers: &Headers) -> Result<(), DropReason> {
    match tables.endpoint(headers.key.destination) {
        // With a flow, or by what its network says, it may be let in after all; that is tc's to decide.
        Some(endpoint) if endpoint.terms & Terms::UNTRANSLATED == 0 => Err(DropReason::DirectToContainer),
        _ => Ok(()),
    }
}
