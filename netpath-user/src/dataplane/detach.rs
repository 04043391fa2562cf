//! Removes all that netpath has in the kernel; in takeover mode its flows go on with nf_conntrack.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData};
use netpath_common::{
    abi::{Config, Direction, Flow, FlowKey, FlowKind, Mode, names::map},
    conntrack::{PairState, Shown, pair_state, state::SECOND_NS},
    wire::protocol,
};

use super::{
    attach,
    grace::{self, Expedited},
    host_access,
    layout::Layout,
    pins::{Pins, PinsError},
};
use crate::kernel_conntrack::{self, Connection, Tuple};

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Detached {
    /// Attached programs.
    pub links: usize,
    /// Maps.
    pub maps: usize,
    /// Flows handed to nf_conntrack.
    pub connections: usize,
}

/// Removes programs, links, maps and pins below `pin_dir`. Nothing there is no error.
///
/// In takeover mode nf_conntrack first gets an entry with the same translation for each living flow: otherwise the first
/// packet from the wire would find a host that knows nothing of it, and be answered with a reset.
///
/// # Errors
///
/// When something stays; what can be removed is removed all the same.
pub fn detach(pin_dir: &Path) -> anyhow::Result<Detached> {
    let layout = Layout::new(pin_dir);
    let mut detached = Detached::default();
    let mut failures = Vec::new();
    match hand_flows_over(&layout) {
        Ok(connections) => detached.connections = connections,
        Err(error) => failures.push(error.context("flows could not be handed to nf_conntrack")),
    }
    failures.extend(grace::put_back_what_is_left(&layout).err());
    let pins = layout.link_pins()?;
    let expedited = Expedited::for_attachments(pins.len(), &layout);
    for pin in &pins {
        match attach::remove(pin) {
            Ok(()) => detached.links += 1,
            Err(error) => failures.push(error),
        }
    }
    drop(expedited);
    match host_access::detach(&layout) {
        Ok(links) => detached.links += links,
        Err(error) => failures.push(error),
    }
    for (directory, counts) in [(layout.maps(), true), (layout.links(), true), (layout.programs(), false)] {
        match remove_files(&directory) {
            Ok(removed) if counts => detached.maps += removed,
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
    }
    if let Err(error) = fs::remove_dir(layout.root())
        && error.kind() != io::ErrorKind::NotFound
        && error.kind() != io::ErrorKind::ResourceBusy
    {
        failures.push(anyhow::Error::new(error).context(format!("can't remove {}", layout.root().display())));
    }
    match failures.into_iter().reduce(|all, next| anyhow::anyhow!("{all:#}; {next:#}")) {
        Some(error) => Err(error),
        None => Ok(detached),
    }
}

/// Gives nf_conntrack the living flows, in takeover mode. From its first step on netpath opens no more.
fn hand_flows_over(layout: &Layout) -> anyhow::Result<usize> {
    let pins = match Pins::open(layout.root()) {
        Ok(pins) => pins,
        Err(PinsError::Absent(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let config = pins.config()?;
    if config.mode() != Mode::Takeover || config.opens_flows == 0 {
        return Ok(0);
    }
    stop_opening_flows(layout, config)?;
    let connections = connections(&pins.flows()?, &pins.timeouts()?, now_ns()?);
    if connections.is_empty() {
        return Ok(0);
    }
    kernel_conntrack::insert(&connections)
}

fn stop_opening_flows(layout: &Layout, config: Config) -> anyhow::Result<()> {
    let data = MapData::from_pin(layout.map(map::CONFIG)).context("can't open the configuration map")?;
    let mut map: Array<MapData, Config> =
        Map::Array(data).try_into().context("the configuration map has another layout")?;
    map.set(0, Config { opens_flows: 0, ..config }, 0).context("can't write the configuration map")
}

/// The flows that live, as nf_conntrack sees them. The host's own come first: nf_conntrack has them already, with the very
/// answers that belong to a container's flow, which finds no place until they are brought up to date.
fn connections(entries: &[(FlowKey, Flow)], timeouts: &BTreeMap<PairState, u32>, now_ns: u64) -> Vec<Connection> {
    let by_key: HashMap<FlowKey, &Flow> = entries.iter().map(|(key, flow)| (*key, flow)).collect();
    let mut originals: Vec<_> = entries.iter().filter(|(_, flow)| flow.direction() == Direction::Original).collect();
    originals.sort_by_key(|(_, flow)| flow.kind() != FlowKind::Host);
    originals
        .into_iter()
        .filter_map(|(key, flow)| connection(key, flow, by_key.get(&flow.reply_key(key.protocol))?, timeouts, now_ns))
        .collect()
}

fn connection(
    key: &FlowKey,
    original: &Flow,
    reply: &Flow,
    timeouts: &BTreeMap<PairState, u32>,
    now_ns: u64,
) -> Option<Connection> {
    if !matches!(key.protocol, protocol::TCP | protocol::UDP | protocol::ICMP) {
        // Translated by address alone: nf_conntrack makes the same of the next packet by itself.
        return None;
    }
    let state = pair_state(key.protocol, &Shown::of(original), &Shown::of(reply));
    let silent_ns = now_ns.saturating_sub(original.last_seen_ns.max(reply.last_seen_ns));
    let timeout_ns = u64::from(*timeouts.get(&state)?) * SECOND_NS;
    let left_ns = timeout_ns.checked_sub(silent_ns)?;
    // A closed connection has nothing to lose. One that is opening or closing is carried on as one picked up in its
    // middle: with the time of an established one, a lone last packet would hold it for days.
    if matches!(state, PairState::TimeWait | PairState::Close) {
        return None;
    }
    Some(Connection {
        original: Tuple::from(*key),
        reply: Tuple::from(original.reply_key(key.protocol)),
        timeout: Duration::from_nanos(left_ns).max(Duration::from_secs(1)),
        established_tcp: state == PairState::Established,
    })
}

/// The clock of `last_seen_ns`.
pub(super) fn now_ns() -> anyhow::Result<u64> {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).context("can't read the monotonic clock")?;
    let seconds = u64::try_from(now.tv_sec()).unwrap_or_default();
    Ok(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or_default())
}

/// Removes the files of a directory and the directory; gives how many files there were.
fn remove_files(directory: &Path) -> anyhow::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", directory.display())),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry.with_context(|| format!("can't read {}", directory.display()))?.path();
        fs::remove_file(&path).with_context(|| format!("can't remove the pin {}", path.display()))?;
        removed += 1;
    }
    fs::remove_dir(directory).with_context(|| format!("can't remove {}", directory.display()))?;
    Ok(removed)
}
