//! `netpath migrate --check`: what moving over would change, and what stands in its way.

use netpath_common::abi::Mode;
use serde::Serialize;

use super::{daemon_json::KEYS, facts::Facts};
use crate::{cli::output::Table, desired::docker::BRIDGE_DRIVER, watch::docker::survey::Surveyed};

/// What `--check` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Report {
    /// dockerd's version.
    pub(super) docker_version: String,
    /// How dockerd runs now: `takeover` where it keeps rules, `sole` where it keeps none.
    pub(super) mode: String,
    /// Whether netpath is attached.
    pub(super) attached: bool,
    /// Whether nothing stands in the way.
    pub(super) ready: bool,
    /// What was found.
    pub(super) findings: Vec<Item>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Item {
    /// What it is about, in a word that stays the same.
    pub(super) subject: &'static str,
    /// Whether it must be settled before.
    pub(super) level: Level,
    /// What there is.
    pub(super) finding: String,
    /// What moving over changes about it, or what to do.
    pub(super) advice: String,
}

/// Whether something must be settled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Level {
    /// Yes.
    Blocks,
    /// No: it changes, or is worth knowing.
    Changes,
}

/// Options that netpath reads, or that dockerd itself acts on whoever carries the packets.
const CARRIED: [&str; 9] = [
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.driver.mtu",
    "com.docker.network.host_ipv4",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.enable_ipv4",
    "com.docker.network.enable_ipv6",
    "netpath.full_cone",
];

/// Options that say with these values what is so without them.
const USUAL: [(&str, &str); 4] = [
    ("com.docker.network.bridge.enable_icc", "true"),
    ("com.docker.network.bridge.enable_ip_masquerade", "true"),
    ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
    ("com.docker.network.bridge.gateway_mode_ipv6", "nat"),
];

/// Judges what was found on the host.
pub(super) fn report(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    rules(&mut findings, facts);
    docker(&mut findings, facts);
    for surveyed in facts.docker.networks.values() {
        network(&mut findings, facts, surveyed);
    }
    host(&mut findings, facts);
    findings.sort_by_key(|item| item.level);
    Report {
        docker_version: facts.docker.version.clone(),
        mode: facts.docker.mode.map(|mode| mode.name().to_owned()).unwrap_or_default(),
        attached: facts.netpath.as_ref().is_some_and(|status| status.attached),
        ready: findings.iter().all(|item| item.level != Level::Blocks),
        findings,
    }
}

fn rules(findings: &mut Vec<Item>, facts: &Facts) {
    let settled = facts.netpath.as_ref().is_some_and(|status| status.firewall.ignored);
    for rule in &facts.bypassed {
        let (level, advice) = if rule.effect == "counts" {
            (Level::Changes, "it no longer counts or logs what netpath carries")
        } else if settled {
            (Level::Changes, "netpath's packets pass it by, as the daemon was told to (--ignore-user-rules)")
        } else {
            (
                Level::Blocks,
                "netpath's packets pass it by: say the same in netpath's own policy and remove it, or start the daemon \
                 with --ignore-user-rules",
            )
        };
        let finding = format!(
            "{} {} {}: `{}`, about {}",
            rule.backend,
            rule.table,
            rule.chain,
            rule.rule,
            rule.networks.join(", ")
        );
        findings.push(Item { subject: "rule", level, finding, advice: advice.to_owned() });
    }
    for rule in &facts.of_host_sockets {
        let advice = "the host's own connections to published ports pass it by: they are led to the container at the socket, \
                      and every chain sees the container's address. Say it with that address";
        let (subject, finding) = ("output_rule", format!("`{rule}`"));
        findings.push(Item { subject, level: Level::Changes, finding, advice: advice.to_owned() });
    }
    for error in &facts.unreadable {
        let advice = "rules that can't be seen may be there; look for them yourself".to_owned();
        findings.push(Item { subject: "unreadable_rules", level: Level::Changes, finding: error.clone(), advice });
    }
}

fn docker(findings: &mut Vec<Item>, facts: &Facts) {
    let docker = &facts.docker;
    let mut add = |subject, level, finding: String, advice: &str| {
        findings.push(Item { subject, level, finding, advice: advice.to_owned() });
    };
    if docker.swarm {
        let advice = "netpath carries no swarm networks, and swarm needs Docker's rules: stay in takeover mode";
        add("swarm", Level::Blocks, "dockerd is part of a swarm".to_owned(), advice);
    }
    let flags = docker.arguments.iter().filter(|word| {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        word.starts_with("--") && KEYS.contains(&name)
    });
    let flags: Vec<_> = flags.cloned().collect();
    if !flags.is_empty() {
        let advice = "dockerd refuses to start with a setting in both places: take it from the command line, or change it \
                      there and not by `netpath migrate --to`";
        add("command_line", Level::Blocks, format!("dockerd was started with {}", flags.join(" ")), advice);
    }
    if docker.mode == Some(Mode::Sole) && facts.docker_chains {
        let advice = "`netpath migrate --to sole` removes them";
        add("stale_chains", Level::Blocks, "iptables has chains of an earlier run of dockerd".to_owned(), advice);
    }
    if docker.mode == Some(Mode::Sole) && facts.docker_chains_ipv6 && !facts.has_ipv6() {
        let advice = "it has a switch of its own: set \"ip6tables\": false as well";
        add("ip6tables", Level::Changes, "dockerd still keeps rules of ip6tables".to_owned(), advice);
    }
    if docker.mode == Some(Mode::Takeover)
        && facts.docker_chains_ipv6
        && facts.has_ipv6()
        && needs_both(&docker.version)
    {
        let advice = "this dockerd refuses to start with rules of ip6tables and none of iptables: upgrade Docker (28 does it), or set \
                      \"ip6tables\": false and guard the networks' IPv6 in your own firewall";
        add("ip6tables", Level::Blocks, "networks have IPv6, and dockerd keeps rules of ip6tables".to_owned(), advice);
    }
    if facts.proxies > 0 {
        let finding = format!("{} docker-proxy processes run", facts.proxies);
        add("docker_proxy", Level::Changes, finding, "what netpath carries doesn't pass them; in sole mode they go");
    }
    if !docker.live_restore && docker.running > 0 {
        let finding = format!("live-restore is off and {} containers run", docker.running);
        let advice = "changing between takeover and sole restarts dockerd, and with it every container; set \
                      \"live-restore\": true and reload dockerd to keep them";
        add("live_restore", Level::Changes, finding, advice);
    }
}

/// Whether a dockerd keeps rules of ip6tables only beside those of iptables: 20.10 and 24.0 are known to (moby #46467).
fn needs_both(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major <= 24)
}

fn network(findings: &mut Vec<Item>, facts: &Facts, Surveyed { network, ipv6, options }: &Surveyed) {
    let name = &network.name;
    let mut add = |subject, finding: String, advice: &str| {
        findings.push(Item { subject, level: Level::Changes, finding, advice: advice.to_owned() });
    };
    if network.driver != BRIDGE_DRIVER {
        if !matches!(network.driver.as_str(), "host" | "null") {
            let finding = format!("network {name} has the driver {}", network.driver);
            add("driver", finding, "netpath leaves it as it is");
        }
        return;
    }
    if *ipv6 {
        let advice = if facts.docker.mode == Some(Mode::Sole) && !facts.docker_chains_ipv6 {
            "netpath carries IPv4 only, and nobody keeps the wire from its IPv6 addresses: set \"ip6tables\": true"
        } else {
            "netpath carries IPv4 only: its IPv6 stays with the kernel and with dockerd's rules of ip6tables, which \
             `migrate --to sole` leaves on"
        };
        add("ipv6", format!("network {name} has IPv6"), advice);
    }
    // dockerd forces it off on the default network when it keeps no rules.
    let forced = |key: &str| {
        facts.docker.mode == Some(Mode::Sole)
            && key == "com.docker.network.bridge.enable_ip_masquerade"
            && options.contains_key("com.docker.network.bridge.default_bridge")
    };
    for (key, value) in options {
        let usual = USUAL.contains(&(key.as_str(), value.as_str()));
        if !CARRIED.contains(&key.as_str()) && !usual && !forced(key) && key.starts_with("com.docker.network") {
            let advice = "see docs/docker-parity.md for what netpath does about it; in sole mode nobody else does";
            add("network_option", format!("network {name} has the option {key}={value}"), advice);
        }
    }
    if network.internal {
        let advice = "in sole mode netpath alone keeps it from the world";
        add("internal", format!("network {name} is internal"), advice);
    }
    if network.is_default && !network.icc && facts.docker.mode == Some(Mode::Takeover) {
        let advice = "dockerd refuses to start with icc=false when it keeps no rules: set \"icc\": true, and keep containers apart \
                      by a network of their own with com.docker.network.bridge.enable_icc=false";
        let finding = format!("containers of network {name} are kept apart (icc=false)");
        findings.push(Item { subject: "icc", level: Level::Blocks, finding, advice: advice.to_owned() });
    }
}

fn host(findings: &mut Vec<Item>, facts: &Facts) {
    let mut add = |subject, level, finding: &str, advice: &str| {
        findings.push(Item { subject, level, finding: finding.to_owned(), advice: advice.to_owned() });
    };
    if facts.forward_drops {
        let advice = "it stays: the host forwards for nobody but containers. dockerd in sole mode doesn't set it after a \
                      reboot; set it yourself if you want it";
        add("forward_policy", Level::Changes, "the policy of FORWARD is DROP", advice);
    }
    if facts.ip_forward && !facts.forward_drops {
        let advice = "the host forwards for anybody, from any interface to any other: netpath guards what is to and from \
                      containers only, and in sole mode dockerd doesn't set it to DROP; set it yourself if you want it";
        add("forward_policy", Level::Changes, "the policy of FORWARD is ACCEPT", advice);
    }
    if !facts.ip_forward {
        let advice = "what netpath leaves to the kernel isn't forwarded; dockerd sets it when it starts";
        add("ip_forward", Level::Blocks, "net.ipv4.ip_forward is 0", advice);
    }
    if facts.bridge_netfilter == Some(true) {
        let advice = "netpath doesn't need it; frames between containers that it carries no longer pass iptables";
        add("br_netfilter", Level::Changes, "bridge-nf-call-iptables is 1", advice);
    }
    if facts.firewalld {
        let advice = "its zones and a reload no longer matter to what netpath carries";
        add("firewalld", Level::Changes, "firewalld runs", advice);
    }
    if facts.ufw {
        let advice = "as with Docker, its rules for incoming connections don't hold for published ports";
        add("ufw", Level::Changes, "ufw is enabled", advice);
    }
}

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let attached = if report.attached { "netpath is attached" } else { "netpath isn't attached" };
    let now = match report.mode.as_str() {
        "sole" => "keeps no rules (sole)",
        _ => "keeps its rules (takeover)",
    };
    let verdict = if report.ready { "nothing stands in the way" } else { "some things must be settled before" };
    let mut text = format!("dockerd {} {now}; {attached}; {verdict}\n", report.docker_version);
    if !report.findings.is_empty() {
        let mut table = Table::new(["LEVEL", "SUBJECT", "FINDING", "WHAT IT MEANS"]);
        for item in &report.findings {
            let level = if item.level == Level::Blocks { "blocks" } else { "changes" };
            table.row([level.to_owned(), item.subject.to_owned(), item.finding.clone(), item.advice.clone()]);
        }
        text = text + "\n" + &table.to_string();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{desired::docker::Network, report::BypassedRule, watch::docker::survey::Survey};

    fn quiet() -> Facts {
        let docker = Survey { live_restore: true, mode: Some(Mode::Takeover), ..Survey::default() };
        Facts { docker, ip_forward: true, forward_drops: true, ..Facts::default() }
    }

    fn subjects(facts: &Facts) -> Vec<(&'static str, Level)> {
        report(facts).findings.iter().map(|item| (item.subject, item.level)).filter(|item| *item != FORWARD).collect()
    }

    /// What is said of every host: that FORWARD's policy is what it is.
    const FORWARD: (&str, Level) = ("forward_policy", Level::Changes);

    fn forward(facts: &Facts) -> Vec<String> {
        let report = report(facts);
        let found = report.findings.iter().filter(|item| (item.subject, item.level) == FORWARD);
        found.map(|item| item.finding.clone()).collect()
    }

    #[test]
    fn it_is_said_for_whom_the_host_forwards() {
        assert_eq!(forward(&quiet()), ["the policy of FORWARD is DROP"]);
        assert_eq!(forward(&Facts { forward_drops: false, ..quiet() }), ["the policy of FORWARD is ACCEPT"]);
        let closed = Facts { forward_drops: false, ip_forward: false, ..quiet() };
        assert!(forward(&closed).is_empty());
    }

    #[test]
    fn a_plain_host_has_nothing_in_the_way() {
        let report = report(&quiet());
        assert!(report.ready && subjects(&quiet()).is_empty(), "{report:?}");
    }

    #[test]
    fn everything_is_found() {
        let option = |key: &str, value: &str| (format!("com.docker.network.bridge.{key}"), value.to_owned());
        let bridge =
            |name: &str| Network { name: name.to_owned(), driver: BRIDGE_DRIVER.to_owned(), ..Network::default() };
        let surveyed = Surveyed {
            network: Network { internal: true, ..bridge("web") },
            ipv6: true,
            options: [option("enable_icc", "false"), option("enable_ip_masquerade", "true"), option("name", "br1")]
                .into(),
        };
        let macvlan = Surveyed {
            network: Network { name: "lan".to_owned(), driver: "macvlan".to_owned(), ..Network::default() },
            ..Surveyed::default()
        };
        let rule = |effect: &str| BypassedRule { effect: effect.to_owned(), ..BypassedRule::default() };
        let facts = Facts {
            docker: Survey {
                swarm: true,
                mode: Some(Mode::Sole),
                running: 2,
                arguments: ["dockerd", "--iptables=false", "--debug"].map(str::to_owned).into(),
                networks: [("1".to_owned(), surveyed), ("2".to_owned(), macvlan)].into(),
                ..Survey::default()
            },
            bypassed: vec![rule("counts"), rule("restricts")],
            of_host_sockets: vec!["iptables-nft -t nat -A OUTPUT".to_owned()],
            unreadable: vec!["nft isn't installed".to_owned()],
            docker_chains: true,
            docker_chains_ipv6: true,
            forward_drops: true,
            proxies: 3,
            firewalld: true,
            ufw: true,
            ip_forward: false,
            bridge_netfilter: Some(true),
            ..Facts::default()
        };
        let mut found = subjects(&facts);
        found.sort_unstable();
        let mut expected = vec![
            ("rule", Level::Blocks),
            ("swarm", Level::Blocks),
            ("command_line", Level::Blocks),
            ("stale_chains", Level::Blocks),
            ("ip_forward", Level::Blocks),
            ("rule", Level::Changes),
            ("output_rule", Level::Changes),
            ("unreadable_rules", Level::Changes),
            ("docker_proxy", Level::Changes),
            ("live_restore", Level::Changes),
            ("ipv6", Level::Changes),
            ("network_option", Level::Changes),
            ("internal", Level::Changes),
            ("driver", Level::Changes),
            ("br_netfilter", Level::Changes),
            ("firewalld", Level::Changes),
            ("ufw", Level::Changes),
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
        let report = report(&facts);
        assert!(!report.ready && report.findings[0].level == Level::Blocks);
        assert!(text(&report).contains("must be settled"), "{}", text(&report));
    }

    #[test]
    fn rules_of_ip6tables_are_asked_for_where_a_network_has_ipv6_and_called_useless_elsewhere() {
        let network = Network { driver: BRIDGE_DRIVER.to_owned(), ..Network::default() };
        let mut facts = quiet();
        facts.docker.mode = Some(Mode::Sole);
        let said = |facts: &Facts| {
            let findings = report(facts).findings.into_iter().filter(|item| item.subject != FORWARD.0);
            findings.map(|item| (item.subject, item.advice.contains("nobody keeps the wire"))).collect::<Vec<_>>()
        };
        facts.docker_chains_ipv6 = true;
        assert_eq!(said(&facts), [("ip6tables", false)]);
        let surveyed = Surveyed { network, ipv6: true, ..Surveyed::default() };
        facts.docker.networks.insert("1".to_owned(), surveyed);
        assert_eq!(said(&facts), [("ipv6", false)]);
        facts.docker_chains_ipv6 = false;
        assert_eq!(said(&facts), [("ipv6", true)]);
    }

    #[test]
    fn rules_of_ip6tables_alone_are_in_the_way_where_dockerd_would_not_start_with_them() {
        let network = Network { driver: BRIDGE_DRIVER.to_owned(), ..Network::default() };
        let mut facts = quiet();
        facts.docker.networks.insert("1".to_owned(), Surveyed { network, ipv6: true, ..Surveyed::default() });
        for (version, chains, blocks) in [
            ("20.10.24+dfsg1", true, true),
            ("24.0.6", true, true),
            ("20.10.24", false, false),
            ("28.5.1", true, false),
        ] {
            facts.docker.version = version.to_owned();
            facts.docker_chains_ipv6 = chains;
            assert_eq!(subjects(&facts).contains(&("ip6tables", Level::Blocks)), blocks, "{version} {chains}");
        }
    }

    #[test]
    fn a_default_network_without_icc_is_in_the_way_of_sole_mode_where_dockerd_would_not_start() {
        let network = Network { driver: BRIDGE_DRIVER.to_owned(), is_default: true, icc: false, ..Network::default() };
        let mut facts = quiet();
        facts.docker.networks.insert("1".to_owned(), Surveyed { network: network.clone(), ..Surveyed::default() });
        assert_eq!(subjects(&facts), [("icc", Level::Blocks)]);
        let own = Network { is_default: false, ..network };
        facts.docker.networks.insert("1".to_owned(), Surveyed { network: own, ..Surveyed::default() });
        assert!(subjects(&facts).is_empty());
    }

    #[test]
    fn a_rule_that_the_daemon_was_told_to_ignore_is_settled() {
        let rule = BypassedRule { effect: "restricts".to_owned(), ..BypassedRule::default() };
        let mut facts = Facts { bypassed: vec![rule], ..quiet() };
        assert_eq!(subjects(&facts), [("rule", Level::Blocks)]);
        let mut status = crate::status::Status::default();
        status.firewall.ignored = true;
        facts.netpath = Some(status);
        assert_eq!(subjects(&facts), [("rule", Level::Changes)]);
    }

    #[test]
    fn what_dockerd_forces_on_the_default_network_is_no_option_of_somebodys() {
        let options = [
            ("com.docker.network.bridge.default_bridge".to_owned(), "true".to_owned()),
            ("com.docker.network.bridge.enable_ip_masquerade".to_owned(), "false".to_owned()),
        ];
        let network = Network { driver: BRIDGE_DRIVER.to_owned(), ..Network::default() };
        let mut facts = quiet();
        facts.docker.networks.insert("1".to_owned(), Surveyed { network, ipv6: false, options: options.into() });
        assert_eq!(subjects(&facts), [("network_option", Level::Changes)]);
        facts.docker.mode = Some(Mode::Sole);
        assert_eq!(subjects(&facts), []);
    }
}
