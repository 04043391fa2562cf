//! Networks that netpath leaves to Docker, since rules of the firewall would lose their effect on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use netpath_common::abi::Mode;
use tracing::{info, warn};

use crate::{
    desired::{
        docker::{DockerModel, Id},
        host::HostModel,
        model::{Hook, State},
        uplinks::UplinkChoice,
    },
    firewall::{Finding, Ruleset, Scene, SceneNetwork, bypassed},
    report::{BypassedRule, FirewallStatus},
    subnet::Subnet,
};

/// How long a rule that was found while netpath runs must have stood before networks are left to Docker because of it. Docker
/// writes and removes rules around the moment in which it tells of a network or a container; such a rule is nobody else's.
const CONFIRM: Duration = Duration::from_secs(3);
/// Between looks at rules that are still to be confirmed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is done about rules that netpath would pass by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum UserRules {
    /// Networks that they may be about are left to Docker, where it has rules of its own.
    #[default]
    Refuse,
    /// They are named, and passed by.
    Ignore,
}

/// The firewall's rules and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Bypass {
    user_rules: UserRules,
    ruleset: Option<Arc<Ruleset>>,
    scene: Scene,
    /// What has stood for long enough.
    findings: Vec<Finding>,
    /// Everything.
    found: Vec<Finding>,
    /// Since when rules are found, by their text. Those of the first look count from the beginning.
    since: BTreeMap<String, Option<Instant>>,
    confirm: Duration,
    is_judged: bool,
    refused: BTreeSet<Id>,
    stale: bool,
    told: BTreeSet<String>,
}

impl Bypass {
    pub(super) fn new(user_rules: UserRules, ruleset: Option<Arc<Ruleset>>) -> Self {
        Self { user_rules, ruleset, stale: true, confirm: CONFIRM, ..Self::default() }
    }

    /// Takes in the rules as they are now.
    pub(super) fn learn(&mut self, ruleset: Arc<Ruleset>) {
        self.ruleset = Some(ruleset);
        self.stale = true;
    }

    /// The rules, if they have been read.
    pub(super) fn ruleset(&self) -> Option<&Ruleset> {
        self.ruleset.as_deref()
    }

    /// Finds out which networks are refused now, and says what is new about that.
    pub(super) fn judge(&mut self, mode: Mode, scene: Scene) {
        let Some(ruleset) = &self.ruleset else { return };
        if self.stale || scene != self.scene {
            self.found = bypassed(ruleset, &scene);
            self.scene = scene;
            self.stale = false;
        }
        self.confirm();
        // In sole mode there are no rules of Docker's that could take over.
        let refuses = mode == Mode::Takeover && self.user_rules == UserRules::Refuse;
        let harmful = self.findings.iter().filter(|finding| finding.effect.is_harmful() && refuses);
        self.refused = harmful.flat_map(|finding| finding.networks.iter().cloned()).collect();
        self.tell(refuses);
    }

    /// Leaves out what hasn't stood for long enough.
    fn confirm(&mut self) {
        let now = self.is_judged.then(Instant::now);
        self.is_judged = true;
        let commands: BTreeSet<String> = self.found.iter().map(Finding::command).collect();
        self.since.retain(|command, _| commands.contains(command));
        for command in commands {
            self.since.entry(command).or_insert(now);
        }
        let stands = |finding: &&Finding| {
            let since = self.since.get(&finding.command()).copied().flatten();
            since.is_none_or(|since| since.elapsed() >= self.confirm)
        };
        self.findings = self.found.iter().filter(stands).cloned().collect();
    }

    /// When to judge again although nothing has changed; none: not before something has.
    pub(super) fn judge_after(&self) -> Option<Duration> {
        (self.findings.len() < self.found.len()).then_some(LOOK_AGAIN)
    }

    /// Docker's list with the refused networks marked.
    pub(super) fn mark(&self, docker: &Arc<DockerModel>) -> Arc<DockerModel> {
        if self.refused.is_empty() {
            return Arc::clone(docker);
        }
        let mut marked = DockerModel::clone(docker);
        for (id, network) in &mut marked.networks {
            network.refused = self.refused.contains(id);
        }
        Arc::new(marked)
    }

    /// The rules because of which a network is refused.
    pub(super) fn because(&self, network: &Id) -> Vec<String> {
        if !self.refused.contains(network) {
            return Vec::new();
        }
        let harmful = self.findings.iter().filter(|finding| finding.effect.is_harmful());
        harmful.filter(|finding| finding.networks.contains(network)).map(Finding::command).collect()
    }

    /// What the daemon reports.
    pub(super) fn status(&self) -> FirewallStatus {
        FirewallStatus {
            checked: self.ruleset.is_some(),
            ignored: self.user_rules == UserRules::Ignore,
            errors: self.ruleset.as_ref().map(|ruleset| ruleset.errors.clone()).unwrap_or_default(),
            rules: rules(&self.findings, &self.scene),
        }
    }

    fn tell(&mut self, refuses: bool) {
        let names: BTreeMap<&Id, &str> =
            self.scene.networks.iter().map(|network| (&network.id, network.name.as_str())).collect();
        let mut sentences = BTreeSet::new();
        for finding in &self.findings {
            let networks: Vec<&str> = finding.networks.iter().filter_map(|id| names.get(id).copied()).collect();
            let (rule, networks) = (finding.command(), networks.join(", "));
            sentences.insert(match (finding.effect.is_harmful(), refuses) {
                (true, true) => format!(
                    "the rule `{rule}` would be without effect: netpath leaves these networks to Docker: {networks}; \
                     --ignore-user-rules takes them over all the same"
                ),
                (true, false) => format!("the rule `{rule}` is without effect on what netpath carries of: {networks}"),
                (false, _) => format!("the rule `{rule}` doesn't count or log what netpath carries of: {networks}"),
            });
        }
        let errors = self.ruleset.iter().flat_map(|ruleset| &ruleset.errors);
        sentences.extend(errors.map(|error| format!("the firewall's rules can't all be checked: {error}")));
        for sentence in sentences.difference(&self.told) {
            warn!("{sentence}");
        }
        if sentences.is_empty() && !self.told.is_empty() {
            info!("no rule of the firewall stands in netpath's way any more");
        }
        self.told = sentences;
    }
}

/// Findings as reports have them.
pub(crate) fn rules(findings: &[Finding], scene: &Scene) -> Vec<BypassedRule> {
    let name = |id: &Id| scene.networks.iter().find(|network| network.id == *id).map(|network| network.name.clone());
    let rule = |finding: &Finding| BypassedRule {
        backend: finding.backend.name().to_owned(),
        table: finding.table.clone(),
        chain: finding.chain.clone(),
        rule: finding.rule.clone(),
        effect: finding.effect.name().to_owned(),
        networks: finding.networks.iter().filter_map(name).collect(),
    };
    findings.iter().map(rule).collect()
}

/// What rules are held against: all networks that netpath could carry, those that are refused now included.
pub(crate) fn scene(docker: &DockerModel, host: &HostModel, uplinks: &UplinkChoice, actual: &State) -> Scene {
    let attached = actual.attachments.iter().filter(|attachment| attachment.hook == Hook::Uplink);
    let attached = attached.map(|attachment| attachment.ifindex);
    let known = attached.chain(host.default_routes.iter().copied()).filter_map(|ifindex| host.links.get(&ifindex));
    let uplinks: BTreeSet<String> = match uplinks {
        UplinkChoice::Named(names) => names.iter().cloned().collect(),
        UplinkChoice::DefaultRoutes => known.map(|link| link.name.clone()).collect(),
    };
    let networks = docker.networks.iter().filter(|(_, network)| network.is_managed());
    let networks = networks.map(|(id, network)| {
        let subnets = network.subnets.iter().map(|(address, bits)| Subnet::new(*address, *bits)).collect();
        SceneNetwork { id: id.clone(), name: network.name.clone(), bridge: network.bridge.clone(), subnets }
    });
    let host_addresses = host.addresses.iter().map(|address| Subnet::of(address.address)).collect();
    Scene { networks: networks.collect(), uplinks, host_addresses }
}
