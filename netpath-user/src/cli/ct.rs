//! `netpath ct`: tracked connections, from the pins; the daemon, when it answers, adds networks' names.
//!
//! The table holds a connection as two entries, one per direction. They are joined here: the entry of the original
//! direction is the connection, the other one adds what the answers have shown.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use anyhow::Context as _;
use netpath_common::{
    abi::{Direction, Flow, FlowKey, FlowKind},
    conntrack::{PairState, Shown, pair_state, state::SECOND_NS},
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{
    args::Global,
    exit::Exit,
    output::{Table, human_duration, protocol_name, show},
};

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Connection {
    protocol: &'static str,
    state: &'static str,
    kind: &'static str,
    /// As the packet that opened it arrived.
    original: Tuple,
    /// As its answers arrive.
    reply: Tuple,
    /// Docker's name; absent while no daemon answers.
    network: Option<String>,
    network_number: u16,
    idle_ms: u64,
    expires_ms: u64,
}

/// Addresses and ports of a packet. For ICMP the identifier takes the place of one port, the other is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Tuple {
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
}

impl From<FlowKey> for Tuple {
    fn from(key: FlowKey) -> Self {
        Self {
            source: key.source.into(),
            source_port: u16::from_be_bytes(key.source_port),
            destination: key.destination.into(),
            destination_port: u16::from_be_bytes(key.destination_port),
        }
    }
}

/// How many connections there are.
#[derive(Debug, Serialize)]
struct Count {
    count: u64,
    capacity: u32,
}

pub(super) async fn list(global: &Global) -> anyhow::Result<Exit> {
    let pins = global.pins()?;
    // Without a daemon the connections are still what they are, only their networks are nameless.
    let networks = global.client().networks().await.unwrap_or_default();
    let names = networks.into_iter().map(|network| (network.network.number, network.network.name)).collect();
    let entries = pins.flows()?;
    // Read after the table: no entry is newer than the clock.
    let connections = report(&entries, &pins.timeouts()?, monotonic_ns()?, &names);
    show(global.output, &connections, |connections| table(connections))?;
    Ok(Exit::Ok)
}

pub(super) fn count(global: &Global) -> anyhow::Result<Exit> {
    let pins = global.pins()?;
    let count = Count { count: pins.flows_used()?, capacity: pins.flows_capacity() };
    show(global.output, &count, |count| format!("{}\n", count.count))?;
    Ok(Exit::Ok)
}

/// The clock of [`Flow::last_seen_ns`].
fn monotonic_ns() -> anyhow::Result<u64> {
    let now =
        std::time::Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the monotonic clock")?);
    u64::try_from(now.as_nanos()).context("the monotonic clock has run for 584 years")
}

/// Joins the entries of both directions, in the order of protocols and addresses.
fn report(
    entries: &[(FlowKey, Flow)],
    timeouts: &BTreeMap<PairState, u32>,
    now_ns: u64,
    names: &BTreeMap<u16, String>,
) -> Vec<Connection> {
    let replies: HashMap<FlowKey, &Flow> = entries
        .iter()
        .filter(|(_, flow)| flow.direction() == Direction::Reply)
        .map(|(key, flow)| (*key, flow))
        .collect();
    let mut connections: Vec<_> = entries
        .iter()
        .filter(|(_, flow)| flow.direction() == Direction::Original)
        .map(|(key, flow)| {
            let reply_key = flow.reply_key(key.protocol);
            connection(key, flow, reply_key, replies.get(&reply_key).copied(), timeouts, now_ns, names)
        })
        .collect();
    connections.sort();
    connections
}

fn connection(
    key: &FlowKey,
    original: &Flow,
    reply_key: FlowKey,
    reply: Option<&Flow>,
    timeouts: &BTreeMap<PairState, u32>,
    now_ns: u64,
    names: &BTreeMap<u16, String>,
) -> Connection {
    let (reply_shown, reply_last_seen_ns) =
        reply.map_or((Shown::default(), 0), |reply| (Shown::of(reply), reply.last_seen_ns));
    let state = pair_state(key.protocol, &Shown::of(original), &reply_shown);
    let timeout_s = u64::from(timeouts.get(&state).copied().unwrap_or(state.default_timeout_s()));
    let idle_ns = now_ns.saturating_sub(original.last_seen_ns.max(reply_last_seen_ns));
    Connection {
        protocol: protocol_name(key.protocol),
        state: state.name(),
        kind: original.kind().name(),
        original: Tuple::from(*key),
        reply: Tuple::from(reply_key),
        network: names.get(&original.network).cloned(),
        network_number: original.network,
        idle_ms: idle_ns / 1_000_000,
        expires_ms: (timeout_s * SECOND_NS).saturating_sub(idle_ns) / 1_000_000,
    }
}

fn table(connections: &[Connection]) -> String {
    let header = ["PROTO", "STATE", "SOURCE", "DESTINATION", "TRANSLATED", "KIND", "NETWORK", "IDLE", "EXPIRES"];
    let mut table = Table::new(header);
    for connection in connections {
        let Tuple { source, source_port, destination, destination_port } = connection.original;
        table.row([
            connection.protocol.to_owned(),
            connection.state.to_owned(),
            endpoint(source, source_port),
            endpoint(destination, destination_port),
            format!("-> {}", translated(connection)),
            connection.kind.to_owned(),
            connection.network.clone().unwrap_or_else(|| connection.network_number.to_string()),
            human_duration(connection.idle_ms),
            human_duration(connection.expires_ms),
        ]);
    }
    table.to_string()
}

/// What netpath makes of the side that it changes: the answers' destination, or where they come from.
fn translated(connection: &Connection) -> String {
    let Tuple { source, source_port, destination, destination_port } = connection.reply;
    if connection.kind == FlowKind::Masquerade.name() {
        endpoint(destination, destination_port)
    } else {
        endpoint(source, source_port)
    }
}

/// `172.17.0.2:80`; without a port, as with the far side of an ICMP echo, the address alone.
fn endpoint(address: Ipv4Addr, port: u16) -> String {
    if port == 0 { address.to_string() } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use netpath_common::abi::{Direction, Flow, FlowKey, FlowKind, Seen};
    use serde_json::json;

    use super::{report, table};

    const SECOND: u64 = 1_000_000_000;
    const CONTAINER: [u8; 4] = [172, 17, 0, 2];
    const HOST: [u8; 4] = [192, 0, 2, 1];
    const WORLD: [u8; 4] = [198, 51, 100, 7];

    fn key(protocol: u8, source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> FlowKey {
        FlowKey {
            source: source.0,
            destination: destination.0,
            source_port: source.1.to_be_bytes(),
            destination_port: destination.1.to_be_bytes(),
            protocol,
            reserved: [0; 3],
        }
    }

    /// The two entries of a connection: `arrives` leaves as `leaves`.
    fn pair(
        arrives: FlowKey,
        leaves: FlowKey,
        kind: FlowKind,
        seen: [u8; 2],
        last_seen_ns: [u64; 2],
    ) -> [(FlowKey, Flow); 2] {
        let entry = |direction, leaves: FlowKey, index: usize| Flow {
            last_seen_ns: last_seen_ns[index],
            source: leaves.source,
            destination: leaves.destination,
            source_port: leaves.source_port,
            destination_port: leaves.destination_port,
            seen: seen[index],
            role: Flow::pack_role(direction, kind),
            network: 1,
            ..bytemuck::Zeroable::zeroed()
        };
        [
            (arrives, entry(Direction::Original, leaves, 0)),
            (leaves.reversed(), entry(Direction::Reply, arrives.reversed(), 1)),
        ]
    }

    fn masqueraded() -> [(FlowKey, Flow); 2] {
        let (world, open) = ((WORLD, 443), Seen::PACKET | Seen::SYN | Seen::ACK);
        let (arrives, leaves) = (key(6, (CONTAINER, 40000), world), key(6, (HOST, 1025), world));
        pair(arrives, leaves, FlowKind::Masquerade, [open; 2], [100 * SECOND, 103 * SECOND])
    }

    fn published() -> [(FlowKey, Flow); 2] {
        let client = (WORLD, 5353);
        let (arrives, leaves) = (key(17, client, (HOST, 53)), key(17, client, (CONTAINER, 5300)));
        pair(arrives, leaves, FlowKind::Published, [Seen::PACKET, 0], [107 * SECOND, 0])
    }

    fn pinged() -> [(FlowKey, Flow); 2] {
        let (arrives, leaves) = (key(1, (CONTAINER, 77), (WORLD, 0)), key(1, (HOST, 78), (WORLD, 0)));
        pair(arrives, leaves, FlowKind::Masquerade, [Seen::PACKET; 2], [110 * SECOND; 2])
    }

    fn names() -> BTreeMap<u16, String> {
        BTreeMap::from([(1, "bridge".to_owned())])
    }

    #[test]
    fn both_directions_make_one_line() {
        let entries: Vec<_> = [published(), masqueraded(), pinged()].concat();
        let connections = report(&entries, &BTreeMap::new(), 110 * SECOND, &names());
        let lines = table(&connections);
        let cells: Vec<Vec<_>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells.len(), 4);
        assert_eq!(
            cells[1][..7],
            ["icmp", "ECHO", "172.17.0.2:77", "198.51.100.7", "->", "192.0.2.1:78", "masquerade"]
        );
        assert_eq!(
            cells[2][..6],
            ["tcp", "ESTABLISHED", "172.17.0.2:40000", "198.51.100.7:443", "->", "192.0.2.1:1025"]
        );
        assert_eq!(cells[2][6..9], ["masquerade", "bridge", "7s"]);
        assert_eq!(cells[3][..6], ["udp", "UNREPLIED", "198.51.100.7:5353", "192.0.2.1:53", "->", "172.17.0.2:5300"]);
    }

    #[test]
    fn json_shows_both_tuples_as_they_arrive() {
        let connections = report(&masqueraded(), &BTreeMap::new(), 110 * SECOND, &names());
        let json = serde_json::to_value(&connections).unwrap();
        let expires_ms = json[0]["expires_ms"].as_u64().unwrap();
        let expected = json!([{
            "protocol": "tcp", "state": "ESTABLISHED", "kind": "masquerade",
            "original": {"source": "172.17.0.2", "source_port": 40000, "destination": "198.51.100.7", "destination_port": 443},
            "reply": {"source": "198.51.100.7", "source_port": 443, "destination": "192.0.2.1", "destination_port": 1025},
            "network": "bridge", "network_number": 1, "idle_ms": 7000, "expires_ms": expires_ms,
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn a_connection_is_as_young_as_its_latest_packet() {
        let at = |seconds| report(&masqueraded(), &BTreeMap::new(), seconds * SECOND, &names())[0].clone();
        assert_eq!((at(103).idle_ms, at(104).idle_ms), (0, 1000));
        assert_eq!(at(103).expires_ms - at(104).expires_ms, 1000);
        // A packet after the clock was read.
        assert_eq!(at(90).idle_ms, 0);
        assert_eq!(at(u64::MAX / SECOND).expires_ms, 0);
    }

    #[test]
    fn half_a_connection_is_shown_when_it_is_the_half_that_opened_it() {
        let [original, reply] = masqueraded();
        assert_eq!(report(&[original], &BTreeMap::new(), 110 * SECOND, &names())[0].idle_ms, 10_000);
        assert!(report(&[reply], &BTreeMap::new(), 110 * SECOND, &names()).is_empty());
    }

    #[test]
    fn without_a_daemon_the_network_is_a_number() {
        let connections = report(&published(), &BTreeMap::new(), 110 * SECOND, &BTreeMap::new());
        assert_eq!((connections[0].network.as_ref(), connections[0].network_number), (None, 1));
        assert!(table(&connections).lines().nth(1).unwrap().contains("published   1   "));
    }
}
