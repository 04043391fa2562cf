use super::*;
use crate::settings::Settings;

fn read(text: &str) -> Result<Policy, String> {
    Settings::parse(text).map(|settings| settings.policy)
}

const FILE: &str = r#"
[policy]
default = "deny"
dry_run = true

[[policy.rule]]
action = "allow"
source = ["203.0.113.0/24", "198.51.100.7"]
port = [8080, "9000-9100"]

# Neighbours.
[[policy.rule]]
action = "deny"
from = "container"
network = "shop"
protocol = ["tcp", "udp"]
"#;

#[test]
fn a_policy_says_what_it_may() {
    let policy = read(FILE).unwrap();
    assert_eq!((policy.default, policy.dry_run), (Action::Deny, true));
    let [first, second] = policy.rules.as_slice() else { panic!("{policy:?}") };
    assert_eq!((first.line, second.line), (6, 12));
    assert_eq!((first.action, second.action), (Action::Allow, Action::Deny));
    let sources: Vec<_> = first.source.iter().map(Prefix::to_string).collect();
    assert_eq!(sources, ["203.0.113.0/24", "198.51.100.7"]);
    assert_eq!(first.port, [PortRange { first: 8080, last: 8080 }, PortRange { first: 9000, last: 9100 }]);
    assert_eq!((first.size(), second.size()), (4, 2));
    assert_eq!((second.from, second.network.as_slice()), (Some(Origin::Container), ["shop".to_owned()].as_slice()));
    assert_eq!(second.protocol, [Protocol::Tcp, Protocol::Udp]);
}

#[test]
fn without_a_policy_everything_is_allowed() {
    for text in ["", "[policy]"] {
        let policy = read(text).unwrap();
        assert_eq!((policy.default, policy.rules.len()), (Action::Allow, 0));
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    let rule = |keys: &str| format!("[policy]\n[[policy.rule]]\naction = \"deny\"\n{keys}\n");
    for (text, expected) in [
        (rule("sorce = \"10.0.0.0/8\""), "sorce"),
        (rule("source = \"10.0.0.1/8\""), "10.0.0.0/8"),
        (rule("source = \"10.0.0.0/33\""), "33"),
        (rule("source = \"2001:db8::/32\""), "IPv4"),
        (rule("source = \"host\""), "isn't an IPv4 address"),
        (rule("source = [\"10.0.0.0/8\", \"x\"]"), "isn't an IPv4 address"),
        (rule("source = []"), "leave the key out"),
        (rule("source = 10"), "isn't an IPv4 address"),
        (rule("port = 0"), "ports are 1 to 65535"),
        (rule("port = 70000"), "ports are 1 to 65535"),
        (rule("port = \"90-80\""), "before it begins"),
        (rule("port = true"), "a port or a range"),
        (rule("protocol = \"icmp\""), "isn't \"tcp\", \"udp\" or \"sctp\""),
        (rule("network = \"\""), "a network's name or id"),
        (rule("from = \"wires\""), "isn't \"wire\" or \"container\""),
        (rule("action = \"allow\""), "duplicate key"),
        ("\n\n[policy]\ndefault = \"drop\"".to_owned(), "isn't \"allow\" or \"deny\""),
        ("\n\n[policy]\nrules = []".to_owned(), "rules"),
        ("[policy]\n\n\n[[policy.rule]]\nport = 1".to_owned(), "action"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(expected) && error.contains("line 4"), "{text}: {error}");
    }
}

#[test]
fn a_policy_that_is_too_long_is_refused_where_it_becomes_so() {
    let rule = "[[policy.rule]]\naction = \"deny\"\nprotocol = [\"tcp\", \"udp\"]\n";
    let fits = rule.repeat(abi::Policy::RULES_MAX / 2);
    assert_eq!(read(&fits).unwrap().rules.len(), 64);
    let error = read(&format!("{fits}[[policy.rule]]\naction = \"allow\"")).unwrap_err();
    assert!(error.contains("line 193") && error.contains("128"), "{error}");
}
