//! Properties of the blocks, and their number for ranges as operators write them.

use proptest::{collection, prelude::*};

use super::*;

const WEB: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);

type Ports = BTreeMap<PublishedPort, PublishedTarget>;

/// `count` ports from `first` that lead to as many from `inside`; those beyond the last port are left out.
fn range(protocol: Protocol, first: u16, count: u16, to: (Ipv4Addr, u16)) -> Ports {
    let port = |step: u16| {
        let port = PublishedPort { address: Ipv4Addr::UNSPECIFIED, protocol, port: first.checked_add(step)? };
        Some((port, PublishedTarget { address: to.0, port: to.1.checked_add(step)? }))
    };
    (0..count).map_while(port).collect()
}

fn some_range() -> impl Strategy<Value = Ports> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let port = || prop_oneof![1..=u16::MAX, 8000..8100_u16, 65_000..=u16::MAX];
    let count = prop_oneof![1..5_u16, 1..3000_u16];
    (protocol, port(), count, any::<bool>(), port(), any::<bool>()).prop_map(
        |(protocol, first, count, to_web, inside, keeps_number)| {
            let inside = if keeps_number { first } else { inside };
            range(protocol, first, count, (if to_web { WEB } else { OTHER }, inside))
        },
    )
}

fn some_ports() -> impl Strategy<Value = Ports> {
    collection::vec(some_range(), 0..6).prop_map(|ranges| ranges.into_iter().flatten().collect())
}

fn singly(blocks: &BTreeMap<PortBlock, PublishedTarget>) -> Vec<(PublishedPort, PublishedTarget)> {
    blocks.iter().flat_map(|(block, target)| block.ports(*target)).collect()
}

fn of(ports: &Ports, address: Ipv4Addr) -> Ports {
    ports.iter().filter(|(_, target)| target.address == address).map(|(port, target)| (*port, *target)).collect()
}

proptest! {
    #[test]
    fn the_blocks_are_exactly_the_ports_each_once(ports in some_ports()) {
        let singly = singly(&blocks(&ports));
        prop_assert_eq!(singly, ports.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_block_is_a_prefix(ports in some_ports()) {
        for block in blocks(&ports).keys() {
            prop_assert_eq!(usize::from(block.first.port) % block.count(), 0, "{}", block);
        }
    }

    #[test]
    fn a_range_has_at_most_two_blocks_of_each_size(ports in some_range()) {
        let mut sizes = BTreeMap::<u8, usize>::new();
        for block in blocks(&ports).keys() {
            *sizes.entry(block.bits).or_default() += 1;
        }
        prop_assert!(sizes.values().all(|count| *count <= 2), "{sizes:?}");
        let longest = ports.len().checked_ilog2().unwrap_or(0);
        prop_assert!(sizes.keys().all(|bits| u32::from(*bits) <= longest));
    }

    #[test]
    fn what_another_container_publishes_changes_no_block(ports in some_ports()) {
        let all = blocks(&ports);
        let alone = [WEB, OTHER].map(|address| blocks(&of(&ports, address)));
        prop_assert_eq!(all, alone.into_iter().flatten().collect::<BTreeMap<_, _>>());
    }
}

#[test]
fn ranges_as_operators_write_them_are_few_blocks() {
    for (first, count, inside, expected) in [
        (8080, 1, 80, 1),
        (4096, 4096, 4096, 1),
        (8000, 2000, 8000, 6),
        (20_000, 2000, 20_000, 10),
        (8000, 1000, 80, 6),
        (1, u16::MAX, 1, 16),
        (1, u16::MAX - 1, 1, 30),
    ] {
        let blocks = blocks(&range(Protocol::Udp, first, count, (WEB, inside)));
        assert_eq!(blocks.len(), expected, "{count} ports from {first}: {blocks:?}");
    }
}

#[test]
fn ports_that_follow_each_other_on_one_side_only_are_blocks_of_their_own() {
    let crossed: Ports =
        range(Protocol::Tcp, 8000, 1, (WEB, 81)).into_iter().chain(range(Protocol::Tcp, 8001, 1, (WEB, 80))).collect();
    assert_eq!(blocks(&crossed).keys().map(|block| block.bits).collect::<Vec<_>>(), [0, 0]);
    let two: Ports = range(Protocol::Tcp, 8000, 1, (WEB, 80))
        .into_iter()
        .chain(range(Protocol::Tcp, 8001, 1, (OTHER, 81)))
        .collect();
    assert_eq!(blocks(&two).len(), 2);
}

#[test]
fn blocks_are_named_by_their_edges() {
    let names: Vec<_> = blocks(&range(Protocol::Sctp, 7999, 17, (WEB, 7999))).keys().map(ToString::to_string).collect();
    assert_eq!(names, ["0.0.0.0:7999/sctp", "0.0.0.0:8000-8015/sctp"]);
}
