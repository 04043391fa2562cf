//! The kernel's memory for a flow.
//!
//! nf_conntrack allocates as flows come: what the objects in the kernel's slabs have grown by. netpath's tables are allocated when it
//! starts: what the kernel says of their size, divided by the flows that they hold.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{MapInfo, loaded_maps};
use netpath_common::abi::names::map;

use super::super::carrier::{Carrier, Evidence};
use super::super::figures::{Better, Figure, Sample};
use super::super::pinned::Window;
use super::super::programs::Until;
use super::frames::{flood, pour};
use super::{Effort, Measure, Scene, Setting};

/// Enough to outweigh what else the slabs do meanwhile.
const FLOWS: u32 = 200_000;

pub(super) const MEASURES: &[Measure] = &[Measure {
    name: "memory",
    title: "the kernel's memory for a flow to a published port",
    evidence: Evidence::Translated("published_in"),
    carriers: &[Carrier::Iptables, Carrier::Netpath],
    figures: &[Figure { name: "size", unit: "bytes per flow", better: Better::Less }],
    setting: Setting { flows: FLOWS, ..Setting::PLAIN },
    effort: Effort::Full,
    run: memory,
}];

#[expect(clippy::cast_precision_loss, reason = "sizes of a machine's memory")]
fn memory(scene: &mut Scene<'_>) -> Result<Sample> {
    let before = slabs()?;
    let load = flood(scene)?;
    let link = scene.programs()?.sink(&scene.site.container)?;
    let made = pour(scene, load, Window::now_for(Duration::from_secs(60)), Until::Made(FLOWS))?;
    let grown = slabs()?.saturating_sub(before);
    drop(link);
    let (bytes, flows) = if scene.carrier.is_netpath() {
        let status = scene.site.lab.netpath()?.status()?;
        ensure!(status.flows.used >= u64::from(FLOWS) * 9 / 10, "netpath has {} flows", status.flows.used);
        (flow_table()?, status.flows.capacity)
    } else {
        (grown, made.sunk)
    };
    Ok(Sample::new(vec![bytes as f64 / flows as f64], made.sunk))
}

/// The bytes of the objects in the kernel's slabs. Not those of the slabs themselves: they keep room for objects that are gone.
fn slabs() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("read /proc/slabinfo")?;
    // "NAME ACTIVE_OBJECTS OBJECTS SIZE ...", after two lines of headings.
    let bytes = text.lines().skip(2).map(|line| {
        let mut fields = line.split_whitespace().skip(1).map(str::parse::<u64>);
        let (active, _all, size) = (fields.next(), fields.next(), fields.next());
        let (Some(Ok(active)), Some(Ok(size))) = (active, size) else { bail!("read {line:?}") };
        Ok(active * size)
    });
    bytes.sum()
}

/// The bytes of netpath's flow table.
fn flow_table() -> Result<u64> {
    let maps: Vec<_> = loaded_maps().filter_map(Result::ok).collect();
    let size_of = |name| {
        let named = maps.iter().filter(|map| map.name_as_str() == Some(name));
        let sizes: Vec<_> = named.map(size).collect::<Result<_>>()?;
        sizes.into_iter().max().with_context(|| format!("the kernel has no map {name}"))
    };
    [map::FLOW_BUCKETS, map::FLOW_TAGS, map::FLOW_LOCKS].into_iter().map(size_of).sum()
}

/// What the kernel says of a map at its descriptor.
fn size(map: &MapInfo) -> Result<u64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let descriptor = map.fd().context("open a map")?;
    let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
    bytes.trim().parse().with_context(|| format!("read {bytes:?}"))
}
