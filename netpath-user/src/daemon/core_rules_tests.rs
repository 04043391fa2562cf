//! What a policy and the firewall's rules make of a round.

use super::*;

fn policy(text: &str) -> Policy {
    crate::settings::Settings::parse(text).unwrap().policy
}

const DENY_ALL: &str = "[policy]\ndefault = \"deny\"";

#[test]
fn a_policy_is_put_in_force_and_ends_what_it_denies() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Sole);
    core.engine.steps.take();
    let applied = core.put_policy(policy(DENY_ALL), "/f".to_owned(), OpenFlows::End).unwrap();
    assert_eq!((applied.file.as_str(), applied.rules, applied.ended), ("/f", 0, 3));
    assert_eq!(core.engine.steps.take(), [Step::EndDenied]);
    assert_eq!(core.engine.actual().policy.default, netpath_common::abi::Action::Deny);
    // The same again changes nothing; another one may leave open flows alone, and then a later round does too.
    assert_eq!(core.put_policy(policy(DENY_ALL), "/f".to_owned(), OpenFlows::End).unwrap().ended, 0);
    assert_eq!(core.put_policy(Policy::default(), "/f".to_owned(), OpenFlows::Stay).unwrap().ended, 0);
    core.round();
    assert_eq!(core.engine.steps.take(), []);
    let report = status::report(&core).policy;
    assert_eq!((report.file.as_str(), report.default.as_str()), ("/f", "allow"));
}

#[test]
fn without_its_policy_nothing_is_published() {
    let mut core = core(Scripted::default());
    core.wishes.policy = policy(DENY_ALL);
    core.engine.refuses = Some(|change| matches!(change, Change::SetPolicy(_)));
    connect(&mut core, Mode::Sole);
    assert_eq!((core.engine.actual().published.len(), core.engine.actual().attachments.len()), (0, 0));
    let error = core.put_policy(policy(DENY_ALL), "/f".to_owned(), OpenFlows::End).unwrap_err().to_string();
    assert!(error.contains("told to refuse"), "{error}");
    core.engine.refuses = None;
    core.round();
    assert!(core.is_in_sync() && core.engine.actual().published.len() == 1);
    assert!(core.engine.steps.take().contains(&Step::EndDenied));
}

#[test]
fn a_policy_with_names_waits_for_docker() {
    let mut core = core(adopted());
    core.round();
    let named = "[[policy.rule]]\naction = \"deny\"\nnetwork = \"bridge\"";
    let error = core.put_policy(policy(named), "/f".to_owned(), OpenFlows::End).unwrap_err().to_string();
    assert!(error.contains("Docker hasn't said"), "{error}");
    connect(&mut core, Mode::Takeover);
    assert_eq!(core.engine.actual().policy.rules[0].wanted.network, 3);
}

/// A rule in DOCKER-USER that keeps everybody out of the default network.
fn ruled_out() -> News {
    let conditions = Conditions { others: true, ..Conditions::default() };
    let rule = Rule { text: "-A DOCKER-USER -p tcp -j DROP".to_owned(), conditions, action: Action::Restrict };
    let jump = Rule { action: Action::Jump(vec!["DOCKER-USER".to_owned()]), ..Rule::default() };
    let chains = [
        ("FORWARD".to_owned(), Chain { hook: Some(firewall::Hook::Forward), rules: vec![jump], ..Chain::default() }),
        ("DOCKER-USER".to_owned(), Chain { rules: vec![rule], ..Chain::default() }),
    ];
    let table = Table {
        backend: Backend::IptablesNft,
        name: "filter".to_owned(),
        chains: chains.into(),
        leads_to: BTreeSet::new(),
    };
    News::Firewall(Arc::new(Ruleset { tables: vec![table], errors: vec![] }))
}

#[test]
fn a_network_with_rules_of_its_own_is_left_to_docker_until_they_are_gone() {
    let mut core = core(Scripted::default());
    core.learn(ruled_out());
    connect(&mut core, Mode::Takeover);
    let actual = core.engine.actual();
    assert!(actual.endpoints.is_empty() && actual.published.is_empty());
    assert!(!actual.attachments.iter().any(|at| matches!(at.hook, Hook::Bridge | Hook::Container)), "{actual:?}");
    assert!(core.is_in_sync());
    let report = status::report(&core);
    assert_eq!(report.networks[0].refused, ["iptables-nft -t filter -A DOCKER-USER -p tcp -j DROP"]);
    assert_eq!(report.firewall.rules[0].networks, ["bridge"]);
    core.learn(News::Firewall(Arc::default()));
    core.round();
    assert!(core.engine.actual().endpoints.contains_key(&WEB));
    assert!(status::report(&core).networks[0].refused.is_empty());
    core.learn(ruled_out());
    core.round();
    assert!(core.engine.actual().endpoints.is_empty());
}

#[test]
fn a_rule_that_comes_and_goes_at_once_takes_no_network_away() {
    let mut core = core(Scripted::default());
    core.bypass = Bypass::new(bypass::UserRules::Refuse, Some(Arc::default()));
    connect(&mut core, Mode::Takeover);
    core.learn(ruled_out());
    core.round();
    assert!(core.engine.actual().endpoints.contains_key(&WEB) && core.bypass.judge_after().is_some());
    assert!(status::report(&core).firewall.rules.is_empty());
    core.learn(News::Firewall(Arc::default()));
    core.round();
    assert_eq!(core.bypass.judge_after(), None);
}

/// A rule that leads datagrams to the host elsewhere.
fn led_elsewhere() -> News {
    let rule = Rule { text: "-A PREROUTING -j DNAT".to_owned(), action: Action::Change, ..Rule::default() };
    let chain = Chain { hook: Some(firewall::Hook::Prerouting), rules: vec![rule], ..Chain::default() };
    let chains = [("PREROUTING".to_owned(), chain)].into();
    let table = Table { backend: Backend::IptablesNft, name: "nat".to_owned(), chains, leads_to: BTreeSet::new() };
    News::Firewall(Arc::new(Ruleset { tables: vec![table], errors: vec![] }))
}

#[test]
fn closed_ports_are_the_kernels_while_a_rule_leads_elsewhere() {
    let mut core = core(Scripted::default());
    core.bypass = Bypass::new(bypass::UserRules::Ignore, None);
    core.closed_ports.learn(Waiting { ipvs: false, raw_udp: false, limits: IcmpLimits::default() });
    let renew = |core: &mut Core<Scripted>| {
        core.round();
        core.engine.steps.take();
        core.renew_closed_ports();
        (core.engine.steps.take(), core.closed_ports.status().dropped)
    };
    connect(&mut core, Mode::Takeover);
    assert_eq!(renew(&mut core), (vec![], false), "the rules aren't known yet");
    core.learn(News::Firewall(Arc::default()));
    let begun = vec![Step::Read, Step::HandOver(2), Step::DropClosedPorts(true)];
    assert_eq!(renew(&mut core), (begun, true), "what the kernel translates is handed over first");
    assert_eq!(renew(&mut core), (vec![Step::DropClosedPorts(true)], true), "prolonged");
    core.learn(led_elsewhere());
    assert_eq!(renew(&mut core), (vec![Step::DropClosedPorts(false)], false));
    assert!(core.closed_ports.status().because[0].contains("-A PREROUTING -j DNAT"));
    assert_eq!(renew(&mut core), (vec![], false));
    core.learn(News::Firewall(Arc::default()));
    core.engine.connections_fail = true;
    assert_eq!(renew(&mut core), (vec![Step::Read], false), "not without knowing what is translated");
}

#[test]
fn rules_are_only_named_in_sole_mode_and_when_the_operator_says_so() {
    let mut sole = core(Scripted::default());
    sole.learn(ruled_out());
    connect(&mut sole, Mode::Sole);
    let mut told = core(Scripted::default());
    told.bypass = Bypass::new(bypass::UserRules::Ignore, None);
    told.learn(ruled_out());
    connect(&mut told, Mode::Takeover);
    for core in [sole, told] {
        assert!(core.engine.actual().endpoints.contains_key(&WEB));
        let report = status::report(&core);
        assert_eq!((report.firewall.rules.len(), report.networks[0].refused.len()), (1, 0));
    }
}
