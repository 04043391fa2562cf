//! Which rules netpath's packets pass by, and whose packets they may be about.
//!
//! For every network there are two kinds of packets, from its containers and to them. Each is a [`Case`]: the interfaces and
//! addresses that such packets can have at a hook. Walking a chain, a rule's conditions narrow the cases; a rule that none
//! is left for isn't about containers, and a rule that lets a case pass for good hides it from the rules that follow.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Backend, Chain, Conditions, DOCKER_USER, Hook, Match, Rule, Ruleset, Table, is_dockers_chain};
use crate::{desired::docker::Id, subnet::Subnet};

/// Chains jump to chains; deeper than the kernel allows there is nothing (`NFT_JUMP_STACK_SIZE`).
const DEPTH_MAX: usize = 16;

/// What rules are held against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// The networks that netpath would carry.
    pub networks: Vec<SceneNetwork>,
    /// Names of the uplinks.
    pub uplinks: BTreeSet<String>,
    /// The host's addresses, at which ports are published.
    pub host_addresses: Vec<Subnet>,
}

/// A network that netpath would carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SceneNetwork {
    /// Docker's id.
    pub id: Id,
    /// Docker's name.
    pub name: String,
    /// The name of its bridge.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

/// What a bypassed rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It keeps packets out.
    Restricts,
    /// It changes packets, or where they go.
    Changes,
    /// It counts or logs them.
    Counts,
}

impl Effect {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restricts => "restricts",
            Self::Changes => "changes",
            Self::Counts => "counts",
        }
    }

    /// Whether passing it by does harm.
    #[must_use]
    pub const fn is_harmful(self) -> bool {
        !matches!(self, Self::Counts)
    }
}

/// A rule that is bypassed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whose table it is in.
    pub backend: Backend,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule as its tool prints it.
    pub rule: String,
    /// What it does.
    pub effect: Effect,
    /// The networks whose packets it may be about.
    pub networks: BTreeSet<Id>,
}

impl Finding {
    /// The rule with its table, as one would type it.
    #[must_use]
    pub fn command(&self) -> String {
        match self.backend {
            Backend::IptablesNft | Backend::IptablesLegacy => {
                format!("{} -t {} {}", self.backend, self.table, self.rule)
            }
            Backend::Nft => format!("nft {} {}: {}", self.table, self.chain, self.rule),
        }
    }
}

/// The rules that netpath's packets would pass by.
#[must_use]
pub fn bypassed(ruleset: &Ruleset, scene: &Scene) -> Vec<Finding> {
    let mut findings = BTreeMap::new();
    for table in &ruleset.tables {
        for (name, chain) in &table.chains {
            let Some(hook) = chain.hook.filter(|hook| *hook != Hook::Output) else { continue };
            let mut walk = Walk { table, scene, findings: &mut findings };
            let left = walk.base(name, chain, cases(scene, hook));
            if chain.drops_by_default && !is_dockers_policy(table, name, chain) {
                walk.find(name, "policy drop", Effect::Restricts, &left);
            }
        }
    }
    findings.into_values().collect()
}

/// Packets of one network that go one way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case<'a> {
    network: &'a Id,
    /// Whether they come from another network; a rule that is about others as well isn't for their sake there.
    from_another: bool,
    /// Interfaces that they may come from; none: any.
    from: Option<Vec<&'a str>>,
    /// Interfaces that they may leave by; none: any.
    to: Option<Vec<&'a str>>,
    source: Vec<Subnet>,
    destination: Vec<Subnet>,
}

/// All kinds of packets that netpath carries, as they are at a hook.
fn cases(scene: &Scene, hook: Hook) -> Vec<Case<'_>> {
    let any = || vec![Subnet::ALL];
    // Published ports are addressed at the host before they are translated.
    let host = || if scene.host_addresses.is_empty() { any() } else { scene.host_addresses.clone() };
    let mut cases = Vec::new();
    for network in &scene.networks {
        let own = || if network.subnets.is_empty() { any() } else { network.subnets.clone() };
        let bridge = || Some(vec![network.bridge.as_str()]);
        let uplinks = scene.uplinks.iter().map(String::as_str);
        let near = || uplinks.clone().chain([network.bridge.as_str()]).map(|name| Some(vec![name]));
        let others = scene.networks.iter().map(|other| other.bridge.as_str()).filter(|other| *other != network.bridge);
        let case = |from_another, from, to, source, destination| Case {
            network: &network.id,
            from_another,
            from,
            to,
            source,
            destination,
        };
        match hook {
            Hook::Prerouting => {
                cases.push(case(false, bridge(), None, own(), any()));
                cases.extend(uplinks.clone().map(|name| case(false, Some(vec![name]), None, any(), host())));
            }
            Hook::Forward => {
                cases.extend(near().map(|to| case(false, bridge(), to, own(), any())));
                cases.extend(near().map(|from| case(false, from, bridge(), any(), own())));
                cases.push(case(true, Some(others.collect()), bridge(), any(), own()));
            }
            Hook::Postrouting => {
                cases.extend(near().map(|to| case(false, None, to, own(), any())));
                cases.push(case(false, None, bridge(), any(), own()));
            }
            Hook::Output => {}
            Hook::Bridge => {
                cases.push(case(false, None, None, own(), any()));
                cases.push(case(false, None, None, any(), own()));
            }
        }
    }
    cases.retain(|case| case.from.as_ref().is_none_or(|from| !from.is_empty()));
    cases
}

impl<'a> Case<'a> {
    /// What of the packets may fulfil conditions; none: nothing.
    fn narrow(&self, conditions: &Conditions) -> Option<Self> {
        Some(Self {
            network: self.network,
            from_another: self.from_another,
            from: narrow_interfaces(self.from.as_deref(), conditions.from.as_ref())?,
            to: narrow_interfaces(self.to.as_deref(), conditions.to.as_ref())?,
            source: narrow_addresses(&self.source, conditions.source.as_ref())?,
            destination: narrow_addresses(&self.destination, conditions.destination.as_ref())?,
        })
    }

    /// Whether all of the packets fulfil conditions for certain.
    fn surely_fulfils(&self, conditions: &Conditions) -> bool {
        let any_interface =
            |known: &Option<Vec<&str>>, wanted: &Option<Match<String>>| known.is_none() && wanted.is_some();
        !conditions.others
            && !any_interface(&self.from, &conditions.from)
            && !any_interface(&self.to, &conditions.to)
            && self.narrow(conditions).as_ref() == Some(self)
    }
}

fn narrow_interfaces<'a>(known: Option<&[&'a str]>, wanted: Option<&Match<String>>) -> Option<Option<Vec<&'a str>>> {
    let (Some(known), Some(wanted)) = (known, wanted) else { return Some(known.map(<[_]>::to_vec)) };
    let named = |name: &str| wanted.values.iter().any(|pattern| is_named(name, pattern));
    let left: Vec<&str> = known.iter().copied().filter(|name| named(name) != wanted.negated).collect();
    (!left.is_empty()).then_some(Some(left))
}

/// `eth0`, or `eth+` and `eth*` for all that begin so.
fn is_named(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix(['+', '*']).map_or(name == pattern, |beginning| name.starts_with(beginning))
}

fn narrow_addresses(known: &[Subnet], wanted: Option<&Match<Subnet>>) -> Option<Vec<Subnet>> {
    let Some(Match { values, negated }) = wanted else { return Some(known.to_vec()) };
    let left: Vec<Subnet> = if *negated {
        known.iter().copied().filter(|known| !values.iter().any(|value| value.covers(*known))).collect()
    } else {
        let both = known.iter().flat_map(|known| values.iter().map(move |value| (*known, *value)));
        let common = both.filter(|(known, value)| known.overlaps(*value));
        common.map(|(known, value)| if known.covers(value) { value } else { known }).collect()
    };
    (!left.is_empty()).then_some(left)
}

/// A way through a table's chains.
struct Walk<'a, 'f> {
    table: &'a Table,
    scene: &'a Scene,
    findings: &'f mut BTreeMap<(Backend, String, String, String), Finding>,
}

impl<'a> Walk<'a, '_> {
    /// Walks a chain that packets enter from outside; gives the cases that its policy decides about.
    fn base(&mut self, name: &str, chain: &'a Chain, cases: Vec<Case<'a>>) -> Vec<Case<'a>> {
        let rules = match last_of_docker(self.table, name, chain, self.scene) {
            // What Docker's rules accept is what netpath carries: no rule behind them sees it.
            Some(last) => &chain.rules[..last],
            None => &chain.rules,
        };
        self.rules(name, rules, cases, DEPTH_MAX)
    }

    /// Walks rules; gives the cases that come out at the end, or return.
    fn rules(&mut self, chain: &str, rules: &'a [Rule], cases: Vec<Case<'a>>, depth: usize) -> Vec<Case<'a>> {
        let (mut cases, mut returned) = (cases, Vec::new());
        for rule in rules {
            let conditions = &rule.conditions;
            let inside: Vec<Case<'a>> = cases.iter().filter_map(|case| case.narrow(conditions)).collect();
            if inside.is_empty() || is_dockers_rule(self.table, chain, rule, self.scene) {
                continue;
            }
            match &rule.action {
                Action::Count => self.find(chain, &rule.text, Effect::Counts, &inside),
                Action::Restrict => self.find(chain, &rule.text, Effect::Restricts, &inside),
                Action::Change => self.find(chain, &rule.text, Effect::Changes, &inside),
                Action::Masquerade | Action::Accept | Action::Return => {}
                Action::Jump(targets) | Action::Goto(targets) => {
                    let sure: Vec<_> = cases.iter().filter(|case| case.surely_fulfils(conditions)).cloned().collect();
                    let unsure: Vec<_> = inside.iter().filter(|case| !sure.contains(case)).cloned().collect();
                    let back = self.jump(targets, &sure, depth);
                    // Those that may have gone there may as well have stayed.
                    self.jump(targets, &unsure, depth);
                    if matches!(rule.action, Action::Goto(_)) {
                        returned.extend(back);
                    } else {
                        cases.retain(|case| !sure.contains(case));
                        cases.extend(back);
                    }
                }
            }
            if let Action::Accept | Action::Return | Action::Restrict | Action::Goto(_) = rule.action {
                let (gone, stayed): (Vec<_>, Vec<_>) =
                    cases.into_iter().partition(|case| case.surely_fulfils(conditions));
                cases = stayed;
                if rule.action == Action::Return {
                    returned.extend(gone);
                }
            }
            if cases.is_empty() {
                break;
            }
        }
        cases.extend(returned);
        cases
    }

    fn jump(&mut self, targets: &[String], inside: &[Case<'a>], depth: usize) -> Vec<Case<'a>> {
        let mut back = Vec::new();
        if inside.is_empty() {
            return back;
        }
        for target in targets {
            let chain = self.table.chains.get(target).filter(|_| depth > 0);
            back.extend(match chain {
                Some(chain) => self.rules(target, &chain.rules, inside.to_vec(), depth - 1),
                None => inside.to_vec(),
            });
        }
        back
    }

    fn find(&mut self, chain: &str, rule: &str, effect: Effect, cases: &[Case<'_>]) {
        if cases.is_empty() {
            return;
        }
        let table = self.table;
        let key = (table.backend, table.name.clone(), chain.to_owned(), rule.to_owned());
        let finding = self.findings.entry(key).or_insert_with(|| Finding {
            backend: table.backend,
            table: table.name.clone(),
            chain: chain.to_owned(),
            rule: rule.to_owned(),
            effect,
            networks: BTreeSet::new(),
        });
        let all_from_others = cases.iter().all(|case| case.from_another);
        let concerned = cases.iter().filter(|case| !case.from_another || all_from_others);
        finding.networks.extend(concerned.map(|case| case.network.clone()));
    }
}

/// Docker sets the policy of FORWARD; where it has rules, the policy is its own doing.
fn is_dockers_policy(table: &Table, name: &str, chain: &Chain) -> bool {
    let jumps = |rule: &Rule| matches!(&rule.action, Action::Jump(to) if to.iter().any(|to| to == DOCKER_USER || is_dockers_chain(to)));
    table.backend != Backend::Nft && table.name == "filter" && name == "FORWARD" && chain.rules.iter().any(jumps)
}

/// Where Docker's rules end in FORWARD.
fn last_of_docker(table: &Table, name: &str, chain: &Chain, scene: &Scene) -> Option<usize> {
    if table.backend == Backend::Nft || table.name != "filter" || name != "FORWARD" {
        return None;
    }
    let jumps = |rule: &Rule| matches!(&rule.action, Action::Jump(to) if to.iter().any(|to| to == DOCKER_USER || is_dockers_chain(to)));
    chain.rules.iter().rposition(|rule| jumps(rule) || is_dockers_rule(table, name, rule, scene)).map(|last| last + 1)
}

/// Whether Docker made a rule outside of its chains, other than the jumps into them.
pub(super) fn is_dockers_rule(table: &Table, chain: &str, rule: &Rule, scene: &Scene) -> bool {
    if table.backend == Backend::Nft {
        return false;
    }
    let of = |matched: Option<&Match<String>>, negated: bool| {
        let name = matched.filter(|matched| matched.negated == negated).map(|matched| matched.values.as_slice());
        let network = |network: &&SceneNetwork| name == Some(std::slice::from_ref(&network.bridge));
        scene.networks.iter().find(network)
    };
    let Conditions { from, to, source, destination, others } = &rule.conditions;
    let no_addresses = source.is_none() && destination.is_none();
    match (table.name.as_str(), chain, &rule.action) {
        // Between the containers of a network; a drop is `enable_icc=false`.
        ("filter", "FORWARD", Action::Accept | Action::Restrict) if no_addresses && !others => {
            of(to.as_ref(), false).is_some()
                && from.as_ref().is_some_and(|from| !from.negated && Some(from) == to.as_ref())
                || (rule.action == Action::Accept && of(from.as_ref(), false).is_some())
        }
        ("filter", "FORWARD", Action::Accept) => {
            no_addresses && rule.text.contains("RELATED,ESTABLISHED") && of(to.as_ref(), false).is_some()
        }
        // `com.docker.network.host_ipv4`.
        ("nat", "POSTROUTING", Action::Change) => {
            of(to.as_ref(), true).is_some_and(|network| is_one_of(source.as_ref(), &network.subnets))
        }
        // Docker 28 and later: nothing from elsewhere goes straight to a container, or to a port published on 127.0.0.1.
        ("raw", "PREROUTING", Action::Restrict) => {
            of(from.as_ref(), true).is_some_and(|network| is_within(destination.as_ref(), &network.subnets))
                || from.as_ref().is_some_and(|from| from.negated && from.values == ["lo"])
                    && is_within(destination.as_ref(), &[Subnet::new([127, 0, 0, 0].into(), 8)])
        }
        _ => false,
    }
}

fn is_one_of(matched: Option<&Match<Subnet>>, subnets: &[Subnet]) -> bool {
    matched.is_some_and(|matched| !matched.negated && matched.values.iter().all(|value| subnets.contains(value)))
}

pub(super) fn is_within(matched: Option<&Match<Subnet>>, subnets: &[Subnet]) -> bool {
    let within = |value: &Subnet| subnets.iter().any(|subnet| subnet.covers(*value));
    matched.is_some_and(|matched| !matched.negated && matched.values.iter().all(within))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
