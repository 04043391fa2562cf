//! A connection as the command line shows it: the two entries of the flow table, joined.
//!
//! The entry of the original direction is the connection, the other one adds what the answers have shown. The order is
//! that of protocols and addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use netpath_common::{
    abi::{Direction, Flow, FlowKey, Seen},
    conntrack::{PairState, Shown},
};
use serde::Serialize;

use super::state::{State, state};
use crate::cli::output::protocol_name;

/// A connection. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Connection {
    pub(super) protocol: &'static str,
    pub(super) state: &'static str,
    pub(super) kind: &'static str,
    /// As the packet that opened it arrived.
    pub(super) original: Tuple,
    /// As its answers arrive.
    pub(super) reply: Tuple,
    /// Docker's name; absent while no daemon answers.
    pub(super) network: Option<String>,
    pub(super) network_number: u16,
    pub(super) idle_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) protocol_number: u8,
    /// Whether an answer was seen.
    pub(super) replied: bool,
    /// Whether both sides have agreed to it: conntrack's word.
    pub(super) assured: bool,
    pub(super) directions: Directions,
    /// The key of the original direction's entry.
    #[serde(skip)]
    pub(super) key: FlowKey,
}

/// Addresses and ports of a packet. For ICMP the identifier takes the place of one port, the other is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Tuple {
    pub(super) source: Ipv4Addr,
    pub(super) source_port: u16,
    pub(super) destination: Ipv4Addr,
    pub(super) destination_port: u16,
}

/// What is known of each direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Directions {
    pub(super) original: Side,
    /// Absent: that entry is missing, the collector takes the other one.
    pub(super) reply: Option<Side>,
}

/// What is known of one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Side {
    /// What it has shown.
    pub(super) seen: Vec<&'static str>,
    /// Index of its hop.
    pub(super) hop: u32,
    /// Where its packets leave; absent: the interface is gone.
    pub(super) interface: Option<String>,
    /// The interface that its packets must come in by; 0: any.
    pub(super) ingress_ifindex: u32,
}

/// Names for numbers, as far as anybody knows them, and the timeouts in force.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Docker's networks.
    pub(super) networks: BTreeMap<u16, String>,
    /// Interfaces of hops.
    pub(super) interfaces: BTreeMap<u32, String>,
    /// Seconds by state; a state that is missing has its own.
    pub(super) timeouts: BTreeMap<PairState, u32>,
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

impl Side {
    fn new(flow: &Flow, names: &Names) -> Self {
        Self {
            seen: seen(flow.seen),
            hop: flow.hop,
            interface: names.interfaces.get(&flow.hop).cloned(),
            ingress_ifindex: flow.ingress_ifindex,
        }
    }
}

/// The names of what a direction has shown.
fn seen(bits: u8) -> Vec<&'static str> {
    [(Seen::PACKET, "PACKET"), (Seen::SYN, "SYN"), (Seen::ACK, "ACK"), (Seen::FIN, "FIN"), (Seen::RST, "RST")]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// The hops of all entries.
pub(super) fn hops(entries: &[(FlowKey, Flow)]) -> BTreeSet<u32> {
    entries.iter().map(|(_, flow)| flow.hop).collect()
}

/// Joins the entries of both directions.
pub(super) fn connections(entries: &[(FlowKey, Flow)], now_ns: u64, names: &Names) -> Vec<Connection> {
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
            connection(key, flow, reply_key, replies.get(&reply_key).copied(), now_ns, names)
        })
        .collect();
    connections.sort();
    connections
}

/// A key of every flow, and of every entry whose opposite is missing: what must go for the table to be empty.
pub(super) fn all_keys(entries: &[(FlowKey, Flow)]) -> Vec<FlowKey> {
    let keys: HashMap<FlowKey, Direction> = entries.iter().map(|(key, flow)| (*key, flow.direction())).collect();
    let is_alone = |key: &FlowKey, flow: &Flow| !keys.contains_key(&flow.reply_key(key.protocol));
    let goes = |key: &FlowKey, flow: &Flow| flow.direction() == Direction::Original || is_alone(key, flow);
    entries.iter().filter(|(key, flow)| goes(key, flow)).map(|(key, _)| *key).collect()
}

fn connection(
    key: &FlowKey,
    original: &Flow,
    reply_key: FlowKey,
    reply: Option<&Flow>,
    now_ns: u64,
    names: &Names,
) -> Connection {
    let reply_shown = reply.map(Shown::of).unwrap_or_default();
    let reply_last_seen_ns = reply.map_or(0, |reply| reply.last_seen_ns);
    let State { name, timeout_ns, assured } = state(key.protocol, &Shown::of(original), &reply_shown, &names.timeouts);
    let idle_ns = now_ns.saturating_sub(original.last_seen_ns.max(reply_last_seen_ns));
    Connection {
        protocol: protocol_name(key.protocol),
        state: name,
        kind: original.kind().name(),
        original: Tuple::from(*key),
        reply: Tuple::from(reply_key),
        network: names.networks.get(&original.network).cloned(),
        network_number: original.network,
        idle_ms: idle_ns / 1_000_000,
        expires_ms: timeout_ns.saturating_sub(idle_ns) / 1_000_000,
        protocol_number: key.protocol,
        replied: reply_shown.seen != 0,
        assured,
        directions: Directions {
            original: Side::new(original, names),
            reply: reply.map(|reply| Side::new(reply, names)),
        },
        key: *key,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample::*, all_keys, connections};

    #[test]
    fn json_shows_both_tuples_as_they_arrive() {
        let connections = connections(&masqueraded(), 110 * SECOND, &names());
        let json = serde_json::to_value(&connections).unwrap();
        let expires_ms = json[0]["expires_ms"].as_u64().unwrap();
        let side = |interface| json!({"seen": ["PACKET", "SYN", "ACK"], "hop": 0, "interface": interface, "ingress_ifindex": 0});
        let expected = json!([{
            "protocol": "tcp", "protocol_number": 6, "state": "ESTABLISHED", "kind": "masquerade",
            "original": {"source": "172.17.0.2", "source_port": 40000, "destination": "198.51.100.7", "destination_port": 443},
            "reply": {"source": "198.51.100.7", "source_port": 443, "destination": "192.0.2.1", "destination_port": 1025},
            "network": "bridge", "network_number": 1, "idle_ms": 7000, "expires_ms": expires_ms,
            "replied": true, "assured": true,
            "directions": {"original": side("eth0"), "reply": side("eth0")},
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn a_connection_is_as_young_as_its_latest_packet() {
        let at = |seconds| connections(&masqueraded(), seconds * SECOND, &names())[0].clone();
        assert_eq!((at(103).idle_ms, at(104).idle_ms), (0, 1000));
        assert_eq!(at(103).expires_ms - at(104).expires_ms, 1000);
        // A packet after the clock was read.
        assert_eq!(at(90).idle_ms, 0);
        assert_eq!(at(u64::MAX / SECOND).expires_ms, 0);
    }

    #[test]
    fn half_a_connection_is_shown_when_it_is_the_half_that_opened_it() {
        let [original, reply] = masqueraded();
        let half = &connections(&[original], 110 * SECOND, &names())[0];
        assert_eq!((half.idle_ms, half.directions.reply.as_ref()), (10_000, None));
        assert!(connections(&[reply], 110 * SECOND, &names()).is_empty());
    }

    #[test]
    fn the_keys_of_all_flows_name_each_once_and_halves_too() {
        let [original, reply] = masqueraded();
        let [_, lone] = published();
        assert_eq!(all_keys(&[original, reply, lone]), [original.0, lone.0]);
        assert_eq!(all_keys(&[reply]), [reply.0]);
    }
}
