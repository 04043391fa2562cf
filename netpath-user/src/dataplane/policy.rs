//! The policy's maps: the list in force, the place for the next one, and the rules' counters.
//!
//! A new list is written whole where no program looks, then one write of a number puts it in force: a packet is judged by
//! the old list or by the new one, never by some of each. Whoever is killed in between leaves the old one in force.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use aya::{
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use netpath_common::abi::{self, Action, PolicyRule, Traffic, names::map};

use super::{
    bpf,
    layout::Layout,
    pins::{PinsError, typed},
};
use crate::desired::policy::Policy;

/// The policy's pinned maps.
pub struct PolicyPins {
    lists: Array<MapData, abi::Policy>,
    in_force: Array<MapData, u32>,
    hits: PerCpuArray<MapData, Traffic>,
}

impl PolicyPins {
    /// Opens the maps that are pinned below a directory.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub fn open(pin_dir: &Path) -> Result<Self, PinsError> {
        let layout = Layout::new(pin_dir);
        Ok(Self {
            lists: typed(&layout, map::POLICIES, Map::Array)?,
            in_force: typed(&layout, map::POLICY_IN_FORCE, Map::Array)?,
            hits: typed(&layout, map::POLICY_HITS, Map::PerCpuArray)?,
        })
    }

    /// The list in force.
    ///
    /// # Errors
    ///
    /// When the maps can't be read.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        Ok(read(&self.packed()?))
    }

    /// The list in force, as the programs have it.
    pub(super) fn packed(&self) -> anyhow::Result<abi::Policy> {
        self.lists.get(&self.place()?, 0).context("can't read the map of policies")
    }

    /// What the rules of a list have fitted, by counter.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn hits(&self, policy: &Policy) -> anyhow::Result<BTreeMap<u16, Traffic>> {
        let sum = |counter: u16| {
            let values = self.hits.get(&u32::from(counter), 0).context("can't read the policy's counters")?;
            let sum = values.iter().fold(Traffic::zeroed(), |sum, value| Traffic {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            });
            Ok((counter, sum))
        };
        policy.counters().into_iter().map(sum).collect()
    }

    /// Puts another list in force. When this returns, no packet is judged by the old one any more. For one writer at a time:
    /// the daemon.
    ///
    /// # Errors
    ///
    /// When the maps can't be written.
    pub fn set(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let next = (self.place()? + 1) % abi::Policy::PLACES as u32;
        let old = self.policy()?.counters();
        for counter in policy.counters().difference(&old) {
            self.reset(*counter)?;
        }
        self.lists.set(next, packed(policy)?, 0).context("can't write the map of policies")?;
        self.in_force.set(0, next, 0).context("can't put the policy in force")?;
        // Whoever began with the old list must be through before its place is written again.
        bpf::wait_for_programs();
        Ok(())
    }

    fn place(&self) -> anyhow::Result<u32> {
        self.in_force.get(&0, 0).context("can't read which policy is in force")
    }

    fn reset(&mut self, counter: u16) -> anyhow::Result<()> {
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
        let zero = PerCpuValues::try_from(vec![Traffic::zeroed(); cpus]).context("can't lay out a counter")?;
        self.hits.set(u32::from(counter), zero, 0).context("can't reset a counter of the policy")
    }
}

fn packed(policy: &Policy) -> anyhow::Result<abi::Policy> {
    let mut packed = abi::Policy {
        rule_count: u16::try_from(policy.rules.len()).context("the policy is too long")?,
        default_counter: policy.default_counter,
        default_action: policy.default as u8,
        dry_run: u8::from(policy.dry_run),
        ..abi::Policy::NONE
    };
    let places = packed.rules.get_mut(..policy.rules.len()).context("the policy is too long")?;
    places.copy_from_slice(&policy.rules);
    Ok(packed)
}

fn read(packed: &abi::Policy) -> Policy {
    let rules: &[PolicyRule] = packed.rules.get(..usize::from(packed.rule_count)).unwrap_or(&packed.rules);
    Policy {
        default: Action::numbered(packed.default_action),
        default_counter: packed.default_counter,
        dry_run: packed.dry_run != 0,
        rules: rules.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_the_map() {
        let rule = PolicyRule { port_last: 80, counter: 9, action: Action::Deny as u8, ..PolicyRule::UNSET };
        for rules in [vec![], vec![rule], vec![rule; abi::Policy::RULES_MAX]] {
            let policy = Policy { default: Action::Deny, default_counter: 3, dry_run: true, rules };
            assert_eq!(read(&packed(&policy).unwrap()), policy);
        }
        assert_eq!(read(&abi::Policy::zeroed()), Policy::default());
        let long = Policy { rules: vec![rule; abi::Policy::RULES_MAX + 1], ..Policy::default() };
        assert!(packed(&long).is_err());
    }
}
