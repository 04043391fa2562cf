//! Rules about the host's own packets that lose their effect on what goes to published ports.
//!
//! Docker's rules translate such packets between raw, mangle and nat on the one hand and filter on the other, and leave 127.0.0.1
//! to docker-proxy; netpath leads the socket itself, so that every chain sees the container's address and its bridge. A rule
//! that names the host's addresses, or `lo`, sees them no more. One that names neither still holds, such as one about a
//! process's owner in filter. Nothing is refused because of it: `netpath migrate --check` names it.

use super::{Action, Backend, Chain, Hook, Rule, Ruleset, Table, is_dockers_chain};
use crate::subnet::Subnet;

/// Chains jump to chains; deeper than the kernel allows there is nothing.
const DEPTH_MAX: usize = 16;

/// The interface by which the host reaches itself.
const LOOPBACK: &str = "lo";

/// The rules, as one would type them.
#[must_use]
pub fn of_host_sockets(ruleset: &Ruleset, host_addresses: &[Subnet]) -> Vec<String> {
    let mut found = Vec::new();
    for table in &ruleset.tables {
        let begins = table.chains.values().filter(|chain| chain.hook == Some(Hook::Output));
        for chain in begins {
            walk(table, chain, Names::Nothing, host_addresses, DEPTH_MAX, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether the rules that led here name the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Nothing,
    TheHost,
}

fn walk(table: &Table, chain: &Chain, names: Names, host: &[Subnet], depth: usize, found: &mut Vec<String>) {
    for rule in &chain.rules {
        let named = if names_host(rule, host) { Names::TheHost } else { names };
        match &rule.action {
            Action::Jump(targets) | Action::Goto(targets) if depth > 0 => {
                let own = targets.iter().filter(|target| !is_dockers_chain(target));
                for target in own.filter_map(|target| table.chains.get(target)) {
                    walk(table, target, named, host, depth - 1, found);
                }
            }
            Action::Restrict | Action::Change if named == Names::TheHost => found.push(command(table, rule)),
            _ => {}
        }
    }
}

/// Whether a rule is about packets to the host's own addresses only, or about those that leave by `lo`.
fn names_host(rule: &Rule, host: &[Subnet]) -> bool {
    let loopback = Subnet::new([127, 0, 0, 0].into(), 8);
    let is_host = |value: &Subnet| loopback.covers(*value) || host.contains(value);
    let conditions = &rule.conditions;
    let to_host = conditions.destination.as_ref().is_some_and(|to| !to.negated && to.values.iter().any(is_host));
    to_host || conditions.to.as_ref().is_some_and(|to| !to.negated && to.values.iter().any(|name| name == LOOPBACK))
}

fn command(table: &Table, rule: &Rule) -> String {
    match table.backend {
        Backend::Nft => format!("nft {}: {}", table.name, rule.text),
        backend => format!("{backend} -t {} {}", table.name, rule.text),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::firewall::{nft, save};

    fn found(table: &str, rules: &str) -> Vec<String> {
        let chains = ":INPUT ACCEPT\n:OUTPUT ACCEPT\n:DOCKER -\n:mine -\n";
        let tables = save::parse(Backend::IptablesNft, &format!("*{table}\n{chains}{rules}\nCOMMIT\n"));
        of_host_sockets(&Ruleset { tables, errors: vec![] }, &["192.0.2.2".parse().unwrap()])
    }

    #[test]
    fn what_names_the_host_is_found() {
        for (table, rules) in [
            ("filter", "-A OUTPUT -d 127.0.0.1/32 -p tcp -m owner --uid-owner 1000 -j REJECT"),
            ("filter", "-A OUTPUT -o lo -p tcp -m tcp --dport 8080 -j DROP"),
            ("nat", "-A OUTPUT -d 192.0.2.2/32 -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80"),
            ("mangle", "-A OUTPUT -d 192.0.2.2/32 -j MARK --set-xmark 0x1/0xffffffff"),
            ("filter", "-A OUTPUT -d 192.0.2.2/32 -j mine\n-A mine -m owner --uid-owner 1000 -j DROP"),
        ] {
            assert_eq!(found(table, rules).len(), 1, "{rules}");
        }
    }

    #[test]
    fn what_still_holds_and_what_is_dockers_is_not() {
        for (table, rules) in [
            ("filter", "-A OUTPUT -m owner --uid-owner 1000 -j REJECT"),
            ("filter", "-A OUTPUT -d 172.17.0.2/32 -j DROP"),
            ("filter", "-A OUTPUT -d 198.51.100.0/24 -j DROP"),
            ("filter", "-A OUTPUT -o lo -j ACCEPT"),
            ("filter", "-A INPUT -d 192.0.2.2/32 -j DROP"),
            ("nat", "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"),
            ("nat", "-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER"),
        ] {
            assert!(found(table, rules).is_empty(), "{rules}");
        }
    }

    #[test]
    fn nftables_own_chains_are_looked_at_too() {
        let json = serde_json::json!({"nftables": [
            {"chain": {"family": "inet", "table": "mine", "name": "out", "hook": "output", "policy": "drop"}},
            {"rule": {"family": "inet", "table": "mine", "chain": "out", "handle": 4, "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "lo"}}, {"drop": null}]}},
        ]});
        let tables = nft::parse(&json.to_string(), &BTreeSet::new()).unwrap();
        let ruleset = Ruleset { tables, errors: vec![] };
        assert_eq!(of_host_sockets(&ruleset, &[]).len(), 1);
        assert!(
            crate::firewall::bypassed(&ruleset, &crate::firewall::Scene::default()).is_empty(),
            "no reason to refuse"
        );
    }
}
