//! The benchmark's own eBPF programs in the kernel: a generator of UDP frames, a counting sink, a bare redirect.
//!
//! The generator sends without a system call per packet (`BPF_PROG_TEST_RUN` with live frames): what a sample costs is
//! then the packet path and little else. Nothing of netpath is in these programs, nor they in netpath; see `tests/load`.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, include_bytes_aligned};
use netpath_load::{FLOWS_PER_SOURCE, FRAME_LEN, Load, Target, counter, load};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::pinned::{Cpus, Interrupt, Window};
use crate::netns::Place;

/// The sources of generated flows: the network of benchmarks (RFC 2544).
const SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// As many flows as [`SOURCES`], a /15, has room for.
const FLOWS_MAX: u32 = (1 << 16) * FLOWS_PER_SOURCE;

/// Frames that the kernel handles at once: its default.
const BATCH: u32 = 64;

/// How often the counters are looked at while a number of frames is made.
const GLANCE: Duration = Duration::from_micros(500);

/// How soon the generator starts: the kernel waits for all CPUs first.
const START: Duration = Duration::from_secs(10);

/// An interface as frames name it.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    index: u32,
    peer: u32,
    address: [u8; 6],
}

impl Port {
    /// The interface `eth0` of a namespace.
    ///
    /// # Errors
    /// When there is none.
    pub fn eth0(place: &Place) -> Result<Self> {
        let text = place.run(&["ip", "-json", "link", "show", "eth0"])?;
        let links: Value = serde_json::from_str(&text).with_context(|| format!("read {text:?}"))?;
        let address = links[0]["address"].as_str().context("eth0 has no Ethernet address")?;
        let mut bytes = [0; 6];
        for (byte, digits) in bytes.iter_mut().zip(address.split(':')) {
            *byte = u8::from_str_radix(digits, 16).with_context(|| format!("read the Ethernet address {address}"))?;
        }
        let index = place.enter(|| if_nametoindex("eth0").context("find eth0"))?;
        let peer = links[0]["link_index"].as_u64().unwrap_or_default();
        Ok(Self { index, peer: u32::try_from(peer)?, address: bytes })
    }

    fn words(&self) -> [u32; 2] {
        let [a, b, c, d, e, f] = self.address;
        [u32::from_be_bytes([0, 0, a, b]), u32::from_be_bytes([c, d, e, f])]
    }
}

/// What the generator makes.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// The neighbour's interface.
    pub from: Port,
    /// The host's.
    pub to: Port,
    /// The address to which all is sent.
    pub destination: Ipv4Addr,
    /// The first port.
    pub port: u16,
    /// How many ports in a row, one after the other.
    pub ports: u32,
    /// The number of the first flow; see [`fresh_flows`].
    pub flow: u32,
    /// How many flows, one after the other.
    pub flows: u32,
}

impl Flood {
    fn load(&self) -> Load {
        let mut words = [0; load::WORDS];
        words[load::INTERFACE] = self.from.index;
        [words[load::TO_HIGH], words[load::TO_LOW]] = self.to.words();
        [words[load::FROM_HIGH], words[load::FROM_LOW]] = self.from.words();
        words[load::DESTINATION] = self.destination.to_bits();
        words[load::PORT] = self.port.into();
        words[load::PORTS] = self.ports.max(1);
        words[load::SOURCE] = SOURCES.to_bits();
        words[load::FLOW] = self.flow;
        words[load::FLOWS] = self.flows.max(1);
        words
    }
}

/// Numbers of flows that no earlier sample has used: a flow of one is never mistaken for a flow of another.
#[must_use]
pub fn fresh_flows(count: u32) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    // By then the first ones have long been forgotten.
    first % FLOWS_MAX
}

/// When a flood ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// When the window is over.
    Over,
    /// When so many frames are made, or the window is over.
    Made(u32),
}

/// What became of a flood while it counted.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// Frames sent.
    pub sent: u64,
    /// Packets that reached the sink.
    pub sunk: u64,
    /// The time it took.
    pub time: Duration,
    /// CPU seconds of the whole machine in that time.
    pub busy: f64,
}

/// The sink of a container, until it is dropped.
pub struct Sink {
    _tc: SchedClassifierLink,
    _xdp: Option<XdpLink>,
}

/// The programs, loaded.
pub struct Programs {
    ebpf: Ebpf,
    load: Array<MapData, Load>,
    counters: PerCpuArray<MapData, u64>,
    targets: HashMap<MapData, u32, Target>,
}

impl Programs {
    /// Loads them.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netpath-load")))
            .context("load the benchmark's eBPF object")?;
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("the object has no map {name}"));
        let (load, counters, targets) = (map("LOAD")?, map("COUNTERS")?, map("TARGETS")?);
        let generator: &mut Xdp = ebpf.program_mut("generate").context("no program generate")?.try_into()?;
        generator.load().context("load the generator")?;
        for name in ["sink_at_xdp", "refuse"] {
            at_xdp(&mut ebpf, name)?.load().with_context(|| format!("load the program {name}"))?;
        }
        for name in ["sink", "bare"] {
            classifier(&mut ebpf, name)?.load().with_context(|| format!("load the program {name}"))?;
        }
        let (load, counters, targets) = (load.try_into()?, counters.try_into()?, targets.try_into()?);
        Ok(Self { ebpf, load, counters, targets })
    }

    /// Counts and drops the UDP packets that reach a container, at tc.
    ///
    /// # Errors
    /// When the program can't be attached.
    pub fn sink(&mut self, container: &Place) -> Result<Sink> {
        Ok(Sink { _tc: attach(classifier(&mut self.ebpf, "sink")?, container)?, _xdp: None })
    }

    /// The same at XDP; at tc only what was redirected past the interface's queue, where XDP doesn't see it.
    ///
    /// # Errors
    /// When a program can't be attached.
    pub fn sink_at_xdp(&mut self, container: &Place) -> Result<Sink> {
        let sink = self.sink(container)?;
        let link = attach_to_driver(at_xdp(&mut self.ebpf, "sink_at_xdp")?, container)?;
        Ok(Sink { _xdp: Some(link), ..sink })
    }

    /// Drops the UDP packets that come in at the host's wire before anything is spent on them, until the link is dropped.
    ///
    /// # Errors
    /// When the program can't be attached.
    pub fn refuse(&mut self, host: &Place) -> Result<XdpLink> {
        attach_to_driver(at_xdp(&mut self.ebpf, "refuse")?, host)
    }

    /// Leads a port at the host's wire into a container, without translation, until the link is dropped.
    ///
    /// # Errors
    /// When the program can't be attached.
    pub fn bare(&mut self, host: &Place, port: u16, container: &Place) -> Result<SchedClassifierLink> {
        let interface = Port::eth0(container)?;
        let [high, low] = interface.words();
        self.targets.insert(u32::from(port), [interface.peer, high, low], 0).context("write the redirect's port")?;
        attach(classifier(&mut self.ebpf, "bare")?, host)
    }

    /// A counter of `netpath_load::counter`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn count(&self, slot: u32) -> Result<u64> {
        sum(&self.counters, slot)
    }

    /// Sends frames out of the calling thread's namespace, which must be the neighbour's. `watcher` is a CPU that is free
    /// to look at the counters meanwhile.
    ///
    /// All of it is one system call, because it begins and ends with the kernel's waiting for all CPUs. A signal ends it.
    ///
    /// # Errors
    /// When the kernel can't run the generator, or it makes nothing.
    pub fn flood(&mut self, flood: &Flood, watcher: usize, window: Window, until: Until) -> Result<Made> {
        self.load.set(0, flood.load(), 0).context("write what the generator makes")?;
        let Self { ebpf, counters, .. } = self;
        let generator: &mut Xdp = ebpf.program_mut("generate").context("no program generate")?.try_into()?;
        let interrupt = Interrupt::of_this_thread()?;
        let done = AtomicBool::new(false);
        let frames = match until {
            Until::Over => u32::MAX,
            Until::Made(count) => count,
        };
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let made = Cpus::watch_on(watcher).and_then(|()| watch(counters, window, until));
                while !done.load(Ordering::Relaxed) {
                    interrupt.send();
                    thread::sleep(GLANCE);
                }
                made
            });
            let result = generate(generator, frames);
            done.store(true, Ordering::Relaxed);
            let made = watch.join().map_err(|_| anyhow!("the thread that watches the counters panicked"))?;
            result.and(made)
        })
    }
}

/// Counts from the window's begin to its end, or from the first frame to the last.
fn watch(counters: &PerCpuArray<MapData, u64>, window: Window, until: Until) -> Result<Made> {
    let counts =
        || Ok::<_, anyhow::Error>((Instant::now(), sum(counters, counter::MADE)?, sum(counters, counter::SUNK)?));
    let (begin, end) = window.bounds();
    let asked = counts()?;
    let (first, last, busy) = match until {
        Until::Over => {
            thread::sleep(begin.saturating_duration_since(Instant::now()));
            let (first, busy) = (counts()?, super::busy::seconds()?);
            thread::sleep(end.saturating_duration_since(Instant::now()));
            (first, counts()?, super::busy::seconds()? - busy)
        }
        Until::Made(count) => {
            while sum(counters, counter::MADE)? == asked.1 {
                ensure!(asked.0.elapsed() < START, "the generator doesn't start");
                thread::sleep(GLANCE);
            }
            let (first, busy) = ((Instant::now(), asked.1, asked.2), super::busy::seconds()?);
            let mut last = counts()?;
            while last.1 - asked.1 < u64::from(count) && first.0.elapsed() < end - begin {
                thread::sleep(GLANCE);
                last = counts()?;
            }
            (first, last, super::busy::seconds()? - busy)
        }
    };
    let sent = last.1 - first.1;
    ensure!(sent > 0, "the generator has made nothing");
    Ok(Made { sent, sunk: last.2 - first.2, time: last.0 - first.0, busy })
}

/// Runs the generator until it is done or interrupted.
fn generate(program: &mut Xdp, frames: u32) -> Result<()> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(&[0; FRAME_LEN]);
    options.repeat = frames;
    options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
    match program.test_run(options) {
        Ok(_) => Ok(()),
        Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error).context("run the generator with live frames"),
    }
}

fn sum(counters: &PerCpuArray<MapData, u64>, slot: u32) -> Result<u64> {
    Ok(counters.get(&slot, 0).context("read a counter")?.iter().sum())
}

fn classifier<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut SchedClassifier> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn at_xdp<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn attach_to_driver(program: &mut Xdp, place: &Place) -> Result<XdpLink> {
    place.enter(|| {
        let link = program.attach("eth0", XdpMode::Driver).context("attach to eth0's XDP")?;
        program.take_link(link).context("own the link")
    })
}

fn attach(program: &mut SchedClassifier, place: &Place) -> Result<SchedClassifierLink> {
    place.enter(|| {
        let link = program.attach("eth0", TcAttachType::Ingress).context("attach to eth0's tc ingress")?;
        program.take_link(link).context("own the link")
    })
}
