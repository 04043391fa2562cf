//! Who carries the packets: changing it, and proving it of each sample.

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::netpath::Options;
use crate::proof::{self, NatCounters};

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The rules that dockerd wrote; netpath is detached.
    Iptables,
    /// netpath, in takeover mode over the same dockerd.
    Netpath,
}

impl Carrier {
    /// In the order of a round.
    pub const ALL: [Self; 2] = [Self::Iptables, Self::Netpath];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Netpath => "netpath",
        }
    }

    /// Hands the packets to this one, with an empty connection table.
    ///
    /// Without that, connections of an earlier sample would stay with the one that had them, and a new one that happens
    /// to have the same ports would go the old way.
    ///
    /// # Errors
    /// When netpath doesn't attach or detach as it should.
    pub fn take_over(self, lab: &mut Lab) -> Result<()> {
        lab.remove_netpath()?;
        let left = proof::attached(lab.host())?;
        ensure!(left.is_empty(), "programs are left after netpath was detached: {left:?}");
        lab.host().run(&["conntrack", "--flush"])?;
        match self {
            Self::Iptables => Ok(()),
            Self::Netpath => lab.start_netpath(Options::default()),
        }
    }

    /// Looks at the counters before a sample whose packets take `way`.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn watch(self, lab: &mut Lab, way: &'static str) -> Result<Proof> {
        let carried = match self {
            Self::Iptables => 0,
            Self::Netpath => lab.netpath()?.traffic(way)?.packets,
        };
        Ok(Proof { carrier: self, way, nat: NatCounters::read(lab.host())?, carried })
    }
}

/// The counters before a sample.
#[derive(Debug)]
pub struct Proof {
    carrier: Carrier,
    way: &'static str,
    nat: NatCounters,
    carried: u64,
}

impl Proof {
    /// Fails unless the right one has carried what the sample counted, at least `packets`.
    ///
    /// With iptables, netpath isn't even attached, and the NAT rules have counted new connections. With netpath, they
    /// have counted nothing, and netpath has counted all of it.
    ///
    /// # Errors
    /// When it was the wrong one, or a counter can't be read.
    pub fn check(&self, lab: &mut Lab, packets: u64) -> Result<()> {
        ensure!(packets > 0, "the sample has counted nothing");
        match self.carrier {
            Carrier::Iptables => {
                let attached = proof::attached(lab.host())?;
                ensure!(attached.is_empty(), "netpath is attached while iptables is measured: {attached:?}");
                self.nat.expect_moved(lab.host())
            }
            Carrier::Netpath => {
                self.nat.expect_unmoved(lab.host())?;
                let carried = lab.netpath()?.traffic(self.way)?.packets - self.carried;
                ensure!(carried >= packets, "netpath has counted {carried} packets as {}, not {packets}", self.way);
                Ok(())
            }
        }
    }
}
