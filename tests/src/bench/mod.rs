//! The benchmark: netpath against Docker's iptables and its other peers, on the same labs, in one run, by turns.
//!
//! The load comes from pinned threads of this process, with their sockets in the namespaces of the neighbour and of a
//! container ([`udp`], [`tcp`]), and from an eBPF generator ([`programs`]). Every sample proves who carried it
//! ([`carrier`]). What it isn't: a profile of where the time goes, or a comparison of machines.

pub mod busy;
pub mod carrier;
pub mod figures;
pub mod gate;
pub mod machine;
pub mod measure;
pub mod pinned;
pub mod plan;
pub mod plot;
pub mod programs;
pub mod quiet;
pub mod report;
pub mod rules;
pub mod site;
pub mod tcp;
pub mod tuned;
pub mod udp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use aya::programs::tc::SchedClassifierLink;
use indicatif::{ProgressBar, ProgressStyle};

use self::carrier::Carrier;
use self::figures::{Sample, Samples};
use self::machine::Machine;
use self::measure::{Measure, Scene, lock};
use self::pinned::{Cpus, Pace, Priority};
use self::plan::Plan;
use self::programs::Programs;
use self::quiet::{Meter, Patience};
use self::site::{Kind, Site};
use crate::report::Uplink;

/// The published port of every server in the container, TCP and UDP.
pub const PORT: u16 = 7000;

/// Labs, ready to be measured.
pub struct Bench {
    // Before the sites: a program that is attached there goes first.
    turn: Option<Turn>,
    sites: BTreeMap<Kind, Site>,
    programs: Mutex<Programs>,
    cpus: Cpus,
    pace: Pace,
    binary: PathBuf,
    peer: PathBuf,
}

/// Who carries at present.
struct Turn {
    carrier: Carrier,
    site: Kind,
    _attached: Option<SchedClassifierLink>,
}

/// What a run has brought.
#[derive(Debug)]
pub struct Outcome {
    /// Who and where.
    pub machine: Machine,
    /// The uplink's hooks while netpath carried.
    pub uplinks: Vec<Uplink>,
    /// Every counted sample.
    pub samples: Samples,
    /// The samples that couldn't be taken, each with the reason.
    pub failed: Vec<String>,
}

impl Bench {
    /// Prepares one. `peer` is the program for the image, `binary` the netpath to measure.
    ///
    /// # Errors
    /// When the kernel refuses the load's programs.
    pub fn create(binary: &Path, peer: &Path, priority: Priority, pace: Pace) -> Result<Self> {
        Ok(Self {
            turn: None,
            sites: BTreeMap::new(),
            programs: Mutex::new(Programs::load()?),
            cpus: Cpus::choose(priority)?,
            pace,
            binary: binary.to_owned(),
            peer: peer.to_owned(),
        })
    }

    /// Measures what is planned, in its order, and hands what there is to `save` after each round that counts. A sample that
    /// can't be taken, or was carried by the wrong one, is left out and named.
    ///
    /// # Errors
    /// When a lab can't be built, or `save` fails.
    pub fn run(
        &mut self,
        plan: &Plan,
        mut patience: Patience,
        save: impl Fn(&Outcome) -> Result<()>,
    ) -> Result<Outcome> {
        for kind in plan.sites() {
            self.sites.insert(kind, Site::create(kind, &self.binary, &self.peer).context("build a lab")?);
        }
        let machine = Machine::read(&self.binary)?;
        let mut outcome = Outcome { machine, uplinks: Vec::new(), samples: Samples::default(), failed: Vec::new() };
        let steps = plan.steps();
        let bar = ProgressBar::new(steps.len() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}, {eta} left  {msg}")?);
        for (index, step) in steps.iter().enumerate() {
            let label = step.label();
            bar.set_message(label.clone());
            if bar.is_hidden() {
                // No terminal: a log shall still show how far it is.
                eprintln!("{label}");
            }
            match self.insist(&step.measure, step.carrier, &mut patience) {
                Ok(sample) if step.round > 0 => outcome.samples.add(&step.measure, step.carrier, step.round, sample),
                Ok(_) => {}
                Err(error) => {
                    outcome.failed.push(format!("{label}: {error:#}"));
                    self.begin_anew()?;
                }
            }
            if step.carrier == Carrier::Netpath && outcome.uplinks.is_empty() {
                outcome.uplinks = self.uplinks(&step.measure);
            }
            bar.inc(1);
            let is_last = steps.get(index + 1).is_none_or(|next| next.round != step.round);
            if step.round > 0 && is_last {
                outcome.machine.load_after = machine::load()?;
                save(&outcome)?;
            }
        }
        bar.finish_and_clear();
        Ok(outcome)
    }

    /// The uplink's hooks, if netpath answers.
    fn uplinks(&mut self, measure: &Measure) -> Vec<Uplink> {
        let site = self.site(Carrier::Netpath, measure).ok();
        let status = site.and_then(|site| site.lab.netpath().ok()?.status().ok());
        status.map_or_else(Vec::new, |status| status.uplinks)
    }

    /// Nobody carries any more: after a failure nobody knows who does.
    fn begin_anew(&mut self) -> Result<()> {
        self.turn = None;
        for site in self.sites.values_mut() {
            site.lab.remove_netpath()?;
            site.publish(0)?;
        }
        Ok(())
    }

    fn site(&mut self, carrier: Carrier, measure: &Measure) -> Result<&mut Site> {
        let kind = carrier.site(measure.setting.ports.max(measure.setting.publishes));
        self.sites.get_mut(&kind).with_context(|| format!("the lab {kind:?} isn't there"))
    }

    /// Takes a sample, and says when it fails and is taken again: one connection that nobody answers must not end a run of
    /// an hour.
    fn insist(&mut self, measure: &Measure, carrier: Carrier, patience: &mut Patience) -> Result<Sample> {
        const AGAIN: usize = 2;
        for _ in 0..AGAIN {
            match self.step(measure, carrier, patience) {
                Ok(sample) => return Ok(sample),
                Err(error) => eprintln!("{} by {}, once more: {error:#}", measure.name, carrier.name()),
            }
        }
        self.step(measure, carrier, patience)
    }

    /// Lets the right one carry, and takes a sample.
    fn step(&mut self, measure: &Measure, carrier: Carrier, patience: &mut Patience) -> Result<Sample> {
        let kind = carrier.site(measure.setting.ports.max(measure.setting.publishes));
        if self.turn.as_ref().is_none_or(|turn| (turn.carrier, turn.site) != (carrier, kind)) {
            self.change(carrier, kind)?;
        }
        let setting = measure.setting;
        let site = self.site(carrier, measure)?;
        site.crowd(setting.containers, setting.publishes)?;
        carrier.publish(site, setting.ports)?;
        self.sample(measure, carrier, patience)
    }

    fn change(&mut self, carrier: Carrier, kind: Kind) -> Result<()> {
        if let Some(Turn { site, .. }) = self.turn.take() {
            // Nothing of netpath is left anywhere while another one is measured.
            let site = self.sites.get_mut(&site).context("the lab of the turn before isn't there")?;
            site.lab.remove_netpath()?;
            site.publish(0)?;
        }
        let site = self.sites.get_mut(&kind).context("the lab isn't there")?;
        let attached = carrier
            .take_over(site, &mut *lock(&self.programs)?)
            .with_context(|| format!("let {} carry", carrier.name()))?;
        self.turn = Some(Turn { carrier, site: kind, _attached: attached });
        Ok(())
    }

    fn sample(&mut self, measure: &Measure, carrier: Carrier, patience: &mut Patience) -> Result<Sample> {
        let (programs, cpus, pace, setting) = (&self.programs, self.cpus, self.pace, measure.setting);
        let kind = carrier.site(setting.ports.max(setting.publishes));
        let site = self.sites.get_mut(&kind).context("the lab isn't there")?;
        patience.renew();
        loop {
            patience.wait()?;
            carrier.forget(site)?;
            let proof = carrier.watch(site, &*lock(programs)?, measure.evidence)?;
            let meter = Meter::start()?;
            let mut sample = (measure.run)(&mut Scene { site, programs, carrier, setting, cpus, pace })?;
            sample.others = meter.others()?;
            proof.check(site, &*lock(programs)?, sample.packets)?;
            if patience.accepts(sample.others) {
                return Ok(sample);
            }
            patience.spend(meter.elapsed());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.turn = None;
        for site in self.sites.values_mut() {
            // dockerd is about to remove its rules.
            let restored = site.rules.set(site.lab.host(), rules::Set::Docker, 0);
            if let Err(error) = restored {
                eprintln!("dockerd's rules aren't back: {error:#}");
            }
        }
    }
}
