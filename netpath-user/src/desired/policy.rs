//! The operator's policy as the programs know it: networks by their numbers, one rule for each combination of values, and
//! a counter for each rule that the operator wrote.
//!
//! A rule whose content stays keeps its counter, wherever in the list it goes; a new one begins at zero.

use std::collections::{BTreeMap, BTreeSet};

use netpath_common::abi::{self, Action, PolicyKey, PolicyRule};

use crate::settings::{
    PortRange,
    policy::{self as settings, Prefix, Rule},
};

/// A list for the programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// For what no rule fits.
    pub default: Action,
    /// Where that is counted.
    pub default_counter: u16,
    /// Counts what would be denied, and denies nothing.
    pub dry_run: bool,
    /// The rules in their order.
    pub rules: Vec<PolicyRule>,
}

impl Policy {
    /// The counters that it uses.
    #[must_use]
    pub fn counters(&self) -> BTreeSet<u16> {
        self.rules.iter().map(|rule| rule.counter).chain([self.default_counter]).collect()
    }

    /// The rules in groups: each is what an operator wrote as one.
    pub fn groups(&self) -> impl Iterator<Item = &[PolicyRule]> {
        self.rules.chunk_by(|one, next| one.counter == next.counter)
    }
}

/// The list that an operator wants. `number` is that of a network's name or id, if it exists; `actual` is the list in force,
/// whose counters go on.
#[must_use]
pub fn resolve(wanted: &settings::Policy, number: impl Fn(&str) -> Option<u16>, actual: &Policy) -> Policy {
    let mut counters = Counters::of(actual);
    let default_counter = if wanted.default == actual.default { actual.default_counter } else { counters.free() };
    let mut policy = Policy { default: wanted.default, default_counter, dry_run: wanted.dry_run, rules: Vec::new() };
    for rule in &wanted.rules {
        let mut group = combinations(rule, &number);
        let counter = counters.of_group(&group);
        for rule in &mut group {
            rule.counter = counter;
        }
        policy.rules.append(&mut group);
    }
    policy
}

/// The networks that a policy names and that don't exist, each with the line of its rule.
#[must_use]
pub fn missing(wanted: &settings::Policy, number: impl Fn(&str) -> Option<u16>) -> Vec<(usize, &str)> {
    let named = wanted.rules.iter().flat_map(|rule| rule.network.iter().map(|name| (rule.line, name.as_str())));
    named.filter(|(_, name)| number(name).is_none()).collect()
}

/// The rules that never decide, because rules before them fit all that they do: the line of each, and that of the last rule
/// that it takes.
#[must_use]
pub fn unreachable(wanted: &settings::Policy) -> Vec<(usize, usize)> {
    let names: BTreeSet<&String> = wanted.rules.iter().flat_map(|rule| &rule.network).collect();
    let numbers: BTreeMap<&str, u16> = names.into_iter().map(String::as_str).zip(1..).collect();
    let number = |name: &str| numbers.get(name).copied();
    let mut found = Vec::new();
    let mut before: Vec<(usize, PolicyRule)> = Vec::new();
    for rule in &wanted.rules {
        let group = combinations(rule, &number);
        let cover = |one| before.iter().find(|(_, earlier)| covers(earlier, one)).map(|(line, _)| *line);
        let lines: Option<Vec<usize>> = group.iter().map(cover).collect();
        found.extend(lines.and_then(|lines| lines.into_iter().max()).map(|line| (rule.line, line)));
        before.extend(group.into_iter().map(|one| (rule.line, one)));
    }
    found
}

/// Whether one rule fits all that another does.
fn covers(one: &PolicyRule, other: &PolicyRule) -> bool {
    let [wanted, mask, other_wanted, other_mask] =
        [one.wanted, one.mask, other.wanted, other.mask].map(bytemuck::cast::<PolicyKey, u64>);
    mask & !other_mask == 0
        && (wanted ^ other_wanted) & mask == 0
        && one.port_first <= other.port_first
        && one.port_last >= other.port_last
}

/// One rule for each combination of values; no counter yet.
fn combinations(rule: &Rule, number: &impl Fn(&str) -> Option<u16>) -> Vec<PolicyRule> {
    const ANY_PORT: PortRange = PortRange { first: 0, last: u16::MAX };
    /// It ends before it begins: no port is in it.
    const NO_PORT: PortRange = PortRange { first: 1, last: 0 };
    let mut group = Vec::new();
    for source in or_any(&rule.source, Prefix::ANY) {
        for network in or_any(&rule.network.iter().map(Some).collect::<Vec<_>>(), None) {
            for ports in or_any(&rule.port, ANY_PORT) {
                for protocol in or_any(&rule.protocol.iter().map(|one| Some(one.number())).collect::<Vec<_>>(), None) {
                    let found = network.map(|name| number(name));
                    let ports = if found == Some(None) { NO_PORT } else { ports };
                    let (network, network_mask) = exactly(found.map(|number| number.unwrap_or(0)), u16::MAX);
                    let (protocol, protocol_mask) = exactly(protocol, u8::MAX);
                    let (origin, origin_mask) = exactly(rule.from.map(|from| from as u8), u8::MAX);
                    let (address, mask) = (source.address.octets(), source.mask().octets());
                    group.push(PolicyRule {
                        wanted: PolicyKey { source: address, network, protocol, origin },
                        mask: PolicyKey {
                            source: mask,
                            network: network_mask,
                            protocol: protocol_mask,
                            origin: origin_mask,
                        },
                        port_first: ports.first,
                        port_last: ports.last,
                        counter: 0,
                        action: rule.action as u8,
                        reserved: 0,
                    });
                }
            }
        }
    }
    group
}

fn or_any<T: Clone>(values: &[T], any: T) -> Vec<T> {
    if values.is_empty() { vec![any] } else { values.to_vec() }
}

/// A value and the mask that asks for it; without one, those that ask for nothing.
fn exactly<T: Default>(value: Option<T>, all: T) -> (T, T) {
    value.map_or_else(Default::default, |value| (value, all))
}

/// Who has which counter.
struct Counters<'a> {
    /// Rules whose counters nobody of the new list has taken yet.
    left: Vec<&'a [PolicyRule]>,
    /// Those of either list.
    used: BTreeSet<u16>,
}

impl<'a> Counters<'a> {
    fn of(actual: &'a Policy) -> Self {
        Self { left: actual.groups().collect(), used: actual.counters() }
    }

    fn of_group(&mut self, group: &[PolicyRule]) -> u16 {
        let is_same = |old: &&[PolicyRule]| {
            old.len() == group.len()
                && old.iter().zip(group).all(|(old, new)| PolicyRule { counter: new.counter, ..*old } == *new)
        };
        match self.left.iter().position(is_same).map(|position| self.left.remove(position)) {
            Some(old) => old.first().map_or(0, |rule| rule.counter),
            None => self.free(),
        }
    }

    /// A counter that neither list uses; there are enough for two whole lists.
    fn free(&mut self) -> u16 {
        let all = 0..u16::try_from(abi::Policy::COUNTERS).unwrap_or(u16::MAX);
        let free = all.into_iter().find(|counter| !self.used.contains(counter)).unwrap_or(0);
        self.used.insert(free);
        free
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
