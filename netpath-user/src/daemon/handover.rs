//! Which of nf_conntrack's connections stay with it when netpath takes over.
//!
//! A connection that began before netpath came has its translation in nf_conntrack, and only there. So each one that
//! netpath could see is left to the kernel until it ends, by the tuples of its packets as they arrive.

use std::{collections::BTreeSet, net::Ipv4Addr};

use netpath_common::{abi::FlowKey, wire::protocol};

use super::engine::Engine;
use crate::{
    dataplane::HandoverFlow,
    desired::model::State,
    kernel_conntrack::{Connection, Tuple},
};

/// Leaves the connections that are there with nf_conntrack and lets netpath open flows from then on. Gives how many
/// were left.
///
/// # Errors
///
/// When the connections can't be read or written; then netpath opens no flows, as it would break them.
pub(super) fn take_over(engine: &mut impl Engine) -> anyhow::Result<usize> {
    let mut left = BTreeSet::new();
    leave_new(engine, &mut left)?;
    engine.begin_opening_flows()?;
    // Connections that began between the two steps before.
    leave_new(engine, &mut left)?;
    Ok(left.len() / 2)
}

/// Leaves the datagrams' connections that nf_conntrack translates with it: nothing but it knows who waits for their packets.
///
/// # Errors
///
/// When the connections can't be read or written.
pub(super) fn leave_translated(engine: &mut impl Engine) -> anyhow::Result<()> {
    let mut connections = engine.connections()?;
    connections.retain(|connection| {
        connection.original.protocol == protocol::UDP && connection.reply != connection.original.reversed()
    });
    let flows = flows(&connections, &concerned(engine.actual()));
    engine.hand_over(&flows)
}

fn leave_new(engine: &mut impl Engine, left: &mut BTreeSet<FlowKey>) -> anyhow::Result<()> {
    let connections = engine.connections()?;
    let mut flows = flows(&connections, &concerned(engine.actual()));
    flows.retain(|flow| left.insert(flow.key));
    engine.hand_over(&flows)
}

/// The addresses whose connections netpath may see: containers' and the host's own on its links.
fn concerned(state: &State) -> BTreeSet<Ipv4Addr> {
    let host = state.host_addresses.iter().filter(|address| !address.is_loopback());
    state.endpoints.keys().chain(host).copied().collect()
}

/// Both directions of each connection that concerns one of `addresses`.
fn flows(connections: &[Connection], addresses: &BTreeSet<Ipv4Addr>) -> Vec<HandoverFlow> {
    let concerns = |tuple: &Tuple| addresses.contains(&tuple.source) || addresses.contains(&tuple.destination);
    let concerned =
        connections.iter().filter(|connection| concerns(&connection.original) || concerns(&connection.reply));
    concerned
        .flat_map(|connection| {
            [&connection.original, &connection.reply]
                .map(|tuple| HandoverFlow { key: FlowKey::from(*tuple), timeout: connection.timeout })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn tuple(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
        Tuple {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol: 17,
        }
    }

    fn connection(original: Tuple, reply: Tuple) -> Connection {
        Connection { original, reply, timeout: Duration::from_secs(30), established_tcp: false }
    }

    #[test]
    fn both_directions_stay_with_the_kernel_as_their_packets_arrive() {
        let masqueraded = connection(tuple((CONTAINER, 5000), (WORLD, 53)), tuple((WORLD, 53), (HOST, 61000)));
        let keys: Vec<_> = flows(&[masqueraded], &[CONTAINER].into()).iter().map(|flow| flow.key).collect();
        let expected = |source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, destination_port: u16| FlowKey {
            source: source.octets(),
            destination: destination.octets(),
            source_port: source_port.to_be_bytes(),
            destination_port: destination_port.to_be_bytes(),
            protocol: 17,
            reserved: [0; 3],
        };
        assert_eq!(keys, [expected(CONTAINER, 5000, WORLD, 53), expected(WORLD, 53, HOST, 61000)]);
    }

    #[test]
    fn connections_of_others_are_not_netpaths_business() {
        let routed = connection(
            tuple((WORLD, 1), (Ipv4Addr::new(10, 0, 0, 1), 2)),
            tuple((Ipv4Addr::new(10, 0, 0, 1), 2), (WORLD, 1)),
        );
        assert_eq!(flows(&[routed], &[CONTAINER, HOST].into()).len(), 0);
    }

    #[test]
    fn the_hosts_own_addresses_concern_netpath_but_loopback_does_not() {
        let state = State { host_addresses: [HOST, Ipv4Addr::LOCALHOST].into(), ..State::default() };
        assert_eq!(concerned(&state), [HOST].into());
    }
}
