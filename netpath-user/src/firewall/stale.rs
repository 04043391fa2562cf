//! Docker's own rules, and how to take them away once dockerd no longer keeps them.

use super::{Action, Backend, DOCKER_USER, Rule, Scene, is_dockers_chain, judge::is_dockers_rule, save};

/// Whether rules hold chains of Docker's.
#[must_use]
pub fn has_docker(saved: &str) -> bool {
    saved.lines().filter_map(chain).any(is_dockers_chain)
}

/// The policy of FORWARD in the table filter.
#[must_use]
pub fn forward_drops(saved: &str) -> bool {
    let tables = save::parse(Backend::IptablesNft, saved);
    let filter = tables.iter().find(|table| table.name == "filter");
    filter.and_then(|table| table.chains.get("FORWARD")).is_some_and(|chain| chain.drops_by_default)
}

/// What `iptables-restore --noflush` takes to remove Docker's rules and chains and nothing else; empty when there are
/// none. DOCKER-USER stays where it has rules of somebody's. Policies stay: with FORWARD's at DROP the host remains closed.
#[must_use]
pub fn removal(saved: &str, scene: &Scene) -> String {
    let mut script = String::new();
    for table in save::parse(Backend::IptablesNft, saved) {
        let mut chains = dockers_chains(saved, &table.name);
        let user_rules = table.chains.get(DOCKER_USER).map(|chain| chain.rules.as_slice());
        let user_is_empty = user_rules.is_some_and(|rules| rules.iter().all(|rule| rule.action == Action::Return));
        if user_is_empty {
            chains.push(DOCKER_USER.to_owned());
        }
        let mut changes = String::new();
        for (name, chain) in table.chains.iter().filter(|(name, _)| !chains.contains(name)) {
            for rule in &chain.rules {
                let jumps = matches!(&rule.action, Action::Jump(to) if to.iter().any(|to| chains.contains(to)));
                if jumps || is_dockers_rule(&table, name, rule, scene) || is_dockers_masquerade(rule, scene) {
                    changes += &rule.text.replacen("-A ", "-D ", 1);
                    changes.push('\n');
                }
            }
        }
        let each = |verb: &str| chains.iter().map(|chain| format!("{verb} {chain}\n")).collect::<String>();
        changes += &(each("-F") + &each("-X"));
        if !changes.is_empty() {
            script += &format!("*{}\n{changes}COMMIT\n", table.name);
        }
    }
    script
}

/// The names of Docker's chains in a table.
fn dockers_chains(saved: &str, table: &str) -> Vec<String> {
    let of_table = saved.lines().skip_while(|line| line.strip_prefix('*') != Some(table));
    let of_table = of_table.take_while(|line| *line != "COMMIT");
    of_table.filter_map(chain).filter(|name| is_dockers_chain(name)).map(str::to_owned).collect()
}

/// The chain that a line declares.
fn chain(line: &str) -> Option<&str> {
    line.strip_prefix(':')?.split_whitespace().next()
}

/// `-s SUBNET ! -o BRIDGE`, `-s ADDRESS -d ADDRESS` of a container, or `--src-type LOCAL -o BRIDGE`.
fn is_dockers_masquerade(rule: &Rule, scene: &Scene) -> bool {
    let conditions = &rule.conditions;
    rule.action == Action::Masquerade
        && scene.networks.iter().any(|network| {
            let own = |matched: &super::Match<String>| matched.values == [network.bridge.as_str()];
            let source = conditions.source.as_ref().filter(|source| !source.negated);
            let within = |subnet| network.subnets.iter().any(|own| own.covers(subnet));
            let from_own = source.is_some_and(|source| source.values.iter().all(|value| within(*value)));
            let out = conditions.to.as_ref();
            let leaves = out.is_some_and(|out| out.negated && own(out));
            (from_own && (leaves || conditions.destination == conditions.source))
                || (rule.text.contains("--src-type LOCAL") && out.is_some_and(|out| !out.negated && own(out)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::SceneNetwork;

    const SAVED: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
:mine - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A FORWARD -i virbr0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
-A mine -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
COMMIT
";

    fn scene() -> Scene {
        let network = SceneNetwork {
            id: "n".to_owned(),
            name: "bridge".to_owned(),
            bridge: "docker0".to_owned(),
            subnets: vec!["172.17.0.0/16".parse().unwrap()],
        };
        Scene { networks: vec![network], ..Scene::default() }
    }

    #[test]
    fn dockers_rules_go_and_nothing_else() {
        assert!(has_docker(SAVED) && forward_drops(SAVED));
        assert_eq!(
            removal(SAVED, &scene()),
            "*filter
-D FORWARD -j DOCKER-USER
-D FORWARD -j DOCKER-ISOLATION-STAGE-1
-D FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-D FORWARD -o docker0 -j DOCKER
-D FORWARD -i docker0 ! -o docker0 -j ACCEPT
-D FORWARD -i docker0 -o docker0 -j ACCEPT
-F DOCKER
-F DOCKER-ISOLATION-STAGE-1
-F DOCKER-USER
-X DOCKER
-X DOCKER-ISOLATION-STAGE-1
-X DOCKER-USER
COMMIT
*nat
-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-D POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-F DOCKER
-X DOCKER
COMMIT
"
        );
    }

    #[test]
    fn the_operators_rules_in_docker_user_stay() {
        let saved = SAVED.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -s 198.51.100.7/32 -j DROP");
        let script = removal(&saved, &scene());
        assert!(!script.contains("DOCKER-USER"), "{script}");
        assert!(!has_docker("*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n"));
        assert_eq!(removal("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", &scene()), "");
    }
}
