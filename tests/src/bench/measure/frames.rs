//! Small UDP frames from the wire, made without a system call per packet: forwarding alone, into a socket, new flows,
//! and what is refused at the edge.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::carrier::{Carrier, Evidence};
use super::super::figures::{Better, Figure, Sample};
use super::super::pinned::{Window, both};
use super::super::programs::{Flood, Made, Port, Sink, Until, fresh_flows};
use super::super::rules::EXTRA_PORT;
use super::super::{PORT, busy, udp};
use super::{Effort, Measure, Scene, Setting, Towards, lock, per_million};
use crate::lab::HOST;

pub(super) const PACKETS: Figure = Figure { name: "received", unit: "packets/s", better: Better::More };
pub(super) const COST: Figure = Figure { name: "cost", unit: "CPU s per million packets", better: Better::Less };
pub(super) const OFFERED: Figure = Figure { name: "sent by the generator", unit: "packets/s", better: Better::Neither };
pub(super) const NEW_FLOWS: Figure = Figure { name: "carried", unit: "new flows/s", better: Better::More };
const HANDLED: Figure = Figure { name: "handled", unit: "packets per CPU second", better: Better::More };

const PUBLISHED: Evidence = Evidence::Translated("published_in");

const WITHOUT_BARE: &[Carrier] =
    &[Carrier::Iptables, Carrier::Legacy, Carrier::Nftables, Carrier::Routed, Carrier::Netpath, Carrier::NetpathXdp];
const TRANSLATORS: &[Carrier] =
    &[Carrier::Iptables, Carrier::Legacy, Carrier::Nftables, Carrier::Netpath, Carrier::NetpathXdp];

const WITH_BARE: &[Carrier] =
    &[Carrier::Iptables, Carrier::Legacy, Carrier::Nftables, Carrier::Bare, Carrier::Netpath, Carrier::NetpathXdp];

/// New flows of a sample at most: they fit into nf_conntrack's table and netpath's, both 262,144 by default.
const NEW_FLOWS_MAX: u32 = 200_000;

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        name: "udp-in-edge",
        title: "published UDP, 60-byte frames, counted at the container's end, 1 flow",
        evidence: PUBLISHED,
        carriers: &Carrier::ALL,
        figures: &[PACKETS, COST, OFFERED],
        setting: Setting::PLAIN,
        effort: Effort::Always,
        run: edge,
    },
    Measure {
        name: "udp-in-edge-xdp",
        title: "the same, counted by an XDP program in the container",
        evidence: PUBLISHED,
        carriers: WITHOUT_BARE,
        figures: &[PACKETS, COST, OFFERED],
        setting: Setting::PLAIN,
        effort: Effort::Always,
        run: edge_at_xdp,
    },
    Measure {
        name: "udp-in-edge-flows",
        title: "the same, 10,000 flows",
        evidence: PUBLISHED,
        carriers: WITHOUT_BARE,
        figures: &[PACKETS, COST, OFFERED],
        setting: Setting { flows: 10_000, ..Setting::PLAIN },
        effort: Effort::Always,
        run: edge,
    },
    Measure {
        name: "udp-in-socket",
        title: "published UDP, 60-byte frames, into a socket in the container",
        evidence: PUBLISHED,
        carriers: WITHOUT_BARE,
        figures: &[PACKETS, COST, OFFERED],
        setting: Setting::PLAIN,
        effort: Effort::Always,
        run: |scene| socket(scene),
    },
    Measure {
        name: "udp-new-flows",
        title: "new UDP flows to a published port, one packet each",
        evidence: PUBLISHED,
        carriers: TRANSLATORS,
        figures: &[NEW_FLOWS],
        setting: Setting::PLAIN,
        effort: Effort::Always,
        run: new_flows,
    },
    Measure {
        name: "drop-port",
        title: "flood of UDP to ports of the host that nobody publishes",
        evidence: Evidence::Setting,
        carriers: WITH_BARE,
        figures: &[HANDLED],
        setting: Setting { flows: 10_000, ..Setting::PLAIN },
        effort: Effort::Full,
        run: drop_port,
    },
    Measure {
        name: "drop-container",
        title: "flood of UDP to a container's own address, to ports that it doesn't publish",
        evidence: Evidence::Setting,
        carriers: TRANSLATORS,
        figures: &[HANDLED],
        setting: Setting { flows: 10_000, ..Setting::PLAIN },
        effort: Effort::Full,
        run: drop_container,
    },
];

/// Frames to the published port, or one after the other to all of the many, counted where the container gets them.
pub(super) fn edge(scene: &mut Scene<'_>) -> Result<Sample> {
    let sink = scene.programs()?.sink(&*scene.site.published()?)?;
    counted(scene, sink)
}

/// The same for a container whose own program reads its packets at XDP.
fn edge_at_xdp(scene: &mut Scene<'_>) -> Result<Sample> {
    let sink = scene.programs()?.sink_at_xdp(&*scene.site.published()?)?;
    counted(scene, sink)
}

fn counted(scene: &mut Scene<'_>, sink: Sink) -> Result<Sample> {
    let flood = flood(scene)?;
    if scene.setting.flows > 1 {
        // Whatever a new flow costs is another measure's business.
        let ample = Window::now_for(Duration::from_secs(60));
        pour(scene, flood, ample, Until::Made(scene.setting.flows))?;
    }
    let made = pour(scene, flood, scene.window(), Until::Over)?;
    drop(sink);
    Ok(Sample::new(
        vec![rate(made.sunk, made.time), per_million(made.busy, made.sunk), rate(made.sent, made.time)],
        made.sunk,
    ))
}

/// Frames to the published port, counted where an application reads them.
pub(super) fn socket(scene: &Scene<'_>) -> Result<Sample> {
    let flood = flood(scene)?;
    let ends = scene.ends(Towards::Container)?;
    let socket = ends.server.place.enter(|| udp::sink(PORT))?;
    let window = scene.window();
    let (programs, watcher) = (scene.programs, scene.cpus.receiver);
    let ((received, made), busy) = busy::during(window, || {
        both(
            (ends.server, || udp::count(&socket, window)),
            (ends.client, || lock(programs)?.flood(&flood, watcher, window, Until::Over)),
        )
    })?;
    let values = vec![window.rate(received), per_million(busy, received), rate(made.sent, made.time)];
    Ok(Sample::new(values, received))
}

/// One packet of each of many flows.
pub(super) fn new_flows(scene: &mut Scene<'_>) -> Result<Sample> {
    let flood = Flood { flow: fresh_flows(NEW_FLOWS_MAX), flows: NEW_FLOWS_MAX, ..flood(scene)? };
    let link = scene.programs()?.sink(&*scene.site.published()?)?;
    let made = pour(scene, flood, Window::now(scene.pace), Until::Made(NEW_FLOWS_MAX))?;
    drop(link);
    Ok(Sample::new(vec![rate(made.sunk, made.time)], made.sunk))
}

fn drop_port(scene: &mut Scene<'_>) -> Result<Sample> {
    refused(scene, Flood { destination: HOST, port: 30_000, ports: 1000, ..flood(scene)? })
}

fn drop_container(scene: &mut Scene<'_>) -> Result<Sample> {
    let destination = scene.site.address()?;
    refused(scene, Flood { destination, port: 30_000, ports: 1000, ..flood(scene)? })
}

/// Frames that nobody gets: what counts is how little they cost.
fn refused(scene: &Scene<'_>, flood: Flood) -> Result<Sample> {
    let link = scene.programs()?.sink(&scene.site.container)?;
    let bare =
        if scene.carrier == Carrier::Bare { Some(scene.programs()?.refuse(scene.site.lab.host())?) } else { None };
    let made = pour(scene, flood, scene.window(), Until::Over)?;
    drop((link, bare));
    anyhow::ensure!(made.sunk == 0, "{} of {} packets reached the container", made.sunk, made.sent);
    anyhow::ensure!(made.busy > 0.0, "the packets have cost nothing that can be seen");
    Ok(Sample::new(vec![per_second(made.sent, made.busy)], made.sent))
}

pub(super) fn flood(scene: &Scene<'_>) -> Result<Flood> {
    let lab = &scene.site.lab;
    let (port, ports) = if scene.setting.ports > 0 { (EXTRA_PORT, scene.setting.ports) } else { (PORT, 1) };
    let flows = scene.setting.flows;
    Ok(Flood {
        from: Port::eth0(lab.lan())?,
        to: Port::eth0(lab.host())?,
        destination: scene.target()?,
        port,
        ports,
        flow: fresh_flows(flows),
        flows,
    })
}

/// Sends from the neighbour, on the sender's CPU.
pub(super) fn pour(scene: &Scene<'_>, flood: Flood, window: Window, until: Until) -> Result<Made> {
    let ends = scene.ends(Towards::Container)?;
    let (programs, watcher) = (scene.programs, scene.cpus.receiver);
    ends.client.run(|| lock(programs)?.flood(&flood, watcher, window, until)).context("send frames")
}

fn rate(count: u64, time: Duration) -> f64 {
    per_second(count, time.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds are far below 2^52")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
