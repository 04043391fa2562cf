//! Rules as people write them, and what is said of them on a host with docker0 and one network more.

use super::*;
use crate::firewall::save;

/// What dockerd 20.10 puts into an otherwise empty firewall, with one published port.
const DOCKER: &str = "*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
BEFORE
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A FORWARD -o br-web -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br-web -j DOCKER
-A FORWARD -i br-web ! -o br-web -j ACCEPT
-A FORWARD -i br-web -o br-web -j DROP
AFTER
USER
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.0/16 ! -o br-web -j SNAT --to-source 192.0.2.9
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
NAT
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP
RAW
COMMIT
";

fn scene() -> Scene {
    let network = |id: &str, bridge: &str, subnet: &str| SceneNetwork {
        id: id.to_owned(),
        name: id.to_owned(),
        bridge: bridge.to_owned(),
        subnets: vec![subnet.parse().unwrap()],
    };
    Scene {
        networks: vec![network("bridge", "docker0", "172.17.0.0/16"), network("web", "br-web", "172.18.0.0/16")],
        uplinks: ["eth0".to_owned()].into(),
        host_addresses: vec!["192.0.2.2".parse().unwrap()],
    }
}

/// What is said of rules that are put in one of the marked places: effect and networks of each.
fn judge(place: &str, rules: &str) -> Vec<(Effect, Vec<String>)> {
    let places = ["BEFORE", "AFTER", "USER", "NAT", "RAW"];
    let text = places.iter().fold(DOCKER.to_owned(), |text, marked| {
        text.replace(&format!("\n{marked}\n"), &if *marked == place { format!("\n{rules}\n") } else { "\n".to_owned() })
    });
    let ruleset = Ruleset { tables: save::parse(Backend::IptablesNft, &text), errors: Vec::new() };
    let findings = bypassed(&ruleset, &scene());
    findings.into_iter().map(|finding| (finding.effect, finding.networks.into_iter().collect())).collect()
}

#[test]
fn dockers_own_rules_stand_in_nobodys_way() {
    assert_eq!(judge("", ""), []);
}

#[test]
fn a_rule_concerns_the_networks_that_it_may_be_about() {
    let both = &["bridge", "web"][..];
    for (place, rule, effect, networks) in [
        ("USER", "-A DOCKER-USER -s 198.51.100.7/32 -j DROP", Effect::Restricts, both),
        ("USER", "-A DOCKER-USER -i eth0 ! -s 10.0.0.0/8 -j REJECT", Effect::Restricts, both),
        ("USER", "-A DOCKER-USER -o docker0 -j DROP", Effect::Restricts, &["bridge"]),
        ("USER", "-A DOCKER-USER -i docker0 -j DROP", Effect::Restricts, &["bridge"]),
        ("USER", "-A DOCKER-USER -i docker0 -o br-web -j DROP", Effect::Restricts, &["web"]),
        ("USER", "-A DOCKER-USER -i eth0 -o docker0 -j DROP", Effect::Restricts, &["bridge"]),
        ("USER", "-A DOCKER-USER -i br-web -o eth0 -j DROP", Effect::Restricts, &["web"]),
        ("USER", "-A DOCKER-USER -i eth0 -d 172.18.0.0/16 -p tcp -j DROP", Effect::Restricts, &["web"]),
        ("USER", "-A DOCKER-USER -i eth+ -o br-+ -j DROP", Effect::Restricts, &["web"]),
        ("USER", "-A DOCKER-USER -p tcp -j LOG", Effect::Counts, both),
        ("USER", "-A DOCKER-USER -p tcp", Effect::Counts, both),
        ("USER", "-A DOCKER-USER -i eth0 -o docker0 -j NFQUEUE --queue-num 1", Effect::Restricts, &["bridge"]),
        ("AFTER", "-A DOCKER -s 198.51.100.7/32 -j DROP", Effect::Restricts, both),
        (
            "NAT",
            ":DOCKER-BLOCK - [0:0]\n-A PREROUTING -j DOCKER-BLOCK\n-A DOCKER-BLOCK -p tcp -j DROP",
            Effect::Restricts,
            both,
        ),
        ("BEFORE", "-A FORWARD -i eth0 -o br-web -j DROP", Effect::Restricts, &["web"]),
        ("NAT", "-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 81", Effect::Changes, both),
        ("NAT", "-A POSTROUTING -s 172.17.0.0/16 -o eth0 -j SNAT --to-source 192.0.2.7", Effect::Changes, &["bridge"]),
        ("RAW", "-A PREROUTING -i eth0 -s 198.51.100.7/32 -j DROP", Effect::Restricts, both),
        ("RAW", "-A PREROUTING -i eth0 -d 192.0.2.2/32 -j DROP", Effect::Restricts, both),
    ] {
        let networks: Vec<_> = networks.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(judge(place, rule), [(effect, networks)], "{rule}");
    }
}

#[test]
fn rules_that_cannot_be_about_containers_or_do_no_harm_are_not_told() {
    for (place, rule) in [
        ("USER", "-A DOCKER-USER -s 10.0.0.0/8 -j ACCEPT"),
        ("USER", "-A DOCKER-USER -s 10.0.0.0/8 -j RETURN"),
        ("USER", "-A DOCKER-USER -i virbr0 -j DROP"),
        ("USER", "-A DOCKER-USER -i eth0 -o wg0 -j DROP"),
        ("USER", "-A DOCKER-USER -i eth0 -o eth0 -j DROP"),
        ("USER", "-A DOCKER-USER -s 172.17.0.0/16 -o docker0 -i virbr0 -j DROP"),
        // Nothing comes behind the rule that lets all pass.
        ("USER", "-A DOCKER-USER -m comment --comment \"all\" -j RETURN\n-A DOCKER-USER -s 198.51.100.7/32 -j DROP"),
        // What is accepted for certain isn't seen by those behind.
        ("USER", "-A DOCKER-USER -i eth0 -j RETURN\n-A DOCKER-USER -i eth0 -j DROP"),
        // Docker's rules have accepted what netpath carries by then.
        ("AFTER", "-A FORWARD -i eth0 -j DROP"),
        ("NAT", "-A POSTROUTING -o eth0 -j MASQUERADE"),
        ("RAW", "-A PREROUTING -i eth0 -d 203.0.113.7/32 -j DROP"),
        ("RAW", "-A PREROUTING -i wg0 -j DROP"),
    ] {
        assert_eq!(judge(place, rule), [], "{rule}");
    }
}

#[test]
fn rules_are_followed_into_the_chains_that_they_jump_to() {
    let chains = ":mine - [0:0]\n:deeper - [0:0]\n";
    let rules = "-A DOCKER-USER -i eth0 -o docker0 -j mine\n-A mine -s 10.0.0.0/8 -j RETURN\n-A mine -p tcp -g deeper\n\
                 -A deeper -j DROP";
    assert_eq!(judge("USER", &format!("{chains}{rules}")), [(Effect::Restricts, vec!["bridge".to_owned()])]);
    let never = "-A DOCKER-USER -i wg0 -j mine\n-A mine -j DROP";
    assert_eq!(judge("USER", &format!("{chains}{never}")), []);
    let endless = "-A DOCKER-USER -j mine\n-A mine -j mine";
    assert_eq!(judge("USER", &format!("{chains}{endless}")), []);
}

#[test]
fn many_chains_that_may_be_gone_through_take_no_time() {
    let chains: String = (0..60).map(|number| format!(":c{number} - [0:0]\n")).collect();
    let jumps: String =
        (0..60).map(|number| format!("-A DOCKER-USER -p tcp -m tcp --dport {number} -j c{number}\n")).collect();
    let drops: String = (0..60).map(|number| format!("-A c{number} -s 10.0.0.{number} -j DROP\n")).collect();
    assert_eq!(judge("USER", &format!("{chains}{jumps}{drops}")).len(), 60);
}

#[test]
fn a_policy_that_drops_is_dockers_only_beside_its_rules() {
    let legacy = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i docker0 -j ACCEPT\nCOMMIT\n";
    let ruleset = Ruleset { tables: save::parse(Backend::IptablesLegacy, legacy), errors: Vec::new() };
    let findings = bypassed(&ruleset, &scene());
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.rule.as_str(), finding.effect), ("policy drop", Effect::Restricts));
}
