//! The benchmark: netpath against Docker's iptables on one lab, in one run, by turns.
//!
//! The load comes from pinned threads of this process, with their sockets in the namespaces of the neighbour and of a
//! container; see [`udp`] and [`tcp`]. Every sample proves who carried it; see [`carrier`]. What it isn't: a profile of
//! where the time goes, or a comparison of machines.

pub mod carrier;
pub mod figures;
pub mod machine;
pub mod measure;
pub mod pinned;
pub mod quiet;
pub mod report;
pub mod tcp;
pub mod udp;

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use netpath_common::abi::Mode;

use self::carrier::Carrier;
use self::figures::{Sample, Samples};
use self::machine::Machine;
use self::measure::Measure;
use self::pinned::Cpus;
use self::quiet::{Meter, Patience};
use crate::container::Container;
use crate::lab::{Dataplane, Lab};
use crate::netns::Place;
use crate::netpath::Uplink;

/// The published port of every server in the container, TCP and UDP.
pub const PORT: u16 = 7000;

/// A lab with one container, ready to be measured.
#[derive(Debug)]
pub struct Bench {
    container: Rc<Place>,
    // Before the lab, whose dockerd removes it.
    _container: Container,
    lab: Lab,
    cpus: Cpus,
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
}

impl Bench {
    /// Builds the lab. `peer` is the program for the image, `binary` the netpath to measure.
    ///
    /// # Errors
    /// When a tool is missing or anything can't be made.
    pub fn create(binary: &Path, peer: &Path) -> Result<Self> {
        let lab = Lab::create(Mode::Takeover, Dataplane::Netpath(binary.to_owned()), peer)?;
        // One client opens tens of thousands of connections in a row: let it use many ports, though not
        // [`PORT`], and again after a second.
        lab.lan().sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
        lab.lan().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let request = lab.docker().idle();
        let container = request.publish(&format!("{PORT}:{PORT}")).publish(&format!("{PORT}:{PORT}/udp")).start()?;
        let place = container.place()?;
        Ok(Self { container: place, _container: container, lab, cpus: Cpus::choose()? })
    }

    /// The neighbour on the wire.
    #[must_use]
    pub fn lan(&self) -> &Place {
        self.lab.lan()
    }

    /// The container's namespace.
    #[must_use]
    pub fn container(&self) -> &Place {
        &self.container
    }

    /// Where the two ends run.
    #[must_use]
    pub fn cpus(&self) -> Cpus {
        self.cpus
    }

    /// Measures: one round that doesn't count, then as many as asked for. In each, first Docker's iptables and then
    /// netpath carry all the measures.
    ///
    /// # Errors
    /// When a sample fails or was carried by the wrong one.
    pub fn run(&mut self, measures: &[Measure], rounds: usize, mut patience: Patience) -> Result<Outcome> {
        let mut machine = Machine::read(&self.lab)?;
        let mut samples = Samples::default();
        let mut uplinks = Vec::new();
        for round in 0..=rounds {
            for carrier in Carrier::ALL {
                carrier.take_over(&mut self.lab).with_context(|| format!("let {} carry", carrier.name()))?;
                if carrier == Carrier::Netpath {
                    uplinks = self.lab.netpath()?.status()?.uplinks;
                }
                for measure in measures {
                    let label = if round == 0 { "warm-up".to_owned() } else { format!("round {round}/{rounds}") };
                    eprint!("\r\x1b[K{label}: {} by {}", measure.name, carrier.name());
                    let sample = self
                        .sample(measure, carrier, &mut patience)
                        .with_context(|| format!("{label}: {} by {}", measure.name, carrier.name()))?;
                    if round > 0 {
                        samples.add(measure, carrier, round, sample);
                    }
                }
            }
        }
        eprintln!("\r\x1b[K{rounds} rounds done");
        machine.load_after = machine::load()?;
        Ok(Outcome { machine, uplinks, samples })
    }

    fn sample(&mut self, measure: &Measure, carrier: Carrier, patience: &mut Patience) -> Result<Sample> {
        patience.renew();
        loop {
            patience.wait()?;
            let proof = carrier.watch(&mut self.lab, measure.way)?;
            let meter = Meter::start()?;
            let mut sample = (measure.run)(self)?;
            sample.others = meter.others()?;
            proof.check(&mut self.lab, sample.packets)?;
            if patience.accepts(sample.others) {
                return Ok(sample);
            }
            patience.spend(meter.elapsed());
        }
    }
}
