//! `netpath ct stats`: how many connections there are of each kind, how full the table is, and what became of the others.

use std::collections::BTreeMap;

use netpath_common::{abi::PathCount, drop::DropReason};
use serde::Serialize;

use super::{
    connection::{Connection, Names, all_keys, connections},
    monotonic_ns,
};
use crate::cli::{
    args::Global,
    exit::Exit,
    output::{Table, human_bytes, show},
};

/// The drops that say something of connections.
const DROPS: [DropReason; 4] =
    [DropReason::FlowTableFull, DropReason::PortsExhausted, DropReason::NoFlow, DropReason::HopGone];

/// The report. Fields are added, never renamed.
#[derive(Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Stats {
    /// Connections in the table, those included that have ended and wait for the collector.
    count: u64,
    /// How many the table holds.
    capacity: u32,
    /// The part of the table that is taken, 0 to 1.
    fill: f64,
    /// Bytes of kernel memory that the table takes; absent where the kernel doesn't say.
    memory_bytes: Option<u64>,
    by_protocol: BTreeMap<String, u64>,
    /// By protocol, then by state.
    by_state: BTreeMap<String, BTreeMap<String, u64>>,
    by_kind: BTreeMap<String, u64>,
    /// Entries without their opposite; the collector takes them.
    halves: u64,
    opened: u64,
    collected: u64,
    evicted: u64,
    removed: u64,
    drops: BTreeMap<String, u64>,
    events_lost: u64,
}

pub(super) fn run(global: &Global) -> anyhow::Result<Exit> {
    let pins = global.pins()?;
    let entries = pins.flows()?;
    let connections = connections(&entries, monotonic_ns()?, &Names::default());
    let traffic = pins.traffic()?;
    let counted = |wanted| traffic.iter().find(|(path, _)| *path == wanted).map_or(0, |(_, count)| count.packets);
    let drops = pins.drops()?.into_iter().filter(|(reason, _)| DROPS.contains(reason));
    let capacity = pins.flows_capacity();
    let paired = connections.iter().filter(|connection| connection.directions.reply.is_some()).count() as u64;
    let count = all_keys(&entries).len() as u64;
    let stats = Stats {
        count,
        capacity,
        fill: fill(entries.len(), capacity),
        memory_bytes: pins.flows_memory()?,
        halves: count.saturating_sub(paired),
        opened: counted(PathCount::FlowsOpened),
        collected: counted(PathCount::FlowsCollected),
        evicted: counted(PathCount::FlowsEvicted),
        removed: counted(PathCount::FlowsRemoved),
        drops: drops.map(|(reason, packets)| (reason.name().to_owned(), packets)).collect(),
        events_lost: counted(PathCount::EventsLost),
        ..tally(&connections)
    };
    show(global.output, &stats, table)?;
    Ok(Exit::Ok)
}

/// The part of the table that `entries` take, two for each connection.
fn fill(entries: usize, capacity: u32) -> f64 {
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    if capacity == 0 { 1.0 } else { f64::from(entries) / 2.0 / f64::from(capacity) }
}

fn tally(connections: &[Connection]) -> Stats {
    let mut stats = Stats::default();
    for connection in connections {
        let protocol = match connection.protocol {
            "unknown" => connection.protocol_number.to_string(),
            name => name.to_owned(),
        };
        *stats.by_protocol.entry(protocol.clone()).or_default() += 1;
        *stats.by_state.entry(protocol).or_default().entry(connection.state.to_owned()).or_default() += 1;
        *stats.by_kind.entry(connection.kind.to_owned()).or_default() += 1;
    }
    stats
}

fn table(stats: &Stats) -> String {
    let memory = stats.memory_bytes.map(|bytes| format!(", {} of memory", human_bytes(bytes))).unwrap_or_default();
    let lines = [
        ("Connections:", format!("{} of {} ({:.1} %){memory}", stats.count, stats.capacity, stats.fill * 100.0)),
        ("Opened:", stats.opened.to_string()),
        ("Collected:", stats.collected.to_string()),
        ("Evicted:", stats.evicted.to_string()),
        ("Removed:", stats.removed.to_string()),
        ("Halves:", stats.halves.to_string()),
        ("Lost events:", stats.events_lost.to_string()),
    ];
    let mut text: String = lines.iter().map(|(label, value)| format!("{label:<14}{value}\n")).collect();
    let mut states = Table::new(["PROTO", "STATE", "CONNECTIONS"]);
    for (protocol, counts) in &stats.by_state {
        for (state, count) in counts {
            states.row([protocol.clone(), state.clone(), count.to_string()]);
        }
    }
    if !states.is_empty() {
        text = text + "\n" + &states.to_string();
    }
    let mut drops = Table::new(["DROPS", "PACKETS"]);
    for (reason, packets) in &stats.drops {
        drops.row([reason.clone(), packets.to_string()]);
    }
    text + "\n" + &drops.to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::connection::connections, super::sample::*, Stats, fill, table, tally};

    fn stats() -> Stats {
        let entries = [published(), masqueraded(), pinged()].concat();
        Stats {
            count: 3,
            capacity: 1024,
            fill: fill(6, 1024),
            memory_bytes: Some(245_760),
            opened: 9,
            collected: 4,
            evicted: 1,
            removed: 1,
            drops: [("no_flow".to_owned(), 7)].into(),
            ..tally(&connections(&entries, 110 * SECOND, &names()))
        }
    }

    #[test]
    fn every_connection_is_counted_under_its_protocol_state_and_kind() {
        let json = serde_json::to_value(stats()).unwrap();
        assert_eq!(json["by_protocol"], serde_json::json!({"icmp": 1, "tcp": 1, "udp": 1}));
        assert_eq!(json["by_state"]["tcp"], serde_json::json!({"ESTABLISHED": 1}));
        assert_eq!(json["by_state"]["udp"], serde_json::json!({"UNREPLIED": 1}));
        assert_eq!(json["by_kind"], serde_json::json!({"masquerade": 2, "published": 1}));
        assert_eq!((json["count"].as_u64(), json["events_lost"].as_u64()), (Some(3), Some(0)));
    }

    #[test]
    fn the_table_tells_the_same() {
        assert_eq!(
            table(&stats()),
            "Connections:  3 of 1024 (0.3 %), 245 kB of memory
Opened:       9
Collected:    4
Evicted:      1
Removed:      1
Halves:       0
Lost events:  0

PROTO   STATE         CONNECTIONS
icmp    ECHO          1
tcp     ESTABLISHED   1
udp     UNREPLIED     1

DROPS     PACKETS
no_flow   7
"
        );
    }

    #[test]
    fn a_full_table_is_full() {
        assert!((fill(2048, 1024) - 1.0).abs() < f64::EPSILON);
        assert!(fill(0, 1024).abs() < f64::EPSILON);
    }
}
