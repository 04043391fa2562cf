//! The daemon's behaviour against a dataplane in memory that can be told to refuse changes.

use std::{cell::RefCell, net::Ipv4Addr, time::Duration};

use anyhow::bail;
use netpath_common::abi::Rate;

use super::*;
use crate::{
    daemon::status,
    dataplane::{AttachmentReport, Dataplane, Expedited, HandoverFlow, fake::Fake},
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
    EndConnections(Ipv4Addr),
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

    fn end_connections(&mut self, address: Ipv4Addr) {
        self.steps.borrow_mut().push(Step::EndConnections(address));
    }

    fn drop_closed_ports(&mut self, but_for: Option<(Rate, Rate)>) -> anyhow::Result<()> {
        self.steps.borrow_mut().push(Step::DropClosedPorts(but_for.is_some()));
        Ok(())
    }

    fn hurry(&self, _: usize) -> Option<Expedited> {
        None
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
fn another_versions_programs_stay_as_they_are_until_docker_has_said_what_there_is() {
    // As it looks to this version: programs are attached, and its own maps are empty.
    let mut engine = Scripted::default();
    let attached = Attachment { ifindex: 40, hook: Hook::Uplink };
    engine.fake.apply(&Change::Attach(attached)).unwrap();
    let before = engine.actual().clone();
    let mut core = core(engine);
    core.round();
    lose(&mut core);
    assert_eq!(core.engine.actual(), &before);
    assert!(core.engine.steps.borrow().is_empty() && !core.is_in_sync());
    connect(&mut core, Mode::Sole);
    assert_eq!(core.engine.steps.take(), [Step::Open]);
    assert!(core.engine.actual().endpoints.contains_key(&WEB));
}

#[test]
fn netpath_opens_no_flows_without_its_policy() {
    let refuses: Option<fn(&Change) -> bool> = Some(|change| matches!(change, Change::SetPolicy(_)));
    let mut core = core(Scripted { refuses, ..Scripted::default() });
    core.wishes.policy.default = netpath_common::abi::Action::Deny;
    connect(&mut core, Mode::Sole);
    assert!(!core.engine.opens);
    core.engine.refuses = None;
    core.round();
    assert!(core.engine.opens);
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

#[path = "core_rules_tests.rs"]
mod rules;
