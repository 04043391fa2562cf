//! Connections for tests.

use std::collections::BTreeMap;

use netpath_common::abi::{Direction, Flow, FlowKey, FlowKind, Seen};

use super::connection::Names;

pub(super) const SECOND: u64 = 1_000_000_000;
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

pub(super) fn masqueraded() -> [(FlowKey, Flow); 2] {
    let (world, open) = ((WORLD, 443), Seen::PACKET | Seen::SYN | Seen::ACK);
    let (arrives, leaves) = (key(6, (CONTAINER, 40000), world), key(6, (HOST, 1025), world));
    pair(arrives, leaves, FlowKind::Masquerade, [open; 2], [100 * SECOND, 103 * SECOND])
}

pub(super) fn published() -> [(FlowKey, Flow); 2] {
    let client = (WORLD, 5353);
    let (arrives, leaves) = (key(17, client, (HOST, 53)), key(17, client, (CONTAINER, 5300)));
    pair(arrives, leaves, FlowKind::Published, [Seen::PACKET, 0], [107 * SECOND, 0])
}

pub(super) fn pinged() -> [(FlowKey, Flow); 2] {
    let (arrives, leaves) = (key(1, (CONTAINER, 77), (WORLD, 0)), key(1, (HOST, 78), (WORLD, 0)));
    pair(arrives, leaves, FlowKind::Masquerade, [Seen::PACKET; 2], [110 * SECOND; 2])
}

pub(super) fn names() -> Names {
    Names {
        networks: BTreeMap::from([(1, "bridge".to_owned())]),
        interfaces: BTreeMap::from([(0, "eth0".to_owned())]),
        ..Names::default()
    }
}
