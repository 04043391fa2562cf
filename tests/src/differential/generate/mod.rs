//! From a seed to a sequence of packets. One seed gives one sequence, on every machine.
//!
//! A sequence is one to three scenarios, woven into each other: each keeps its own order. All that is random comes from
//! the seed; addresses and ports that the dataplanes choose have names ([`super::packet::End`]).

mod dice;
mod errors;
mod icmp;
mod odd;
mod talk;
mod tcp;
mod udp;

use dice::Dice;

use super::packet::{Sequence, Step};

/// Packets of a sequence at most: an identification has room for more, a reader hasn't.
const STEPS_MAX: usize = 28;

/// A scenario: what it is called by a seed's last digits is its place in this list, weighted by how often it stands there.
const SCENARIOS: &[fn(&mut Dice) -> Vec<Step>] = &[
    tcp::conversation,
    tcp::conversation,
    tcp::conversation,
    tcp::reused,
    tcp::half_open,
    tcp::simultaneous_open,
    tcp::stray,
    udp::conversation,
    udp::clash,
    udp::published_clash,
    icmp::echo,
    icmp::clash,
    icmp::unsolicited,
    errors::about_a_flow,
    errors::about_a_flow,
    errors::about_nothing,
    odd::fragments,
    odd::damaged,
    odd::host,
    odd::other_protocols,
];

/// Whether docker-proxy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// Docker's default.
    On,
    /// `--userland-proxy=false`.
    Off,
}

/// The sequence of a seed. With docker-proxy, which takes time as it likes, hairpin flows aren't comparable.
#[must_use]
pub fn sequence(seed: u64, proxy: Proxy) -> Sequence {
    let mut dice = Dice::new(seed);
    if proxy == Proxy::Off && dice.chance(5) {
        return Sequence { seed, steps: udp::hairpin(&mut dice) };
    }
    let count = dice.pick(&[1, 1, 2, 2, 3]);
    let mut threads: Vec<Vec<Step>> = (0..count)
        .map(|_| {
            let scenario = dice.pick(SCENARIOS);
            scenario(&mut dice)
        })
        .collect();
    let mut steps = Vec::new();
    while threads.iter().any(|thread| !thread.is_empty()) && steps.len() < STEPS_MAX {
        threads.retain(|thread| !thread.is_empty());
        let position = dice.below(threads.len());
        // A run of packets of one thread more often than one alone: that is how hosts send.
        for _ in 0..=dice.below(3) {
            if !threads[position].is_empty() {
                steps.push(threads[position].remove(0));
            }
        }
    }
    steps.truncate(STEPS_MAX);
    Sequence { seed, steps }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::differential::packet::Payload;

    #[test]
    fn a_seed_always_gives_the_same_sequence() {
        for seed in 0..50 {
            assert_eq!(sequence(seed, Proxy::On), sequence(seed, Proxy::On));
        }
        assert_ne!(sequence(1, Proxy::On), sequence(2, Proxy::On));
    }

    #[test]
    fn sequences_are_neither_empty_nor_endless_and_hold_every_kind_of_packet() {
        let mut kinds = BTreeSet::new();
        for seed in 0..2000 {
            let sequence = sequence(seed, Proxy::Off);
            assert!((1..=STEPS_MAX).contains(&sequence.steps.len()), "seed {seed}");
            for step in &sequence.steps {
                kinds.insert(match &step.datagram.payload {
                    _ if step.damage.is_some() => "damaged",
                    _ if step.fragments.size != 0 => "in fragments",
                    Payload::Tcp(_) => "TCP",
                    Payload::Udp { .. } => "UDP",
                    Payload::Echo { .. } => "echo",
                    Payload::Error { .. } => "error",
                    Payload::Other { .. } => "other",
                });
            }
        }
        assert_eq!(kinds.len(), 7, "{kinds:?}");
    }
}
