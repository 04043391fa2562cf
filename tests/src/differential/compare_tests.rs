//! What counts as a difference, on packets made by hand.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::compare::{Difference, Outcome, PORT_IS_KEPT, Ports, compare, faults};
use super::frame::{Tuple, build};
use super::known::{Case, KnownDifference};
use super::packet::{Damage, Datagram, End, Payload, Side, Step};
use super::seen::{Packet, Seen, Spot, Sum, reassemble};
use super::spoil::Spoil;
use crate::lab::HOST;

const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

fn step(len: u16) -> Step {
    let payload = Payload::Udp { source: 4000, destination: 53, checksum: true, len };
    Step::new(Side::Container(0), Datagram::new(End::Container(0), End::Remote(0), payload))
}

fn packets(step: &Step, source: (Ipv4Addr, u16)) -> Vec<Vec<u8>> {
    build(step, 0x4000, 7, &|_| Tuple { source, destination: (REMOTE, 53) })
}

/// What a masquerade makes of it that chooses `port`.
fn masqueraded(step: &Step, port: u16) -> Outcome {
    let mut out = step.clone();
    out.datagram.ttl -= 1;
    let raw = packets(&out, (HOST, port)).into_iter().map(|bytes| (Spot::World, bytes)).collect();
    Outcome { seen: reassemble(raw), sent: packets(step, (CONTAINER, 4000)), invalid: false }
}

fn whats(differences: &[Difference]) -> Vec<&'static str> {
    differences.iter().map(|difference| difference.what).collect()
}

#[test]
fn the_choice_of_a_port_is_free_but_holds() {
    let mut ports = Ports::default();
    let (one, other) = (masqueraded(&step(8), 5000), masqueraded(&step(8), 6000));
    assert_eq!(compare(&one, &other, &mut ports), []);
    assert_eq!(compare(&one, &other, &mut ports), [], "the same choice again");
    assert_eq!(
        whats(&compare(&one, &masqueraded(&step(8), 6001), &mut ports)),
        ["source port, which was another before"],
        "netpath changes its mind"
    );
    assert_eq!(
        whats(&compare(&masqueraded(&step(8), 5001), &other, &mut ports)),
        ["source port, which was another before"],
        "two flows of Docker's rules are one of netpath's"
    );
}

#[test]
fn a_port_that_only_one_side_keeps_is_told() {
    let differences = compare(&masqueraded(&step(8), 4000), &masqueraded(&step(8), 6000), &mut Ports::default());
    assert_eq!(whats(&differences), [PORT_IS_KEPT]);
}

#[test]
fn every_spoiled_outcome_differs() {
    let right = masqueraded(&step(8), 5000);
    let mut tried = 0;
    for spoil in Spoil::ALL {
        let Some(spoiled) = spoil.apply(&right) else { continue };
        let mut ports = Ports::default();
        assert_eq!(compare(&right, &right, &mut ports), []);
        assert!(!compare(&right, &spoiled, &mut ports).is_empty(), "{spoil:?}");
        tried += 1;
    }
    // All but those about quotes.
    assert_eq!(tried, Spoil::ALL.len() - 2);
}

#[test]
fn leaks_and_wrong_checksums_are_faults_whatever_the_other_one_does() -> Result<()> {
    let right = masqueraded(&step(8), 5000);
    assert_eq!(faults(&right, false), []);
    let mut leaking = right.clone();
    leaking.seen.first_mut().context("a packet")?.packet.source = CONTAINER;
    assert_eq!(whats(&faults(&leaking, false)), ["a container's own address leaves the host"]);
    let mut wrong = right;
    wrong.seen.first_mut().context("a packet")?.packet.sum = Sum::Wrong;
    assert_eq!(whats(&faults(&wrong, false)), ["a checksum is wrong"]);
    assert_eq!(faults(&wrong, true), [], "it was sent so");
    Ok(())
}

#[test]
fn no_difference_is_known_without_its_cause() {
    let step = step(8);
    let (reference, netpath) = (masqueraded(&step, 5000), Outcome { seen: Vec::new(), ..masqueraded(&step, 5000) });
    let differences = compare(&reference, &netpath, &mut Ports::default());
    assert_eq!(whats(&differences), ["verdict"]);
    let case = |reference, differences| {
        let mode = netpath_common::abi::Mode::Takeover;
        let case =
            Case { mode, step: &step, reference, netpath: &netpath, differences, reset: false, earlier: &|_| false };
        KnownDifference::of(&case)
    };
    assert_eq!(case(&reference, &differences), None);
    let invalid = Outcome { invalid: true, ..reference.clone() };
    assert_eq!(case(&invalid, &differences), Some(KnownDifference::InvalidNotLeaked));
}

#[test]
fn fragments_are_one_packet_when_all_are_there() {
    let mut whole = step(1000);
    whole.datagram.dont_fragment = false;
    let mut cut = whole.clone();
    cut.fragments.size = 256;
    cut.fragments.order = vec![3, 0, 2, 1, 1];
    let seen = |step: &Step| -> Vec<Seen> {
        reassemble(packets(step, (CONTAINER, 4000)).into_iter().map(|bytes| (Spot::World, bytes)).collect())
    };
    assert_eq!(seen(&cut), seen(&whole));
    cut.fragments.order = vec![0, 1, 3];
    assert_eq!(seen(&cut).len(), 3, "one is missing");
    assert!(seen(&cut).iter().all(|seen| seen.packet.is_fragment()));
}

#[test]
fn what_is_built_has_right_checksums_unless_it_is_damaged() -> Result<()> {
    let read = |step: &Step| Packet::read(packets(step, (CONTAINER, 4000)).first()?);
    let mut step = step(33);
    let packet = read(&step).context("read it")?;
    assert_eq!((packet.header_sum, packet.sum), (Sum::Right, Sum::Right));
    step.damage = Some(Damage::TransportChecksum);
    assert_eq!(read(&step).context("read it")?.sum, Sum::Wrong);
    step.damage = Some(Damage::HeaderChecksum);
    assert_eq!(read(&step).context("read it")?.header_sum, Sum::Wrong);
    Ok(())
}
