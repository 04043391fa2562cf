//! `netpath policy`: who may open connections to published ports.
//!
//! Rules and their counters come from the pins, so that `show` works without a daemon; when one answers, it adds networks'
//! names and the lines of the file. `check` needs nothing but the file.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use netpath_common::abi::{self, Action, Origin, PolicyRule};
use serde::Serialize;

use super::{
    args::{Global, PolicyVerb},
    exit::{Exit, NothingAttached},
    output::{Format, Table, human_bytes, message, protocol_name, show},
};
use crate::{
    control::{ApplyPolicy, ClientError},
    dataplane::{PinsError, PolicyPins},
    desired::policy::{self, Policy},
    report::{PolicyApplied, PolicyRuleStatus, PolicyStatus},
    settings::{PortRange, Settings, SettingsError, policy::Prefix},
};

pub(super) async fn run(global: &Global, verb: PolicyVerb) -> anyhow::Result<Exit> {
    match verb {
        PolicyVerb::Show => show_policy(global).await,
        PolicyVerb::Check { file } => check(global, &file),
        PolicyVerb::Apply { file, keep_flows } => apply(global, file, keep_flows).await,
    }
}

async fn show_policy(global: &Global) -> anyhow::Result<Exit> {
    let pins = PolicyPins::open(&global.pin_dir).map_err(|error| match error {
        PinsError::Absent(directory) => anyhow::Error::from(NothingAttached(directory)),
        error => error.into(),
    })?;
    let in_force = pins.policy()?;
    let mut status = match global.client().policy().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { .. }) => of_pins(&in_force),
        Err(error) => return Err(error.into()),
    };
    let hits = pins.hits(&in_force)?;
    let packets = |counter| hits.get(&counter).map_or((0, 0), |traffic| (traffic.packets, traffic.bytes));
    (status.default_packets, status.default_bytes) = packets(in_force.default_counter);
    for rule in &mut status.rules {
        (rule.packets, rule.bytes) = packets(rule.counter);
    }
    show(global.output, &status, if global.output == Format::Wide { wide } else { table })?;
    Ok(Exit::Ok)
}

/// What the pins tell of a list.
fn of_pins(policy: &Policy) -> PolicyStatus {
    PolicyStatus {
        default: policy.default.name().to_owned(),
        dry_run: policy.dry_run,
        rules: (1..).zip(policy.groups()).map(|(number, group)| of_group(number, group)).collect(),
        ..PolicyStatus::default()
    }
}

/// A rule as an operator wrote it, from the combinations of its values: each value once, in their order.
fn of_group(number: usize, group: &[PolicyRule]) -> PolicyRuleStatus {
    let each = |word: &dyn Fn(&PolicyRule) -> Option<String>| {
        let mut known = BTreeSet::new();
        let words = group.iter().filter_map(word);
        words.filter(|word| known.insert(word.clone())).collect::<Vec<_>>()
    };
    let first = group.first().copied().unwrap_or(PolicyRule::UNSET);
    PolicyRuleStatus {
        number,
        action: Action::numbered(first.action).name().to_owned(),
        source: each(&|rule| source(rule).map(|source| source.to_string())),
        from: Origin::numbered(first.wanted.origin).map(|from| from.name().to_owned()),
        network: each(&|rule| network(rule)),
        port: each(&|rule| port(rule).map(|ports| ports.to_string())),
        protocol: each(&|rule| (rule.mask.protocol != 0).then(|| protocol_name(rule.wanted.protocol).to_owned())),
        counter: first.counter,
        ..PolicyRuleStatus::default()
    }
}

fn source(rule: &PolicyRule) -> Option<Prefix> {
    let length = u32::from_be_bytes(rule.mask.source).leading_ones();
    let length = u8::try_from(length).ok().filter(|length| *length > 0)?;
    Some(Prefix { address: Ipv4Addr::from(rule.wanted.source), length })
}

/// The number 0 is no network's: that of one that doesn't exist.
fn network(rule: &PolicyRule) -> Option<String> {
    match (rule.mask.network, rule.wanted.network) {
        (0, _) => None,
        (_, 0) => Some("(missing)".to_owned()),
        (_, number) => Some(format!("#{number}")),
    }
}

fn port(rule: &PolicyRule) -> Option<PortRange> {
    let ports = PortRange { first: rule.port_first, last: rule.port_last };
    (ports.first > 0 && ports.first <= ports.last).then_some(ports)
}

fn table(status: &PolicyStatus) -> String {
    let mut table = Table::new(["#", "ACTION", "SOURCE", "FROM", "NETWORK", "PORT", "PROTOCOL", "PACKETS"]);
    for rule in &status.rules {
        let [number, action, source, from, network, port, protocol, packets, _, _] = cells(rule);
        table.row([number, action, source, from, network, port, protocol, packets]);
    }
    let [any, none] = ["any", ""].map(str::to_owned);
    let rest = [none, status.default.clone(), any.clone(), any.clone(), any.clone(), any.clone(), any];
    let [number, action, source, from, network, port, protocol] = rest;
    table.row([number, action, source, from, network, port, protocol, status.default_packets.to_string()]);
    heading(status) + &table.to_string()
}

fn wide(status: &PolicyStatus) -> String {
    let mut table =
        Table::new(["#", "ACTION", "SOURCE", "FROM", "NETWORK", "PORT", "PROTOCOL", "PACKETS", "BYTES", "LINE"]);
    for rule in &status.rules {
        table.row(cells(rule));
    }
    let default = PolicyRuleStatus {
        action: status.default.clone(),
        packets: status.default_packets,
        bytes: status.default_bytes,
        ..PolicyRuleStatus::default()
    };
    table.row(cells(&default));
    heading(status) + &table.to_string()
}

fn heading(status: &PolicyStatus) -> String {
    if status.dry_run {
        "A dry run: what would be denied is counted and let through.\n".to_owned()
    } else {
        String::new()
    }
}

/// A rule's cells; a number of 0 is none.
fn cells(rule: &PolicyRuleStatus) -> [String; 10] {
    let number = |number: usize| if number == 0 { String::new() } else { number.to_string() };
    let any = |words: &[String]| if words.is_empty() { "any".to_owned() } else { words.join(",") };
    let named = |name: &String| if rule.missing.contains(name) { format!("{name} (missing)") } else { name.clone() };
    [
        number(rule.number),
        rule.action.clone(),
        any(&rule.source),
        rule.from.clone().unwrap_or_else(|| "any".to_owned()),
        any(&rule.network.iter().map(named).collect::<Vec<_>>()),
        any(&rule.port),
        any(&rule.protocol),
        rule.packets.to_string(),
        human_bytes(rule.bytes),
        number(rule.line),
    ]
}

/// What there is to say of a file's policy.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Checked {
    file: PathBuf,
    default: &'static str,
    dry_run: bool,
    rules: usize,
    combinations: usize,
    combinations_max: usize,
    warnings: Vec<String>,
}

fn check(global: &Global, file: &Path) -> anyhow::Result<Exit> {
    let policy = Settings::read(Some(file))?.policy;
    let unreachable = policy::unreachable(&policy).into_iter();
    let checked = Checked {
        file: file.to_owned(),
        default: policy.default.name(),
        dry_run: policy.dry_run,
        rules: policy.rules.len(),
        combinations: policy.rules.iter().map(crate::settings::policy::Rule::size).sum(),
        combinations_max: abi::Policy::RULES_MAX,
        warnings: unreachable.map(|(line, by)| never(line, by)).collect(),
    };
    for warning in &checked.warnings {
        message(warning);
    }
    show(global.output, &checked, text_of_check)?;
    Ok(Exit::Ok)
}

fn never(line: usize, by: usize) -> String {
    format!("the rule in line {line} never decides: rules before it, up to line {by}, fit all that it does")
}

fn text_of_check(checked: &Checked) -> String {
    let Checked { file, default, rules, combinations, combinations_max, .. } = checked;
    let dry_run = if checked.dry_run { ", a dry run" } else { "" };
    format!(
        "{}: {}, {combinations} of {combinations_max} combinations, default {default}{dry_run}\n",
        file.display(),
        plural(*rules as u64, "rule")
    )
}

async fn apply(global: &Global, file: Option<PathBuf>, keep_flows: bool) -> anyhow::Result<Exit> {
    let mut wish = ApplyPolicy { keep_flows, ..ApplyPolicy::default() };
    if let Some(path) = file {
        let text =
            fs::read_to_string(&path).map_err(|source| SettingsError::Unreadable { path: path.clone(), source })?;
        Settings::parse(&text).map_err(|message| SettingsError::Wrong { path: path.clone(), message })?;
        let whole = fs::canonicalize(&path).with_context(|| format!("looking at {}", path.display()))?;
        wish = ApplyPolicy { text: Some(text), file: Some(whole.display().to_string()), ..wish };
    }
    let applied = global.client().apply_policy(&wish).await?;
    for warning in &applied.warnings {
        message(warning);
    }
    show(global.output, &applied, text_of_apply)?;
    Ok(Exit::Ok)
}

fn text_of_apply(applied: &PolicyApplied) -> String {
    format!(
        "the policy of {} is in force: {}; {} ended\n",
        applied.file,
        plural(applied.rules as u64, "rule"),
        plural(applied.ended, "connection")
    )
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
