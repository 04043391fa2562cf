//! Names become numbers, combinations become rules, and counters follow what an operator wrote.

use netpath_common::{abi::Origin, policy::Judgement};

use super::*;
use crate::settings::Settings;

fn read(text: &str) -> settings::Policy {
    Settings::parse(text).unwrap().policy
}

fn number(name: &str) -> Option<u16> {
    (name == "shop").then_some(7)
}

/// The list as it lies in the map.
fn packed(policy: &Policy) -> abi::Policy {
    let mut packed = abi::Policy { default_action: policy.default as u8, ..abi::Policy::NONE };
    packed.default_counter = policy.default_counter;
    packed.rule_count = u16::try_from(policy.rules.len()).unwrap();
    packed.rules[..policy.rules.len()].copy_from_slice(&policy.rules);
    packed
}

fn judge(policy: &Policy, source: [u8; 4], network: u16, port: u16, protocol: u8, origin: Origin) -> Action {
    let key = PolicyKey { source, network, protocol, origin: origin as u8 };
    let Judgement { action, .. } = packed(policy).judge(key, port);
    action
}

const ALLOW: &str = "[[policy.rule]]\naction = \"allow\"\n";
const DENY: &str = "[[policy.rule]]\naction = \"deny\"\n";

#[test]
fn a_rule_fits_each_combination_of_its_values_and_nothing_else() {
    let text = format!(
        "{DENY}source = [\"203.0.113.0/24\", \"198.51.100.7\"]\nport = [80, \"8000-8100\"]\nprotocol = [\"tcp\", \"sctp\"]\n\
         network = \"shop\"\nfrom = \"wire\""
    );
    let policy = resolve(&read(&text), number, &Policy::default());
    assert_eq!((policy.rules.len(), policy.counters().len()), (8, 2));
    for source in [[203, 0, 113, 9], [198, 51, 100, 7]] {
        for port in [80, 8000, 8050, 8100] {
            for protocol in [6, 132] {
                assert_eq!(judge(&policy, source, 7, port, protocol, Origin::Wire), Action::Deny, "{source:?} {port}");
            }
        }
    }
    for (source, network, port, protocol, origin) in [
        ([203, 0, 114, 9], 7, 80, 6, Origin::Wire),
        ([198, 51, 100, 8], 7, 80, 6, Origin::Wire),
        ([198, 51, 100, 7], 8, 80, 6, Origin::Wire),
        ([198, 51, 100, 7], 7, 81, 6, Origin::Wire),
        ([198, 51, 100, 7], 7, 80, 17, Origin::Wire),
        ([198, 51, 100, 7], 7, 80, 6, Origin::Container),
    ] {
        assert_eq!(judge(&policy, source, network, port, protocol, origin), Action::Allow);
    }
}

#[test]
fn a_network_that_is_not_there_fits_nothing_until_it_is() {
    let text = format!("[policy]\ndefault = \"deny\"\n{ALLOW}network = \"blog\"");
    let wanted = read(&text);
    assert_eq!(missing(&wanted, number), [(3, "blog")]);
    let policy = resolve(&wanted, number, &Policy::default());
    for network in [0, 7, 9] {
        assert_eq!(judge(&policy, [1; 4], network, 80, 6, Origin::Wire), Action::Deny);
    }
    let policy = resolve(&wanted, |_| Some(9), &policy);
    assert_eq!(judge(&policy, [1; 4], 9, 80, 6, Origin::Wire), Action::Allow);
    assert_eq!(judge(&policy, [1; 4], 7, 80, 6, Origin::Wire), Action::Deny);
    assert_eq!(missing(&wanted, |_| Some(9)), []);
}

#[test]
fn a_rule_keeps_its_counter_wherever_it_goes_and_a_new_one_gets_a_fresh_one() {
    let (a, b, c) = (format!("{DENY}port = [1, 2]\n"), format!("{DENY}port = 3\n"), format!("{ALLOW}port = 3\n"));
    let first = resolve(&read(&format!("{a}{b}")), number, &Policy::default());
    let counters = |policy: &Policy| policy.groups().map(|group| group[0].counter).collect::<Vec<_>>();
    let [of_a, of_b] = counters(&first)[..] else { panic!("{first:?}") };
    let second = resolve(&read(&format!("{c}{b}{a}{a}")), number, &first);
    let [of_c, same_b, same_a, other_a] = counters(&second)[..] else { panic!("{second:?}") };
    assert_eq!((same_a, same_b), (of_a, of_b));
    let fresh = BTreeSet::from([of_c, other_a]);
    assert!(fresh.is_disjoint(&first.counters()) && fresh.len() == 2, "{fresh:?}");
    assert_eq!(second.default_counter, first.default_counter);
    let third = resolve(&read("[policy]\ndefault = \"deny\""), number, &second);
    assert_ne!(third.default_counter, second.default_counter);
    assert_eq!(resolve(&read(&format!("{c}{b}{a}{a}")), number, &second), second, "the same again changes nothing");
}

#[test]
fn two_full_lists_in_turn_have_counters_enough() {
    let full = |action: &str, first: usize| {
        let rule = |port| format!("[[policy.rule]]\naction = \"{action}\"\nport = {port}\n");
        let text: String = (first..first + abi::Policy::RULES_MAX).map(rule).collect();
        read(&format!("[policy]\ndefault = \"{action}\"\n{text}"))
    };
    let first = resolve(&full("allow", 1), number, &Policy::default());
    let second = resolve(&full("deny", 1), number, &first);
    let third = resolve(&full("allow", 1000), number, &second);
    assert_eq!(first.counters().len(), abi::Policy::RULES_MAX + 1);
    assert!(first.counters().is_disjoint(&second.counters()) && second.counters().is_disjoint(&third.counters()));
}

#[test]
fn a_rule_that_never_decides_is_found() {
    for (rules, expected) in [
        (format!("{DENY}{ALLOW}"), vec![(3, 1)]),
        (format!("{ALLOW}port = 80\n{DENY}"), vec![]),
        (format!("{DENY}source = \"10.0.0.0/8\"\n{ALLOW}source = \"10.1.0.0/16\"\n"), vec![(4, 1)]),
        (format!("{DENY}source = \"10.1.0.0/16\"\n{ALLOW}source = \"10.0.0.0/8\"\n"), vec![]),
        (format!("{DENY}port = 80\n{DENY}port = 81\n{ALLOW}port = [80, 81]\n"), vec![(7, 4)]),
        (format!("{DENY}network = \"a\"\n{ALLOW}network = \"b\"\n{ALLOW}network = \"a\"\nport = 1\n"), vec![(7, 1)]),
        (format!("{DENY}from = \"wire\"\n{DENY}from = \"container\"\n{ALLOW}protocol = \"tcp\"\n"), vec![]),
    ] {
        assert_eq!(unreachable(&read(&rules)), expected, "{rules}");
    }
}
