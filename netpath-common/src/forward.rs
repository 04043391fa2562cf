//! 5. Forward: where a packet goes next, as a value.

use crate::{
    abi::{Hop, HopKind, PathCount},
    drop::DropReason,
    packet::Packet,
    wire::ethernet,
};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Forward {
    /// Up the kernel's own way, unchanged.
    Kernel,
    /// Into the network namespace behind this veth, as if it had arrived there.
    IntoContainer {
        /// The host side of the veth.
        ifindex: u32,
    },
    /// Out of this uplink; the kernel's routes and neighbours give the Ethernet header.
    OutOfUplink {
        /// The uplink.
        ifindex: u32,
    },
    /// Out of this interface as it is, Ethernet header included.
    Out {
        /// The interface.
        ifindex: u32,
    },
}

/// A packet's fate: where it goes and how it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Where it goes.
    pub forward: Forward,
    /// How it is counted.
    pub path: PathCount,
}

impl Verdict {
    /// Leaves the packet to the kernel.
    #[inline(always)]
    pub const fn kernel(path: PathCount) -> Self {
        Self { forward: Forward::Kernel, path }
    }
}

/// Writes the Ethernet header that the hop needs and says where the packet goes. Comes before the transport checksum,
/// which may move the packet.
///
/// # Errors
///
/// [`DropReason::HopGone`] for a free slot, [`DropReason::RewriteFailed`] when the header can't be written.
#[inline(always)]
pub fn towards(packet: &mut impl Packet, hop: &Hop) -> Result<Forward, DropReason> {
    if hop.kind == HopKind::Endpoint as u8 {
        packet.write_words(ethernet::DESTINATION, hop.addresses)?;
        return Ok(Forward::IntoContainer { ifindex: hop.ifindex });
    }
    if hop.kind == HopKind::Uplink as u8 {
        return Ok(Forward::OutOfUplink { ifindex: hop.ifindex });
    }
    Err(DropReason::HopGone)
}
