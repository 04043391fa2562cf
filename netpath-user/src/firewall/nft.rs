//! Rules as `nft --json list ruleset` prints them.
//!
//! Only what says where a rule stands, what it does, and for which interfaces and addresses, is understood; all else makes
//! it a rule that may hold.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::Value;

use super::{Action, Backend, Conditions, Hook, Match, Rule, Table};
use crate::subnet::Subnet;

/// Docker's own tables, from 29 on.
const DOCKER_TABLES: [&str; 3] = ["docker-bridges", "docker-dns", "docker-overlay"];

/// The tables of nftables' own. `iptables` are the names of those that iptables-nft has shown already.
///
/// # Errors
///
/// When it isn't what nft prints.
pub(super) fn parse(text: &str, iptables: &BTreeSet<String>) -> anyhow::Result<Vec<Table>> {
    let document: Value = serde_json::from_str(text).context("reading nft's JSON")?;
    let objects = document["nftables"].as_array().context("nft's JSON has no list of objects")?;
    let maps = maps(objects);
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for object in objects {
        let (chain, rule) = (&object["chain"], &object["rule"]);
        let place = if chain.is_object() { chain } else { rule };
        let (Some(family), Some(name)) = (place["family"].as_str(), place["table"].as_str()) else { continue };
        if !matches!(family, "ip" | "inet" | "netdev" | "bridge")
            || DOCKER_TABLES.contains(&name)
            || (family == "ip" && iptables.contains(name))
        {
            continue;
        }
        let full = format!("{family} {name}");
        let table = tables.entry(full.clone()).or_insert_with(|| Table {
            backend: Backend::Nft,
            name: full.clone(),
            chains: BTreeMap::new(),
            leads_to: BTreeSet::new(),
        });
        if let Some(name) = chain["name"].as_str() {
            table.chains.entry(name.to_owned()).or_default().hook = hook(family, chain);
            table.chains.entry(name.to_owned()).or_default().drops_by_default = chain["policy"] == "drop";
        } else if let Some(name) = rule["chain"].as_str() {
            let expressions = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
            let read = read(expressions, &|map| maps.get(&(full.clone(), map.to_owned())).copied());
            table.chains.entry(name.to_owned()).or_default().rules.push(read);
        }
    }
    Ok(tables.into_values().collect())
}

/// Verdict maps by table and name.
fn maps(objects: &[Value]) -> BTreeMap<(String, String), &Value> {
    let maps = objects.iter().map(|object| &object["map"]).filter_map(|map| {
        let table = format!("{} {}", map["family"].as_str()?, map["table"].as_str()?);
        Some(((table, map["name"].as_str()?.to_owned()), &map["elem"]))
    });
    maps.collect()
}

fn hook(family: &str, chain: &Value) -> Option<Hook> {
    match (family, chain["hook"].as_str()?) {
        ("bridge", "prerouting" | "forward" | "postrouting") => Some(Hook::Bridge),
        ("netdev", "ingress") | ("inet", "ingress") | (_, "prerouting") => Some(Hook::Prerouting),
        ("netdev", "egress") | (_, "postrouting") => Some(Hook::Postrouting),
        (_, "forward") => Some(Hook::Forward),
        ("ip" | "inet", "output") => Some(Hook::Output),
        _ => None,
    }
}

fn read<'a>(expressions: &'a [Value], map: &dyn Fn(&str) -> Option<&'a Value>) -> Rule {
    let mut rule = Rule::default();
    let mut words = Vec::new();
    for expression in expressions {
        words.push(words_of(expression));
        let Some((kind, value)) = expression.as_object().and_then(|object| object.iter().next()) else { continue };
        match kind.as_str() {
            "match" => condition(&mut rule.conditions, value),
            "accept" => rule.action = Action::Accept,
            "return" => rule.action = Action::Return,
            "drop" | "reject" | "queue" | "synproxy" => rule.action = Action::Restrict,
            "jump" => rule.action = Action::Jump(targets(value)),
            "goto" => rule.action = Action::Goto(targets(value)),
            "vmap" => {
                rule.conditions.others = true;
                let data = &value["data"];
                let data = data.as_str().and_then(|name| map(name.trim_start_matches('@'))).unwrap_or(data);
                rule.action = verdicts(data);
            }
            "masquerade" if rule.action == Action::Count => rule.action = Action::Masquerade,
            "mangle" | "dnat" | "snat" | "redirect" | "tproxy" | "dup" | "fwd" | "flow" => {
                if rule.action == Action::Count {
                    rule.action = Action::Change;
                }
            }
            // Of a verdict that the JSON can't show nothing is known.
            "xt" => {
                rule.conditions.others = true;
                if rule.action == Action::Count {
                    rule.action = Action::Restrict;
                }
            }
            "counter" | "log" | "continue" | "notrack" | "ct helper" | "ct timeout" | "comment" => {}
            _ => rule.conditions.others = true,
        }
    }
    rule.text = words.join(" ");
    rule
}

fn targets(verdict: &Value) -> Vec<String> {
    verdict["target"].as_str().map(str::to_owned).into_iter().collect()
}

/// What a verdict map does: its jumps, else the worst of its verdicts.
fn verdicts(data: &Value) -> Action {
    let elements = data["set"].as_array().or_else(|| data.as_array()).map(Vec::as_slice).unwrap_or_default();
    let verdicts: Vec<&Value> = elements.iter().filter_map(|element| element.as_array()?.last()).collect();
    let is = |verdict: &&Value, name: &str| verdict.as_object().is_some_and(|object| object.contains_key(name));
    if elements.is_empty() || verdicts.iter().any(|verdict| is(verdict, "drop")) {
        return Action::Restrict;
    }
    let chains: BTreeSet<String> = verdicts
        .iter()
        .filter_map(|verdict| verdict["jump"]["target"].as_str().or_else(|| verdict["goto"]["target"].as_str()))
        .map(str::to_owned)
        .collect();
    if chains.is_empty() { Action::Accept } else { Action::Jump(chains.into_iter().collect()) }
}

/// Takes in `iifname "eth0"`, `ip saddr 10.0.0.0/8` and the like.
fn condition(conditions: &mut Conditions, value: &Value) {
    let negated = match value["op"].as_str() {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => {
            conditions.others = true;
            return;
        }
    };
    let (left, right) = (&value["left"], &value["right"]);
    let values = right["set"].as_array().map_or_else(|| vec![right], |set| set.iter().collect());
    let interfaces = || values.iter().map(|value| Some(value.as_str()?.to_owned())).collect::<Option<Vec<_>>>();
    let subnets = || values.iter().map(|value| subnet(value)).collect::<Option<Vec<_>>>();
    let is_set = right.as_str().is_some_and(|text| text.starts_with('@'));
    let slot_free = |taken: bool| !taken && !is_set;
    let understood = match (left["meta"]["key"].as_str(), left["payload"]["field"].as_str()) {
        (Some("iif" | "iifname"), _) if slot_free(conditions.from.is_some()) => {
            interfaces().map(|values| conditions.from = Some(Match { values, negated }))
        }
        (Some("oif" | "oifname"), _) if slot_free(conditions.to.is_some()) => {
            interfaces().map(|values| conditions.to = Some(Match { values, negated }))
        }
        (_, Some("saddr")) if left["payload"]["protocol"] == "ip" && slot_free(conditions.source.is_some()) => {
            subnets().map(|values| conditions.source = Some(Match { values, negated }))
        }
        (_, Some("daddr")) if left["payload"]["protocol"] == "ip" && slot_free(conditions.destination.is_some()) => {
            subnets().map(|values| conditions.destination = Some(Match { values, negated }))
        }
        _ => None,
    };
    if understood.is_none() {
        conditions.others = true;
    }
}

fn subnet(value: &Value) -> Option<Subnet> {
    let prefix = &value["prefix"];
    match (value.as_str(), prefix["addr"].as_str(), prefix["len"].as_u64()) {
        (Some(text), _, _) => text.parse().ok(),
        (None, Some(address), Some(bits)) => format!("{address}/{bits}").parse().ok(),
        _ => None,
    }
}

/// An expression in words, near enough to nft's own.
fn words_of(expression: &Value) -> String {
    let Some((kind, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
        return expression.as_str().map_or_else(|| expression.to_string(), str::to_owned);
    };
    match kind.as_str() {
        "match" => {
            let operator = match value["op"].as_str() {
                Some("==" | "in") | None => String::new(),
                Some(operator) => format!("{operator} "),
            };
            format!("{} {operator}{}", words_of(&value["left"]), words_of(&value["right"]))
        }
        "meta" | "ct" if value["key"].is_string() => value["key"].as_str().unwrap_or_default().to_owned(),
        "payload" if value["field"].is_string() => {
            format!("{} {}", text(&value["protocol"]), text(&value["field"]))
        }
        "prefix" => format!("{}/{}", text(&value["addr"]), value["len"]),
        "set" if value.is_array() => {
            let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
            format!("{{ {} }}", values.iter().map(words_of).collect::<Vec<_>>().join(", "))
        }
        "jump" | "goto" => format!("{kind} {}", text(&value["target"])),
        "counter" => "counter".to_owned(),
        _ if value.is_null() => kind.clone(),
        _ => format!("{kind} {value}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{Action, Hook, parse};

    fn tables(objects: &serde_json::Value) -> Vec<super::Table> {
        parse(&json!({ "nftables": objects }).to_string(), &BTreeSet::from(["filter".to_owned()])).unwrap()
    }

    #[test]
    fn what_nft_prints_is_understood() {
        let chain = |table: &str, name: &str, hook: serde_json::Value| json!({"chain": {"family": "inet", "table": table, "name": name, "hook": hook, "policy": "drop"}});
        let rule = |chain: &str, expressions: serde_json::Value| json!({"rule": {"family": "inet", "table": "mine", "chain": chain, "handle": 4, "expr": expressions}});
        let matched = |key: &str, right: serde_json::Value| json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}});
        let source = json!({"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
            "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}});
        let tables = tables(&json!([
            {"metainfo": {"version": "1.0.6"}},
            chain("mine", "fwd", json!("forward")),
            chain("mine", "sub", json!(null)),
            rule("fwd", json!([matched("iifname", json!({"set": ["eth0", "wg*"]})), source, {"counter": {}}, {"drop": null}])),
            rule("fwd", json!([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}}])),
            rule("fwd", json!([{"jump": {"target": "sub"}}])),
            rule("sub", json!([{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}},
                {"accept": null}])),
            {"map": {"family": "inet", "table": "mine", "name": "zones", "elem": [["eth0", {"goto": {"target": "sub"}}]]}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "docker-bridges", "name": "x", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "mine", "name": "x", "hook": "forward", "policy": "drop"}},
        ]));
        let [table] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!(table.name, "inet mine");
        let forward = &table.chains["fwd"];
        assert_eq!((forward.hook, forward.drops_by_default), (Some(Hook::Forward), true));
        let [drop, zones, jump] = forward.rules.as_slice() else { panic!("three rules") };
        assert_eq!(drop.action, Action::Restrict);
        assert_eq!(drop.conditions.from.as_ref().unwrap().values, ["eth0", "wg*"]);
        assert!(drop.conditions.source.as_ref().unwrap().negated && !drop.conditions.others);
        assert_eq!(drop.text, "iifname { eth0, wg* } ip saddr != 10.0.0.0/8 counter drop");
        assert_eq!(zones.action, Action::Jump(vec!["sub".to_owned()]));
        assert_eq!((jump.conditions.are_none(), &jump.action), (true, &Action::Jump(vec!["sub".to_owned()])));
        assert!(table.chains["sub"].rules[0].conditions.others);
    }

    #[test]
    fn what_is_not_nfts_is_an_error() {
        assert!(parse("", &BTreeSet::new()).is_err());
        assert!(parse("{}", &BTreeSet::new()).is_err());
    }
}
