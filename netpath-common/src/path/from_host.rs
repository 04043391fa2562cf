//! What the host itself sends to a container by its bridge, and what took the kernel's way to get there.
//!
//! The frame is complete: the kernel resolved the container's Ethernet address. Only the bridge's look-up is saved.

use super::from_container::is_addressed_to;
use crate::{
    abi::PathCount,
    drop::DropReason,
    forward::{Forward, Verdict},
    packet::Packet,
    tables::{Arrival, Tables},
    wire::{ethernet, ipv4},
};

/// Carries a packet that leaves by a bridge.
///
/// # Errors
///
/// None so far: what isn't a container's goes on to the bridge.
#[inline(always)]
pub fn from_host<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    arrival: &Arrival,
) -> Result<Verdict, DropReason> {
    let kernel = Ok(Verdict::kernel(PathCount::ToKernel));
    if packet.read_u16(ethernet::ETHER_TYPE) != Some(ethernet::IPV4) {
        return kernel;
    }
    let Some(destination) = packet.read_u32(ethernet::LEN + ipv4::DESTINATION) else { return kernel };
    let Some(endpoint) = tables.endpoint(destination) else { return kernel };
    if endpoint.bridge_ifindex != arrival.ifindex || !is_addressed_to(packet, &endpoint)? {
        return kernel;
    }
    Ok(Verdict { forward: Forward::Out { ifindex: endpoint.ifindex }, path: PathCount::HostToContainer })
}
