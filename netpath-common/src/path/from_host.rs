//! What the host itself sends to a container by its bridge, and what took the kernel's way to get there.
//!
//! The frame is complete: the kernel resolved the container's Ethernet address. Only the bridge's look-up is saved.

use super::{HOST_IFINDEX, from_container::is_addressed_to};
use crate::{
    abi::{Endpoint, Mode, PathCount},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    packet::Packet,
    tables::{Arrival, Tables},
    wire::{ethernet, ipv4},
};

/// Carries a packet that leaves by a bridge; what isn't a container's goes on to the bridge. `came_by` is the interface by
/// which the host got it; 0: it is the host's own.
///
/// In takeover Docker's rules have let pass what the kernel forwards. In sole mode nobody has: from other interfaces than the
/// bridge itself nothing gets to a container by its own address but what the packet path carries past the bridge.
#[inline(always)]
pub fn from_host<T: Tables>(packet: &mut impl Packet, tables: &mut T, arrival: &Arrival, came_by: u32) -> Fate {
    let path = PathCount::HostToContainer;
    match receiver(packet, tables, arrival) {
        Some(_) if came_by > HOST_IFINDEX && came_by != arrival.ifindex && is_alone(tables) => {
            Fate::dropped(DropReason::DirectToContainer)
        }
        Some(endpoint) => Fate::forwarded(Verdict { forward: Forward::Out { ifindex: endpoint.ifindex }, path }),
        None => Fate::forwarded(Verdict::kernel(PathCount::ToKernel)),
    }
}

#[inline(always)]
fn is_alone<T: Tables>(tables: &T) -> bool {
    tables.config().mode() == Mode::Sole
}

/// The container that the frame is addressed to, by both its addresses.
#[inline(always)]
fn receiver<T: Tables>(packet: &impl Packet, tables: &T, arrival: &Arrival) -> Option<Endpoint> {
    if packet.read_u16(ethernet::ETHER_TYPE)? != ethernet::IPV4 {
        return None;
    }
    let endpoint = tables.endpoint(packet.read_u32(ethernet::LEN + ipv4::DESTINATION)?)?;
    let is_ours = endpoint.bridge_ifindex == arrival.ifindex && is_addressed_to(packet, &endpoint).ok()?;
    is_ours.then_some(endpoint)
}
