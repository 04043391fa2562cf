//! Rules because of which somebody may wait for a datagram that no socket of the host takes: those that translate it, lead
//! it elsewhere or hand it to a program.
//!
//! Docker's own translate too, but only what is containers' and netpath carries. Rules that drop or only look are none:
//! what netpath drops at a closed port nobody would have got. In doubt a rule counts.

use super::{Action, Backend, DOCKER_USER, Rule, Ruleset, Table, is_dockers_chain, judge::is_within};
use crate::subnet::Subnet;

/// Such rules, and what can't be read, in words. `carried` are the subnets whose packets netpath carries.
#[must_use]
pub fn translating(ruleset: &Ruleset, carried: &[Subnet]) -> Vec<String> {
    let mut reasons: Vec<String> =
        ruleset.errors.iter().map(|error| format!("the firewall's rules can't all be read: {error}")).collect();
    for table in &ruleset.tables {
        reasons.extend(table.leads_to.iter().filter(|to| !carried.iter().any(|subnet| subnet.covers(**to))).map(
            |to| {
                format!(
                    "Docker's rules ({} -t {}) lead to {to}, which netpath doesn't carry",
                    table.backend, table.name
                )
            },
        ));
        for (name, chain) in &table.chains {
            let rules = chain.rules.iter().filter(|rule| translates(table, name, rule, carried));
            reasons.extend(rules.map(|rule| match table.backend {
                Backend::Nft => format!("the rule `nft {} {name}: {}`", table.name, rule.text),
                backend => format!("the rule `{backend} -t {} {}`", table.name, rule.text),
            }));
        }
    }
    reasons
}

fn translates(table: &Table, chain: &str, rule: &Rule, carried: &[Subnet]) -> bool {
    let is_nft = table.backend == Backend::Nft;
    match &rule.action {
        // Programs that are given packets may send them on changed; of a verdict that can't be shown nothing is known.
        Action::Restrict => {
            let text = &rule.text;
            text.contains("QUEUE") || is_nft && ["queue", "synproxy", "xt "].iter().any(|word| text.contains(word))
        }
        Action::Jump(targets) | Action::Goto(targets) => targets.iter().any(|target| {
            let is_dockers = is_dockers_chain(target) || target == DOCKER_USER;
            target == SWARM || !is_nft && !is_dockers && !table.chains.contains_key(target)
        }),
        Action::Masquerade | Action::Change => {
            // What leaves with another address gets its answers at the host's; elsewhere only arriving packets count.
            let concerns = is_nft || table.name == "nat" || !matches!(chain, "OUTPUT" | "FORWARD" | "POSTROUTING");
            let of_carried = table.name == "nat" && chain == "POSTROUTING" && !is_nft;
            concerns && !(of_carried && is_within(rule.conditions.source.as_ref(), carried)) && !is_about_tcp(rule)
        }
        Action::Count | Action::Accept | Action::Return => false,
    }
}

/// The chain of swarm's routing mesh.
const SWARM: &str = "DOCKER-INGRESS";

/// Whether a rule of iptables is about TCP alone.
fn is_about_tcp(rule: &Rule) -> bool {
    rule.text.starts_with("-A ") && rule.text.contains(" -p tcp ") && !rule.text.contains("--comment")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::firewall::{nft, save};

    const DOCKERS: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
        -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
        -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p udp -m udp --dport 80 -j MASQUERADE\n\
        -A DOCKER -i docker0 -j RETURN\n\
        -A DOCKER ! -i docker0 -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n\
        *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n\
        -A INPUT -p udp -j LOG\n-A INPUT -p udp -m udp --dport 53 -j DROP\n-A FORWARD -j DOCKER-USER\nCOMMIT\n";

    fn judge(iptables: &str) -> Vec<String> {
        let ruleset = Ruleset { tables: save::parse(Backend::IptablesNft, iptables), errors: vec![] };
        translating(&ruleset, &["172.17.0.0/16".parse().unwrap()])
    }

    #[test]
    fn dockers_own_rules_and_those_that_only_drop_or_look_are_none() {
        assert_eq!(judge(DOCKERS), [""; 0]);
    }

    #[test]
    fn whoever_translates_or_takes_packets_counts() {
        let rows = [
            ("nat", "-A PREROUTING -p udp -m udp --dport 5000 -j DNAT --to-destination 10.0.0.5"),
            ("nat", "-A PREROUTING -p udp -m udp --dport 5000 -j REDIRECT --to-ports 53"),
            ("nat", "-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE"),
            ("nat", "-A POSTROUTING -o eth0 -j MASQUERADE"),
            ("nat", "-A POSTROUTING ! -s 172.17.0.0/16 -j SNAT --to-source 192.0.2.1"),
            ("nat", "-A DOCKER -p udp -m udp --dport 5000 -j DNAT --to-destination 10.0.0.5:5000"),
            ("nat", "-A DOCKER -p udp -m udp --dport 5000 -j REDIRECT --to-ports 53"),
            ("nat", "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER-INGRESS"),
            ("mangle", "-A PREROUTING -p udp -j TPROXY --on-port 1 --on-ip 0.0.0.0"),
            ("mangle", "-A PREROUTING -p udp -j SOMETHINGNEW --with x"),
            ("mangle", "-A mine -p udp -j TEE --gateway 192.0.2.2"),
            ("filter", "-A INPUT -p udp -j NFQUEUE --queue-num 0"),
        ];
        for (table, rule) in rows {
            let chains = ":PREROUTING ACCEPT\n:INPUT ACCEPT\n:POSTROUTING ACCEPT\n:DOCKER -\n:mine -\n";
            let reasons = judge(&format!("*{table}\n{chains}{rule}\nCOMMIT\n"));
            assert_eq!(reasons.len(), 1, "{rule}: {reasons:?}");
        }
    }

    #[test]
    fn what_concerns_other_packets_does_not() {
        for (table, rule) in [
            ("mangle", "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"),
            ("mangle", "-A POSTROUTING -o eth0 -j DSCP --set-dscp 0x08"),
            ("nat", "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080"),
            ("raw", "-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP"),
        ] {
            let chains = ":PREROUTING ACCEPT\n:FORWARD ACCEPT\n:POSTROUTING ACCEPT\n";
            let reasons = judge(&format!("*{table}\n{chains}{rule}\nCOMMIT\n"));
            assert!(reasons.is_empty(), "{rule}: {reasons:?}");
        }
    }

    #[test]
    fn translations_of_nftables_and_what_cannot_be_read_count() {
        let json = serde_json::json!({"nftables": [
            {"chain": {"family": "inet", "table": "mine", "name": "pre", "hook": "prerouting", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "mine", "chain": "pre", "handle": 4, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 5000}},
                {"dnat": {"family": "ip", "addr": "10.0.0.5"}}]}},
            {"rule": {"family": "inet", "table": "mine", "chain": "pre", "handle": 5, "expr": [{"counter": {}}, {"drop": null}]}},
        ]});
        let tables = nft::parse(&json.to_string(), &BTreeSet::new()).unwrap();
        let ruleset = Ruleset { tables, errors: vec!["nft failed".to_owned()] };
        let reasons = translating(&ruleset, &[]);
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[0].contains("nft failed") && reasons[1].contains("dnat"), "{reasons:?}");
    }
}
