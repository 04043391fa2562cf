//! The daemon's behaviour against a dataplane in memory that can be told to refuse changes.

use std::{cell::RefCell, net::Ipv4Addr, time::Duration};

use anyhow::bail;
use netpath_common::abi::Rate;

use super::*;
use crate::{
    daemon::status,
    dataplane::{AttachmentReport, Dataplane, HandoverFlow, fake::Fake},
    desired::{
        build::Xdp,
        model::State,
        sample::{self, ETH0, GATEWAY, HOST, VETH, WEB},
        uplinks::UplinkChoice,
    },
    firewall::{self, Action, Backend, Chain, Conditions, Rule, Ruleset, Table},
    kernel_conntrack::{Connection, Tuple},
    report::HostAccessStatus,
    watch::waiting::{IcmpLimits, Waiting},
};

const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// What the daemon did with flows, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    HandOver(usize),
    Open,
    EndDenied,
    DropClosedPorts(bool),
}

#[derive(Default)]
struct Scripted {
    fake: Fake,
    opens: bool,
    steps: RefCell<Vec<Step>>,
    refuses: Option<fn(&Change) -> bool>,
    connections_fail: bool,
    carriers: RefCell<Vec<u32>>,
    asked: RefCell<Vec<u32>>,
}

impl Dataplane for Scripted {
    fn actual(&self) -> &State {
        self.fake.actual()
    }

    fn apply(&mut self, change: &Change) -> anyhow::Result<()> {
        if self.refuses.is_some_and(|refuses| refuses(change)) {
            bail!("told to refuse");
        }
        self.fake.apply(change)
    }
}

impl Engine for Scripted {
    fn opens_flows(&self) -> bool {
        self.opens
    }

    fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        self.steps.borrow_mut().push(Step::Read);
        if self.connections_fail {
            bail!("told to fail");
        }
        let tuple =
            |source, destination| Tuple { source, destination, source_port: 1000, destination_port: 53, protocol: 17 };
        let (original, reply) = (tuple(WEB, WORLD), tuple(WORLD, HOST));
        Ok(vec![Connection { original, reply, timeout: Duration::from_secs(30), established_tcp: false }])
    }

    fn hand_over(&mut self, flows: &[HandoverFlow]) -> anyhow::Result<()> {
        self.steps.borrow_mut().push(Step::HandOver(flows.len()));
        Ok(())
    }

    fn begin_opening_flows(&mut self) -> anyhow::Result<()> {
        self.steps.borrow_mut().push(Step::Open);
        self.opens = true;
        Ok(())
    }

    fn end_denied(&mut self) -> anyhow::Result<u64> {
        self.steps.borrow_mut().push(Step::EndDenied);
        Ok(3)
    }

    fn drop_closed_ports(&mut self, but_for: Option<(Rate, Rate)>) -> anyhow::Result<()> {
        self.steps.borrow_mut().push(Step::DropClosedPorts(but_for.is_some()));
        Ok(())
    }

    fn attachments(&self) -> Vec<AttachmentReport> {
        Vec::new()
    }

    fn host_access(&self) -> HostAccessStatus {
        HostAccessStatus::default()
    }

    fn has_carrier(&self, ifindex: u32) -> bool {
        self.asked.borrow_mut().push(ifindex);
        self.carriers.borrow().contains(&ifindex)
    }
}

fn core(engine: Scripted) -> Core<Scripted> {
    let wishes = Wishes { xdp: Xdp::Off, ..Wishes::default() };
    Core::new(engine, wishes, None, Arc::new(sample::host()), Path::new("/run/docker.sock"))
}

fn listed(model: DockerModel, mode: Mode) -> News {
    News::Docker(DockerNews::Listed(Listed { model: Arc::new(model), mode, troubles: vec![] }))
}

fn connect(core: &mut Core<Scripted>, mode: Mode) {
    core.learn(News::Docker(DockerNews::Connected { api_version: "1.41".to_owned() }));
    core.learn(listed(sample::docker(), mode));
    core.round();
}

fn lose(core: &mut Core<Scripted>) {
    core.learn(News::Docker(DockerNews::Lost { error: "gone".to_owned() }));
    core.round();
}

/// A dataplane as a daemon that ran before left it.
fn adopted() -> Scripted {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    core.engine.steps.take();
    core.engine
}

#[test]
fn a_first_start_waits_for_dockers_list() {
    let mut core = core(Scripted::default());
    core.round();
    assert_eq!((core.engine.actual(), core.engine.opens), (&State::default(), false));
    connect(&mut core, Mode::Takeover);
    assert!(core.engine.actual().endpoints.contains_key(&WEB));
    assert!(core.is_in_sync());
}

#[test]
fn taking_over_leaves_connections_with_the_kernel_before_and_after_opening_flows() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    // The second list finds nothing new.
    let expected = [Step::Read, Step::HandOver(2), Step::Open, Step::Read, Step::HandOver(0)];
    assert_eq!(core.engine.steps.take(), expected);
    core.round();
    assert_eq!(core.engine.steps.take(), []);
}

#[test]
fn in_sole_mode_nothing_is_left_with_the_kernel() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Sole);
    assert_eq!(core.engine.steps.take(), [Step::Open]);
    assert_eq!(core.engine.actual().mode, Mode::Sole);
}

#[test]
fn the_operators_mode_beats_dockerds() {
    let mut core = core(Scripted::default());
    core.forced_mode = Some(Mode::Takeover);
    connect(&mut core, Mode::Sole);
    assert_eq!(core.engine.actual().mode, Mode::Takeover);
}

#[test]
fn netpath_opens_no_flows_while_connections_cannot_be_read() {
    let mut core = core(Scripted { connections_fail: true, ..Scripted::default() });
    connect(&mut core, Mode::Takeover);
    assert!(!core.engine.opens && !core.is_in_sync());
    assert_eq!(core.failures.report().next().unwrap().object, HANDOVER);
    core.engine.connections_fail = false;
    core.round();
    assert!(core.engine.opens && core.is_in_sync());
}

#[test]
fn a_restart_without_docker_keeps_containers_and_follows_the_uplinks_addresses() {
    let mut core = core(adopted());
    let before = core.engine.actual().clone();
    let mut host = sample::host();
    let renewed = Ipv4Addr::new(192, 0, 2, 77);
    host.addresses[1].address = renewed;
    core.learn(News::Host(Arc::new(host)));
    core.round();
    let after = core.engine.actual();
    assert_eq!(after.uplinks[&ETH0].addresses, [(renewed, 24)]);
    assert_eq!(
        (&after.endpoints, &after.published, &after.attachments),
        (&before.endpoints, &before.published, &before.attachments)
    );
    assert!(!core.is_in_sync());
    assert_eq!(core.mode(), Some(Mode::Takeover));
}

#[test]
fn a_container_isnt_kept_waiting_by_a_crowd_of_strangers() {
    const CROWD: u32 = 50;
    let carries = |core: &Core<Scripted>, ifindex| {
        core.engine.actual().attachments.contains(&Attachment { ifindex, hook: Hook::Container })
    };
    let mut core = core(adopted());
    connect(&mut core, Mode::Takeover);
    let mut host = sample::host();
    host.links.extend((100..100 + CROWD).map(|ifindex| (ifindex, sample::link("crowd", 9, Some(sample::DOCKER0)))));
    let late = Ipv4Addr::new(172, 17, 0, 3);
    host.links.insert(200, sample::link("late", 8, Some(sample::DOCKER0)));
    core.learn(News::Host(Arc::new(host)));
    core.round();
    assert!(core.has_more && !core.is_in_sync());
    assert!(carries(&core, 100) && !carries(&core, 200));

    let mut docker = sample::docker();
    let mut container = docker.containers["web"].clone();
    container.interfaces = vec![sample::interface("default", late, 200)];
    container.published.clear();
    docker.containers.insert("late".to_owned(), container);
    core.learn(listed(docker, Mode::Takeover));
    core.round();
    assert!(carries(&core, 200) && core.engine.actual().endpoints.contains_key(&late));
    assert!(core.has_more);

    let mut rounds = 0;
    while core.has_more {
        core.round();
        rounds += 1;
    }
    assert!(core.is_in_sync() && (100..100 + CROWD).all(|ifindex| carries(&core, ifindex)));
    assert!(rounds > 1);
}

#[test]
fn a_new_veth_is_asked_for_its_carrier_until_it_and_its_bridge_have_one() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    assert_eq!(core.engine.asked.take(), [VETH]);
    core.engine.carriers.borrow_mut().push(VETH);
    core.round();
    assert_eq!(core.engine.asked.take(), [VETH, sample::DOCKER0]);
    core.engine.carriers.borrow_mut().push(sample::DOCKER0);
    core.round();
    assert_eq!(core.engine.asked.take(), [VETH, sample::DOCKER0]);
    core.round();
    assert!(core.engine.asked.take().is_empty());
}

#[test]
fn a_restart_hands_nothing_over_and_changes_nothing_that_is_right() {
    let engine = adopted();
    let before = engine.actual().clone();
    let mut core = core(engine);
    connect(&mut core, Mode::Takeover);
    assert_eq!((core.engine.actual(), core.engine.steps.take()), (&before, vec![]));
}

#[test]
fn a_restart_removes_what_is_gone_once_docker_has_said_so() {
    let mut core = core(adopted());
    core.round();
    assert!(core.engine.actual().endpoints.contains_key(&WEB));
    core.learn(listed(DockerModel { containers: [].into(), ..sample::docker() }, Mode::Takeover));
    core.round();
    let actual = core.engine.actual();
    assert_eq!((actual.endpoints.len(), actual.published.len()), (0, 0));
}

#[test]
fn nothing_changes_while_docker_is_away() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    let before = core.engine.actual().clone();
    lose(&mut core);
    assert_eq!((core.engine.actual(), core.is_in_sync()), (&before, false));
    assert_eq!(core.docker.status.last_error.as_deref(), Some("gone"));
    connect(&mut core, Mode::Takeover);
    assert_eq!((core.engine.actual(), core.is_in_sync()), (&before, true));
}

#[test]
fn a_veth_that_vanished_takes_its_endpoint_along_even_while_docker_is_away() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    lose(&mut core);
    let mut host = sample::host();
    host.links.remove(&VETH);
    core.learn(News::Host(Arc::new(host)));
    core.round();
    let actual = core.engine.actual();
    assert_eq!((actual.endpoints.len(), actual.published.len()), (0, 0));
}

#[test]
fn a_change_that_fails_does_not_hold_up_the_others_and_is_tried_again() {
    let mut core = core(Scripted::default());
    core.engine.refuses = Some(|change| matches!(change, Change::Attach(at) if at.hook == Hook::Bridge));
    connect(&mut core, Mode::Takeover);
    assert!(core.engine.actual().published.len() == 1 && core.engine.opens && !core.is_in_sync());
    let failure = core.failures.report().next().unwrap();
    assert_eq!(failure.object, "bridge program on interface index 3 (docker0)");
    assert_eq!(failure.error, "told to refuse");
    core.engine.refuses = None;
    core.round();
    assert!(core.is_in_sync());
}

#[test]
fn a_published_port_waits_for_its_endpoint() {
    let mut core = core(Scripted::default());
    core.engine.refuses = Some(|change| matches!(change, Change::SetEndpoint(..)));
    connect(&mut core, Mode::Takeover);
    assert_eq!(core.engine.actual().published.len(), 0);
    let objects: Vec<_> = core.failures.report().map(|failure| failure.object).collect();
    assert_eq!(objects, ["endpoint 172.17.0.2", "published port 0.0.0.0:8080/tcp"]);
    core.engine.refuses = None;
    core.round();
    assert_eq!(core.engine.actual().published.len(), 1);
}

#[test]
fn the_report_names_what_is_in_the_dataplane() {
    let mut core = core(Scripted::default());
    connect(&mut core, Mode::Takeover);
    let report = status::report(&core);
    assert!(report.in_sync && report.docker.connected);
    assert_eq!((report.mode.as_str(), report.docker.api_version.as_deref()), ("takeover", Some("1.41")));
    assert_eq!((report.uplinks[0].name.as_str(), report.uplinks[0].addresses[0].as_str()), ("eth0", "192.0.2.1/24"));
    let network = &report.networks[0];
    assert_eq!((network.name.as_str(), network.number, network.endpoints), ("bridge", 3, 1));
    assert_eq!(network.gateway, Some(GATEWAY), "Docker doesn't say it, so it is the bridge's address");
    let endpoint = &report.endpoints[0];
    assert_eq!((endpoint.container_name.as_str(), endpoint.veth.as_str()), ("web", "veth0"));
    assert_eq!((endpoint.mac.as_str(), endpoint.attached), ("02:42:ac:11:00:02", true));
    assert_eq!(report.published[0].container_name, "web");
    assert_eq!(report.pending, []);
}

#[test]
fn the_report_shows_an_uplink_that_is_missing() {
    let mut core = core(Scripted::default());
    core.wishes.uplinks = UplinkChoice::Named(vec!["eth9".to_owned()]);
    connect(&mut core, Mode::Takeover);
    let report = status::report(&core);
    assert_eq!((report.uplinks[0].name.as_str(), report.uplinks[0].ifindex, report.in_sync), ("eth9", None, false));
    assert_eq!(report.pending[0].object, "uplink eth9");
}

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
