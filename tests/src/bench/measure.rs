//! What a measure is: a load, in a setting, carried by some, which gives figures. The measures themselves are below.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Result, anyhow};

use super::carrier::{Carrier, Evidence};
use super::figures::{Figure, Sample};
use super::pinned::{Cpus, End, Pace, Window};
use super::programs::Programs;
use super::site::Site;
use super::{PORT, tcp};
use crate::lab::{HOST, LAN};
use crate::server::{any, listener};

mod advice;
mod frames;
mod local;
mod memory;
mod one_cpu;
mod publish;
mod scale;
mod sockets;
mod start;
mod streams;

/// A measure: one load, which gives one figure or more.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What `--only` takes.
    pub name: &'static str,
    /// The load in a few words.
    pub title: &'static str,
    /// What shows who has carried it.
    pub evidence: Evidence,
    /// Who carries it.
    pub carriers: &'static [Carrier],
    /// What a sample's values are, in order.
    pub figures: &'static [Figure],
    /// How much there is of everything.
    pub setting: Setting,
    /// How often it is measured.
    pub effort: Effort,
    /// Takes a sample.
    pub run: fn(&mut Scene<'_>) -> Result<Sample>,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// What grows, for the measures that are lines.
    pub grows: Option<Grows>,
    /// UDP ports published before the sample, besides the container's own; zero is none.
    pub ports: u32,
    /// Ports that the sample itself publishes, or, in equal shares, its containers.
    pub publishes: u32,
    /// Flows of the load.
    pub flows: u32,
    /// Containers besides those of the load.
    pub containers: u32,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grows {
    /// Published ports.
    Ports,
    /// Live flows.
    Flows,
    /// Containers.
    Containers,
}

impl Grows {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ports => "published ports",
            Self::Flows => "live flows",
            Self::Containers => "containers",
        }
    }
}

/// How often something is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// In every round, also of a quick run.
    Always,
    /// In every round of a full run.
    Full,
    /// In three rounds of a full run, and not to warm up: it takes long.
    Seldom,
}

impl Effort {
    /// Whether a round takes it; round zero warms up.
    #[must_use]
    pub fn takes(self, round: usize) -> bool {
        self != Self::Seldom || (1..=3).contains(&round)
    }
}

impl Setting {
    /// One of each.
    pub const PLAIN: Self = Self { grows: None, ports: 0, publishes: 0, flows: 1, containers: 0 };

    /// How far it has grown; zero when nothing does.
    #[must_use]
    pub fn point(&self) -> u32 {
        match self.grows {
            None => 0,
            Some(Grows::Ports) => self.ports,
            Some(Grows::Flows) => self.flows,
            Some(Grows::Containers) => self.containers,
        }
    }
}

impl Measure {
    /// The load in words, with how much there is of what grows.
    #[must_use]
    pub fn label(&self) -> String {
        match self.setting.grows {
            None => self.title.to_owned(),
            Some(grows) => format!("{}, {} {}", self.title, self.setting.point(), grows.name()),
        }
    }
}

/// Every measure.
#[must_use]
pub fn all() -> Vec<Measure> {
    [
        frames::MEASURES,
        sockets::MEASURES,
        streams::MEASURES,
        local::MEASURES,
        one_cpu::MEASURES,
        advice::MEASURES,
        publish::MEASURES,
        memory::MEASURES,
        scale::MEASURES,
        start::MEASURES,
    ]
    .concat()
}

/// The carriers of what the wire sends and the container answers.
const TRANSLATORS_AND_ROUTED: &[Carrier] =
    &[Carrier::Iptables, Carrier::Legacy, Carrier::Nftables, Carrier::Routed, Carrier::Netpath];

/// Where a sample is taken.
pub struct Scene<'run> {
    /// The lab.
    pub site: &'run mut Site,
    /// The eBPF programs of the load.
    pub programs: &'run Mutex<Programs>,
    /// Who carries.
    pub carrier: Carrier,
    /// How much there is of everything.
    pub setting: Setting,
    /// Where the two ends run.
    pub cpus: Cpus,
    /// For how long.
    pub pace: Pace,
}

/// The programs, for this thread alone.
///
/// # Errors
/// When another thread has panicked with them.
pub fn lock(programs: &Mutex<Programs>) -> Result<MutexGuard<'_, Programs>> {
    programs.lock().map_err(|_| anyhow!("a thread panicked while it used the programs"))
}

impl Scene<'_> {
    fn programs(&self) -> Result<MutexGuard<'_, Programs>> {
        lock(self.programs)
    }

    fn window(&self) -> Window {
        Window::soon(self.pace)
    }

    /// The address to which the wire sends what is for the container.
    fn target(&self) -> Result<Ipv4Addr> {
        match self.carrier {
            Carrier::Routed => self.site.address(),
            _ => Ok(HOST),
        }
    }

    fn ends(&self, towards: Towards) -> Result<Ends<'_>> {
        let site = &*self.site;
        let (server, client, address) = match towards {
            Towards::Container => (&*site.container, site.lab.lan(), self.target()?),
            Towards::Neighbour => (site.lab.lan(), &*site.container, LAN),
            Towards::OtherContainer => (&*site.container, &*site.other, site.address()?),
        };
        let Cpus { sender, receiver, priority } = self.cpus;
        Ok(Ends {
            server: End { place: server, cpu: receiver, priority },
            client: End { place: client, cpu: sender, priority },
            target: SocketAddrV4::new(address, PORT),
        })
    }
}

/// Which way a load goes.
#[derive(Debug, Clone, Copy)]
enum Towards {
    /// From the wire to a container.
    Container,
    /// From a container to the wire.
    Neighbour,
    /// From the other container to the first.
    OtherContainer,
}

#[derive(Debug, Clone, Copy)]
struct Ends<'site> {
    server: End<'site>,
    client: End<'site>,
    target: SocketAddrV4,
}

impl Ends<'_> {
    /// Listens before the client starts.
    fn listen(&self) -> Result<TcpListener> {
        self.server.place.enter(|| {
            let listener = listener(any(PORT)).context("listen")?;
            // Long enough for a client whose SYN got lost.
            socket2::SockRef::from(&listener).set_read_timeout(Some(tcp::STALL))?;
            Ok(listener)
        })
    }
}

/// CPU seconds for a million of something.
#[expect(clippy::cast_precision_loss, reason = "counts of two seconds are far below 2^52")]
fn per_million(busy: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { busy * 1e6 / count as f64 }
}
