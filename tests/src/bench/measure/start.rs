//! How long netpath takes to start on a full host, and what it costs to be there.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::carrier::{Carrier, Evidence};
use super::super::figures::{Better, Figure, Sample};
use super::publish::milliseconds;
use super::{Effort, Measure, Scene, Setting};

/// The time after which whatever a start brings is done.
const SETTLED: Duration = Duration::from_secs(3);

/// Long enough for ticks of 10 ms to say something of a few milliseconds per second.
const IDLE: Duration = Duration::from_secs(30);

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, better: Better::Less }
}

pub(super) const MEASURES: &[Measure] = &[Measure {
    name: "start",
    title: "netpath with 500 containers that publish 10,000 ports",
    evidence: Evidence::Setting,
    carriers: &[Carrier::Netpath],
    figures: &[
        figure("in step after a build's first start", "ms"),
        figure("in step after a restart", "ms"),
        figure("detached", "ms"),
        figure("resident", "MB"),
        figure("resident at most", "MB"),
        figure("idle", "ms of CPU time per second"),
    ],
    setting: Setting { publishes: 10_000, containers: 500, ..Setting::PLAIN },
    effort: Effort::Seldom,
    run: start,
}];

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn start(scene: &mut Scene<'_>) -> Result<Sample> {
    let setting = scene.setting;
    let netpath = scene.site.lab.netpath()?;
    // Nothing is pinned then, as when a build has never run here.
    let detached = netpath.detach_timed()?;
    let first = netpath.start_timed()?;
    netpath.kill()?;
    let restart = netpath.start_timed()?;
    ensure!(netpath.ports()?.len() >= setting.publishes as usize, "not all ports are published");
    ensure!(netpath.status()?.endpoints.len() >= setting.containers as usize, "not all containers are endpoints");
    thread::sleep(SETTLED);
    let before = netpath.usage()?;
    thread::sleep(IDLE);
    let after = netpath.usage()?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let idle = milliseconds(after.cpu - before.cpu) / IDLE.as_secs_f64();
    let memory = [after.resident, after.resident_most].map(megabytes);
    let values = vec![milliseconds(first), milliseconds(restart), milliseconds(detached), memory[0], memory[1], idle];
    Ok(Sample::new(values, 1))
}
