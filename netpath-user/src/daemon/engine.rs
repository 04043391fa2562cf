//! What the daemon needs of the dataplane beyond applying changes; a seam for tests without a kernel.

use std::net::Ipv4Addr;

use netpath_common::abi::Rate;
use nix::net::if_::if_indextoname;

use super::closed_ports::LEASE;
use crate::{
    dataplane::{AttachmentReport, Dataplane, Expedited, HandoverFlow, Kernel, Pins, PinsError},
    desired::model::IfIndex,
    ethtool,
    kernel_conntrack::{self, Connection},
    report::HostAccessStatus,
};

/// A dataplane with flows, and the kernel's own connection tracking beside it.
pub(super) trait Engine: Dataplane {
    /// Whether netpath opens flows already.
    fn opens_flows(&self) -> bool;
    /// What nf_conntrack holds.
    fn connections(&self) -> anyhow::Result<Vec<Connection>>;
    /// Leaves flows with nf_conntrack until they end.
    fn hand_over(&mut self, flows: &[HandoverFlow]) -> anyhow::Result<()>;
    /// From here on netpath opens flows.
    fn begin_opening_flows(&mut self) -> anyhow::Result<()>;
    /// Ends the flows that the policy in force denies, and gives how many there were.
    fn end_denied(&mut self) -> anyhow::Result<u64>;
    /// Ends the host's own connections to an address that is nobody's any more.
    fn end_connections(&mut self, address: Ipv4Addr);
    /// For some seconds from now, datagrams to closed ports are dropped, but for so many: of one sender, and of all on a CPU.
    /// `None`: from here on all of them are the kernel's.
    fn drop_closed_ports(&mut self, but_for: Option<(Rate, Rate)>) -> anyhow::Result<()>;
    /// Makes so many attachments quick for as long as the answer lives.
    fn hurry(&self, attachments: usize) -> Option<Expedited>;
    /// What is attached, and how.
    fn attachments(&self) -> Vec<AttachmentReport>;
    /// The host's own way to published ports.
    fn host_access(&self) -> HostAccessStatus;
    /// Whether an interface has a carrier; asking has the kernel act on one that just came.
    fn has_carrier(&self, ifindex: IfIndex) -> bool;
}

impl Engine for Kernel {
    fn opens_flows(&self) -> bool {
        !self.is_fresh()
    }

    fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        kernel_conntrack::dump()
    }

    fn hand_over(&mut self, flows: &[HandoverFlow]) -> anyhow::Result<()> {
        self.add_handover(flows)
    }

    fn begin_opening_flows(&mut self) -> anyhow::Result<()> {
        Self::begin_opening_flows(self)
    }

    fn end_denied(&mut self) -> anyhow::Result<u64> {
        Self::end_denied(self)
    }

    fn end_connections(&mut self, address: Ipv4Addr) {
        Self::end_connections(self, address);
    }

    fn drop_closed_ports(&mut self, but_for: Option<(Rate, Rate)>) -> anyhow::Result<()> {
        self.write_closed_ports(but_for, LEASE)
    }

    fn hurry(&self, attachments: usize) -> Option<Expedited> {
        Self::hurry(self, attachments)
    }

    fn attachments(&self) -> Vec<AttachmentReport> {
        Self::attachments(self)
    }

    fn host_access(&self) -> HostAccessStatus {
        Self::host_access(self).clone()
    }

    fn has_carrier(&self, ifindex: IfIndex) -> bool {
        // An interface that is gone has none, and is soon no endpoint's any more.
        if_indextoname(ifindex).is_ok_and(|name| ethtool::has_carrier(&name.to_string_lossy()).unwrap_or(false))
    }
}

/// Whether the pins below a directory have been removed by somebody else.
pub(super) fn pins_are_gone(pin_dir: &std::path::Path) -> bool {
    matches!(Pins::open(pin_dir), Err(PinsError::Absent(_)))
}
