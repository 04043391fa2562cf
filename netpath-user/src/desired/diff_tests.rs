//! Properties of the difference, over small states so that overlaps are frequent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use netpath_common::abi::Mode;
use proptest::{collection, prelude::*, sample};

use super::*;
use crate::desired::{
    model::{Admission, Attachment, Endpoint, Entrance, Hook, LinkEnd, Protocol, Uplink},
    policy::Policy,
    ports::PublishedPort,
};

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (1_u8..6).prop_map(|last| Ipv4Addr::new(172, 17, 0, last))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (1_u32..4, 1_u16..3).prop_map(|(ifindex, network)| Endpoint {
        ifindex,
        bridge_ifindex: 9,
        mac: [2, 0, 0, 0, 0, 1],
        bridge_mac: [2, 0, 0, 0, 0, 2],
        network,
        gateway: Ipv4Addr::new(172, 17, 0, 1),
        masquerade: Ipv4Addr::UNSPECIFIED,
        terms: 0,
        full_cone: false,
        mtu: 1500,
        takes_frames: false,
    })
}

fn published(targets: Vec<Ipv4Addr>) -> BoxedStrategy<BTreeMap<PortBlock, PublishedTarget>> {
    if targets.is_empty() {
        return Just(BTreeMap::new()).boxed();
    }
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let block = (1_u16..6, protocol, 0_u8..3).prop_map(|(port, protocol, bits)| PortBlock {
        first: PublishedPort { address: Ipv4Addr::UNSPECIFIED, protocol, port: port << bits },
        bits,
    });
    let target = (sample::select(targets), 1_u16..3).prop_map(|(address, port)| PublishedTarget { address, port });
    collection::btree_map(block, target, 0..6).boxed()
}

fn entrance() -> impl Strategy<Value = Entrance> {
    prop_oneof![
        (1_u32..4).prop_map(Entrance::Veth),
        (1_u32..4, address()).prop_map(|(ifindex, address)| Entrance::Address(ifindex, address)),
        (1_u32..4, 1_u16..3).prop_map(|(ifindex, network)| Entrance::Trusted(ifindex, network)),
        (1_u32..4, address(), 1_u16..3, any::<bool>()).prop_map(|(ifindex, neighbour, port, answers)| {
            Entrance::Linked(ifindex, LinkEnd { neighbour, protocol: Protocol::Tcp, port, answers })
        }),
    ]
}

fn admission() -> impl Strategy<Value = Admission> {
    (0_u16..2, any::<bool>()).prop_map(|(terms, any_source)| Admission { network: 1, terms, any_source })
}

fn attachment() -> impl Strategy<Value = Attachment> {
    let hooks = vec![Hook::Uplink, Hook::Egress, Hook::XdpUplink, Hook::Container, Hook::Bridge, Hook::Loopback];
    (1_u32..4, sample::select(hooks)).prop_map(|(ifindex, hook)| Attachment { ifindex, hook })
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), 0_u16..3).prop_map(|(dry_run, default_counter)| Policy {
        dry_run,
        default_counter,
        ..Policy::default()
    })
}

prop_compose! {
    /// A state whose published ports all lead to endpoints of its own.
    fn state()(endpoints in collection::btree_map(address(), endpoint(), 0..5))(
        published in published(endpoints.keys().copied().collect()),
        endpoints in Just(endpoints),
        sole in any::<bool>(),
        policy in policy(),
        uplinks in collection::btree_map(1_u32..4, 576_u32..579, 0..3),
        host_addresses in collection::btree_set(address(), 0..4),
        host_addresses_ipv6 in collection::btree_set((0..4_u128).prop_map(Ipv6Addr::from_bits), 0..4),
        attachments in collection::btree_set(attachment(), 0..6),
        admitted in collection::btree_map(entrance(), admission(), 0..5),
    ) -> State {
        let uplink = |mtu| Uplink { addresses: vec![(Ipv4Addr::new(192, 0, 2, 1), 24)], mtu, gateway: Ipv4Addr::new(192, 0, 2, 254) };
        State {
            mode: if sole { Mode::Sole } else { Mode::Takeover },
            policy,
            endpoints,
            admitted,
            published,
            uplinks: uplinks.into_iter().map(|(ifindex, mtu)| (ifindex, uplink(mtu))).collect(),
            host_addresses,
            host_addresses_ipv6,
            attachments,
        }
    }
}

fn leads_nowhere(state: &State) -> bool {
    state.published.values().any(|target| !state.endpoints.contains_key(&target.address))
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_desired_state(actual in state(), desired in state()) {
        let mut reached = actual.clone();
        for change in diff(&actual, &desired) {
            reached.apply(&change);
        }
        prop_assert_eq!(reached, desired);
    }

    #[test]
    fn a_state_does_not_differ_from_itself(state in state()) {
        prop_assert_eq!(diff(&state, &state), vec![]);
    }

    #[test]
    fn no_step_leaves_a_published_port_without_its_endpoint(actual in state(), desired in state()) {
        let mut reached = actual.clone();
        for change in diff(&actual, &desired) {
            reached.apply(&change);
            prop_assert!(!leads_nowhere(&reached), "after {change:?}");
        }
    }

    #[test]
    fn what_is_in_both_states_is_there_at_every_step(actual in state(), desired in state()) {
        let mut reached = actual.clone();
        for change in diff(&actual, &desired) {
            reached.apply(&change);
            for address in actual.endpoints.keys().filter(|address| desired.endpoints.contains_key(address)) {
                prop_assert!(reached.endpoints.contains_key(address), "after {change:?}");
            }
            for block in actual.published.keys().filter(|block| desired.published.contains_key(block)) {
                prop_assert!(reached.published.contains_key(block), "after {change:?}");
            }
            let kept: BTreeSet<_> = actual.attachments.intersection(&desired.attachments).collect();
            prop_assert!(kept.iter().all(|attachment| reached.attachments.contains(attachment)), "after {change:?}");
        }
    }
}

#[test]
fn the_policy_stands_before_what_it_guards() {
    let endpoint = PublishedTarget { address: Ipv4Addr::new(172, 17, 0, 2), port: 80 };
    let port = PublishedPort { address: Ipv4Addr::UNSPECIFIED, port: 80, protocol: Protocol::Tcp };
    let policy = Policy { dry_run: true, ..Policy::default() };
    let desired = State { policy: policy.clone(), published: [(port.into(), endpoint)].into(), ..State::default() };
    assert_eq!(diff(&State::default(), &desired).first(), Some(&Change::SetPolicy(policy)));
}

#[test]
fn thousands_of_published_ports_are_split_into_batches() {
    let target = PublishedTarget { address: Ipv4Addr::new(172, 17, 0, 2), port: 80 };
    let port = |port| PublishedPort { address: Ipv4Addr::UNSPECIFIED, port, protocol: Protocol::Udp };
    let published = (1..=2500).map(|number| (port(number).into(), target)).collect();
    let desired = State { published, ..State::default() };
    let sizes: Vec<usize> = diff(&State::default(), &desired)
        .iter()
        .map(|change| match change {
            Change::SetPublished(ports) => ports.len(),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(sizes, [1024, 1024, 452]);
}
