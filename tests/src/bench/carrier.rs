//! Who carries the packets: changing it, and proving it of each sample.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::tc::SchedClassifierLink;
use netpath_load::counter;

use super::PORT;
use super::programs::Programs;
use super::rules::{Set, translated_by_nftables};
use super::site::{Kind, Site};
use crate::netpath::Options;
use crate::proof::{self, NatCounters};
use crate::wait;

/// How long the kernel may take to let go of programs on a busy machine.
const DETACHED: Duration = Duration::from_secs(5);

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// The rules that dockerd wrote; netpath is detached.
    Iptables,
    /// The same rules in the kernel's older tables.
    Legacy,
    /// What Docker 29 writes for nftables.
    Nftables,
    /// The kernel's routing alone: no rules, no translation. The load goes to the container's own address.
    Routed,
    /// A redirect by port that translates nothing: what no translation can be cheaper than.
    Bare,
    /// netpath, in takeover mode over the same dockerd.
    Netpath,
    /// The same with its XDP program in the driver.
    NetpathXdp,
}

impl Carrier {
    /// In the order of a round.
    pub const ALL: [Self; 7] =
        [Self::Iptables, Self::Legacy, Self::Nftables, Self::Routed, Self::Bare, Self::Netpath, Self::NetpathXdp];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Legacy => "iptables-legacy",
            Self::Nftables => "nftables",
            Self::Routed => "routed",
            Self::Bare => "bare redirect",
            Self::Netpath => "netpath",
            Self::NetpathXdp => "netpath, XDP",
        }
    }

    /// Where it carries them, with or without thousands of published ports.
    #[must_use]
    pub const fn site(self, ports: u32) -> Kind {
        match self {
            Self::Legacy => Kind::Legacy,
            Self::Netpath | Self::NetpathXdp if ports > 0 => Kind::Sole,
            Self::Iptables | Self::Nftables | Self::Routed | Self::Bare | Self::Netpath | Self::NetpathXdp => {
                Kind::Main
            }
        }
    }

    /// Whether it is netpath.
    #[must_use]
    pub const fn is_netpath(self) -> bool {
        matches!(self, Self::Netpath | Self::NetpathXdp)
    }

    const fn rules(self) -> Set {
        match self {
            Self::Iptables | Self::Netpath | Self::NetpathXdp => Set::Docker,
            Self::Legacy => Set::Legacy,
            Self::Nftables => Set::Nftables,
            Self::Routed | Self::Bare => Set::Nothing,
        }
    }

    /// Hands the packets to this one. What must stay for that is returned: dropping it ends it.
    ///
    /// # Errors
    /// When netpath doesn't attach or detach as it should, or the kernel refuses rules.
    pub fn take_over(self, site: &mut Site, programs: &mut Programs) -> Result<Option<SchedClassifierLink>> {
        site.lab.remove_netpath()?;
        // The kernel takes a link away a moment after its last descriptor.
        wait::until("the programs to be gone", DETACHED, || {
            let left = proof::attached(site.lab.host())?;
            ensure!(left.is_empty(), "programs are left after netpath was detached: {left:?}");
            Ok(())
        })?;
        // What an earlier side has left, netpath would take over, and look through for each new flow.
        site.lab.host().run(&["conntrack", "--flush"])?;
        site.rules.set(site.lab.host(), self.rules(), 0)?;
        match self {
            Self::Iptables | Self::Legacy | Self::Nftables | Self::Routed => {}
            Self::Bare => return programs.bare(site.lab.host(), PORT, &site.container).map(Some),
            // "auto" switches XDP off on a veth, where it costs TCP its large packets.
            Self::Netpath => site.lab.start_netpath(Options::new(&["--xdp", "off"]))?,
            Self::NetpathXdp => {
                site.lab.start_netpath(Options::new(&["--xdp", "native"]))?;
                let uplinks = site.lab.netpath()?.status()?.uplinks;
                let native = uplinks.iter().all(|uplink| uplink.xdp_mode.as_deref() == Some("native"));
                ensure!(native, "netpath's XDP program isn't in the driver: {uplinks:?}");
            }
        }
        Ok(None)
    }

    /// Has it publish that many more ports.
    ///
    /// # Errors
    /// When it can't.
    pub fn publish(self, site: &mut Site, ports: u32) -> Result<()> {
        if self.is_netpath() { site.publish(ports) } else { site.rules.set(site.lab.host(), self.rules(), ports) }
    }

    /// Makes it forget every connection: those of an earlier sample would take room, and a new one that happens to have
    /// the same ports would go the old way.
    ///
    /// # Errors
    /// When it can't.
    pub fn forget(self, site: &mut Site) -> Result<()> {
        site.lab.host().run(&["conntrack", "--flush"])?;
        if self.is_netpath() {
            site.lab.netpath()?.expect_code(&["ct", "flush"], 0)?;
        }
        Ok(())
    }

    /// Looks at the counters before a sample.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn watch(self, site: &mut Site, programs: &Programs, evidence: Evidence) -> Result<Proof> {
        let host = site.lab.host();
        let nat = match self {
            Self::Legacy => NatCounters::read_legacy(host)?,
            _ => NatCounters::read(host)?,
        };
        let mut proof = Proof { carrier: self, evidence, nat, carried: 0 };
        proof.carried = proof.carried(site, programs)?;
        Ok(proof)
    }
}

/// What shows who has carried a measure's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// They were translated: rules have counted new connections, or netpath has counted the packets as this way's.
    Translated(&'static str),
    /// They went from container to container, which is no rule's business; netpath has counted them as this way's.
    Way(&'static str),
    /// They got nowhere: only what is attached and which rules are there can be seen.
    Setting,
}

/// The counters before a sample.
#[derive(Debug)]
pub struct Proof {
    carrier: Carrier,
    evidence: Evidence,
    nat: NatCounters,
    carried: u64,
}

impl Proof {
    /// Fails unless the right one has carried what the sample counted, at least `packets`.
    ///
    /// # Errors
    /// When it was the wrong one, or a counter can't be read.
    pub fn check(&self, site: &mut Site, programs: &Programs, packets: u64) -> Result<()> {
        ensure!(packets > 0, "the sample has counted nothing");
        let attached = proof::attached(site.lab.host())?;
        match self.carrier {
            Carrier::Netpath | Carrier::NetpathXdp => {
                ensure!(!attached.is_empty(), "netpath isn't attached");
                if self.evidence != Evidence::Setting {
                    self.nat.expect_unmoved(site.lab.host())?;
                }
            }
            Carrier::Bare => ensure!(attached.len() == 1, "not only the bare redirect is attached: {attached:?}"),
            Carrier::Iptables | Carrier::Legacy | Carrier::Nftables | Carrier::Routed => {
                ensure!(attached.is_empty(), "programs are attached: {attached:?}");
            }
        }
        if matches!(self.carrier, Carrier::Routed | Carrier::Bare) {
            let rules = site.lab.host().run(&["nft", "list", "ruleset"])?;
            ensure!(rules.trim().is_empty(), "there are rules: {rules}");
        }
        if matches!(self.carrier, Carrier::Iptables | Carrier::Legacy)
            && matches!(self.evidence, Evidence::Translated(_))
        {
            self.nat.expect_moved(site.lab.host())?;
        }
        let carried = self.carried(site, programs)? - self.carried;
        let least = match (self.carrier, self.evidence) {
            (Carrier::Netpath | Carrier::NetpathXdp, Evidence::Translated(_) | Evidence::Way(_))
            | (Carrier::Bare, _) => packets,
            // Its rules count the first packet of a connection.
            (Carrier::Nftables, Evidence::Translated(_)) => 1,
            _ => 0,
        };
        ensure!(carried >= least, "{} has counted {carried} packets, not {least}", self.carrier.name());
        Ok(())
    }

    /// What the carrier itself has counted.
    fn carried(&self, site: &mut Site, programs: &Programs) -> Result<u64> {
        match (self.carrier, self.evidence) {
            (Carrier::Netpath | Carrier::NetpathXdp, Evidence::Translated(way) | Evidence::Way(way)) => {
                Ok(site.lab.netpath()?.traffic(way).context("ask netpath")?.packets)
            }
            (Carrier::Nftables, _) => translated_by_nftables(site.lab.host()),
            (Carrier::Bare, _) => programs.count(counter::LED),
            _ => Ok(0),
        }
    }
}
