//! Numbers for networks: small, never 0, and the same after a restart of the daemon.
//!
//! Flows remember the number of their network, so a bridge keeps the number it has for as long as it exists.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{IfIndex, State};

/// The number of each bridge's network.
pub type Numbers = BTreeMap<IfIndex, u16>;

/// The numbers that a state already uses.
#[must_use]
pub fn in_use(state: &State) -> Numbers {
    state.endpoints.values().map(|endpoint| (endpoint.bridge_ifindex, endpoint.network)).collect()
}

/// Gives each bridge its number: the one it has, else its interface index where that fits and is free, else the next
/// free number after it. A bridge stays without one only when all 65,535 are taken.
#[must_use]
pub fn assign(bridges: &BTreeSet<IfIndex>, known: &Numbers) -> Numbers {
    let mut numbers: Numbers = known
        .iter()
        .filter(|(bridge, _)| bridges.contains(bridge))
        .map(|(bridge, number)| (*bridge, *number))
        .collect();
    let mut taken: BTreeSet<u16> = numbers.values().copied().collect();
    for bridge in bridges {
        if numbers.contains_key(bridge) {
            continue;
        }
        // An interface index is counted up from 1 and seldom passes 65,535, so this is nearly always the index itself.
        let start = u16::try_from((bridge.max(&1) - 1) % u32::from(u16::MAX) + 1).unwrap_or(1);
        if let Some(number) = (start..=u16::MAX).chain(1..start).find(|number| !taken.contains(number)) {
            taken.insert(number);
            numbers.insert(*bridge, number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bridges: &[IfIndex], known: &[(IfIndex, u16)], expected: &[(IfIndex, u16)]) {
        let numbers = assign(&bridges.iter().copied().collect(), &known.iter().copied().collect());
        assert_eq!(numbers, expected.iter().copied().collect());
    }

    #[test]
    fn a_bridge_is_numbered_by_its_interface_index() {
        check(&[3, 8], &[], &[(3, 3), (8, 8)]);
    }

    #[test]
    fn a_number_once_given_stays_and_is_not_given_twice() {
        check(&[3, 8], &[(8, 3)], &[(3, 4), (8, 3)]);
    }

    #[test]
    fn the_number_of_a_bridge_that_is_gone_is_free_again() {
        check(&[3], &[(9, 3)], &[(3, 3)]);
    }

    #[test]
    fn a_large_interface_index_still_gets_a_number() {
        check(&[65_535, 65_536, 131_070], &[], &[(65_535, 65_535), (65_536, 1), (131_070, 2)]);
    }
}
