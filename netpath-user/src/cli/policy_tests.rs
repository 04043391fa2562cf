use super::*;

const FILE: &str = r#"
[policy]
dry_run = true
[[policy.rule]]
action = "deny"
source = ["203.0.113.0/24", "198.51.100.7"]
port = [8080, "9000-9100"]
protocol = "tcp"
[[policy.rule]]
action = "allow"
from = "container"
network = ["shop", "blog"]
"#;

fn in_force() -> Policy {
    let wanted = Settings::parse(FILE).unwrap().policy;
    policy::resolve(&wanted, |name| (name == "shop").then_some(7), &Policy::default())
}

#[test]
fn the_pins_tell_the_rules_as_they_were_written() {
    let status = of_pins(&in_force());
    let [deny, allow] = status.rules.as_slice() else { panic!("{status:?}") };
    assert_eq!((deny.number, deny.action.as_str(), allow.action.as_str()), (1, "deny", "allow"));
    assert_eq!(deny.source, ["203.0.113.0/24", "198.51.100.7"]);
    assert_eq!((deny.port.join(" "), deny.protocol.join(" ")), ("8080 9000-9100".to_owned(), "tcp".to_owned()));
    assert_eq!((deny.from.as_deref(), allow.from.as_deref()), (None, Some("container")));
    assert_eq!(allow.network, ["#7", "(missing)"]);
    assert!(allow.source.is_empty() && allow.port.is_empty() && allow.protocol.is_empty());
    assert!(status.dry_run && deny.counter != allow.counter);
}

#[test]
fn rules_are_shown_in_their_order_with_what_they_fitted() {
    let mut status = of_pins(&in_force());
    status.dry_run = false;
    status.rules[0].packets = 12;
    status.rules[1].network = vec!["shop".to_owned(), "blog".to_owned()];
    status.rules[1].missing = vec!["blog".to_owned()];
    status.default_packets = 3;
    let expected = "\
#   ACTION   SOURCE                        FROM        NETWORK               PORT             PROTOCOL   PACKETS
1   deny     203.0.113.0/24,198.51.100.7   any         any                   8080,9000-9100   tcp        12
2   allow    any                           container   shop,blog (missing)   any              any        0
-   allow    any                           any         any                   any              any        3
";
    assert_eq!(table(&status), expected);
    status.dry_run = true;
    assert!(table(&status).starts_with("A dry run"));
    assert!(wide(&status).contains("BYTES"));
}

#[test]
fn outcomes_say_how_many() {
    let applied = PolicyApplied { file: "/etc/x".to_owned(), rules: 1, ended: 2, warnings: Vec::new() };
    assert_eq!(text_of_apply(&applied), "the policy of /etc/x is in force: 1 rule; 2 connections ended\n");
    let checked = Checked {
        file: PathBuf::from("x"),
        default: "deny",
        dry_run: true,
        rules: 2,
        combinations: 5,
        combinations_max: 128,
        warnings: Vec::new(),
    };
    assert_eq!(text_of_check(&checked), "x: 2 rules, 5 of 128 combinations, default deny, a dry run\n");
}
