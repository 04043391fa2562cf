//! What the daemon knows and does, without the waiting: news in, changes out.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use netpath_common::abi::Mode;
use tracing::{info, warn};

use super::{
    bypass::{self, Bypass},
    closed_ports::ClosedPorts,
    departed::Departed,
    engine::Engine,
    failures::Failures,
    handover,
    journal::{Before, Journal},
};
use crate::{
    desired::{
        build::{Wanted, Wishes, build, build_without_docker},
        describe,
        diff::diff,
        docker::DockerModel,
        host::HostModel,
        model::{Attachment, Change, Hook, IfIndex},
    },
    report::{DockerStatus, MacvlanStatus, PolicyApplied},
    settings::policy::Policy,
    watch::{DockerNews, Listed, News},
};

/// The object of a failure to end flows.
const DENIED: &str = "connections that the policy denies";

/// What becomes of open flows that a new policy denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenFlows {
    /// They end.
    End,
    /// They stay until they end by themselves.
    Stay,
}

/// The object of a failure to take connections over.
const HANDOVER: &str = "connections that nf_conntrack holds";

/// How many ports of which nothing is known yet get their programs in one round. Each takes the kernel a grace period (12 ms
/// where this was measured), and news of containers mustn't wait until a thousand of them are done.
const STRANGERS_MAX: usize = 2;

/// The daemon's knowledge and its dataplane.
pub(super) struct Core<E> {
    pub(super) engine: E,
    pub(super) wishes: Wishes,
    pub(super) host: Arc<HostModel>,
    pub(super) docker: Docker,
    pub(super) wanted: Wanted,
    pub(super) failures: Failures,
    pub(super) journal: Journal,
    /// Where the wanted policy comes from.
    pub(super) policy_file: String,
    /// What becomes of open flows that a new policy denies.
    denied: Denied,
    pub(super) bypass: Bypass,
    /// Whether ports of which nothing is known are left for the next round, which should come at once.
    pub(super) has_more: bool,
    /// Veths of new endpoints, and their bridges, whose carrier the kernel hasn't acted on yet.
    waking: BTreeSet<(IfIndex, IfIndex)>,
    departed: Departed,
    pub(super) closed_ports: ClosedPorts,
    /// What is to be said of the host's own way to macvlan containers.
    pub(super) macvlan: MacvlanStatus,
    forced_mode: Option<Mode>,
    refused: BTreeSet<String>,
}

/// Open flows that a new policy denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Denied {
    /// They stay.
    are_kept: bool,
    /// They are still to be ended.
    are_open: bool,
    /// How many have been.
    ended: u64,
}

/// What is known of Docker.
#[derive(Debug, Default)]
pub(super) struct Docker {
    /// Its last complete list since the start.
    pub(super) model: Option<Arc<DockerModel>>,
    /// The mode that suits how dockerd was started.
    pub(super) mode: Option<Mode>,
    /// What Docker couldn't say.
    pub(super) troubles: Vec<String>,
    /// The connection.
    pub(super) status: DockerStatus,
}

impl<E: Engine> Core<E> {
    /// A daemon that knows the host and nothing of Docker yet.
    pub(super) fn new(
        engine: E,
        wishes: Wishes,
        forced_mode: Option<Mode>,
        host: Arc<HostModel>,
        socket: &Path,
    ) -> Self {
        let status = DockerStatus { socket: socket.display().to_string(), ..DockerStatus::default() };
        Self {
            engine,
            wishes,
            host,
            docker: Docker { status, ..Docker::default() },
            wanted: Wanted::default(),
            failures: Failures::default(),
            journal: Journal::default(),
            policy_file: String::new(),
            denied: Denied::default(),
            bypass: Bypass::default(),
            has_more: false,
            waking: BTreeSet::new(),
            departed: Departed::default(),
            closed_ports: ClosedPorts::default(),
            macvlan: MacvlanStatus::default(),
            forced_mode,
            refused: BTreeSet::new(),
        }
    }

    /// The mode: the operator's, else dockerd's, else what was adopted; none on a first start without Docker.
    pub(super) fn mode(&self) -> Option<Mode> {
        let adopted = || (!self.engine.actual().attachments.is_empty()).then_some(self.engine.actual().mode);
        self.forced_mode.or(self.docker.mode).or_else(adopted)
    }

    /// Whether all that is wanted is in the dataplane and nothing is known to be missing.
    pub(super) fn is_in_sync(&self) -> bool {
        let docker = &self.docker;
        let in_step = docker.status.connected && docker.status.in_sync && docker.troubles.is_empty() && !self.has_more;
        in_step && self.failures.is_empty() && self.wanted.unresolved.is_empty() && self.engine.opens_flows()
    }

    /// Takes in what a watcher saw. A [`Self::round`] must follow.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Host(model) => self.host = model,
            News::Firewall(ruleset) => self.bypass.learn(ruleset),
            News::Docker(DockerNews::Connected { api_version }) => {
                let status = &mut self.docker.status;
                status.connected = true;
                status.api_version = Some(api_version);
                status.last_error = None;
            }
            News::Docker(DockerNews::Listed(Listed { model, mode, troubles })) => {
                self.docker.model = Some(model);
                self.docker.mode = Some(mode);
                self.docker.troubles = troubles;
                self.docker.status.in_sync = true;
                self.docker.status.last_sync_unix_ms = Some(now_unix_ms());
            }
            News::Docker(DockerNews::Lost { error }) => {
                let status = &mut self.docker.status;
                status.connected = false;
                status.in_sync = false;
                status.last_error = Some(error);
            }
        }
    }

    /// Brings the dataplane to what is wanted now, as far as it goes. Changes that fail don't hold up the others.
    pub(super) fn round(&mut self) {
        if let Some(docker) = &self.docker.model {
            let scene = bypass::scene(docker, &self.host, &self.wishes.uplinks, self.engine.actual());
            self.bypass.judge(self.mode().unwrap_or(Mode::Takeover), scene);
        }
        self.wanted = self.build();
        self.report_refusals();
        self.journal.learn_links(&self.host, self.engine.actual());
        if let Some(docker) = &self.docker.model {
            self.journal.learn_containers(docker, self.engine.actual());
        }
        let mut failed = Vec::new();
        let changes = diff(self.engine.actual(), &self.wanted.state);
        let is_attachment = |change: &&Change| matches!(change, Change::Attach(_) | Change::Detach(_));
        let quick = self.engine.hurry(changes.iter().filter(is_attachment).count());
        let known: BTreeSet<IfIndex> = self.wanted.state.endpoints.values().map(|endpoint| endpoint.ifindex).collect();
        let is_strangers = |change: &Change| match change {
            Change::Attach(Attachment { ifindex, hook: Hook::Container }) => !known.contains(ifindex),
            _ => false,
        };
        let (strangers, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_strangers);
        for change in changes.into_iter().chain(self.slice_of(strangers)) {
            self.apply(change, &mut failed);
            if is_unguarded(&failed) {
                break;
            }
        }
        drop(quick);
        self.wake_links();
        for address in self.departed.take(&self.host, self.engine.actual()) {
            self.engine.end_connections(address);
        }
        self.end_denied(&mut failed);
        if self.docker.model.is_some() && !self.engine.opens_flows() && !is_unguarded(&failed) {
            self.open_flows(&mut failed);
        }
        self.failures.replace(failed);
    }

    /// As many of them as a round has time for.
    fn slice_of(&mut self, mut changes: Vec<Change>) -> Vec<Change> {
        self.has_more = changes.len() > STRANGERS_MAX;
        changes.truncate(STRANGERS_MAX);
        changes
    }

    /// Has the kernel notice that a new endpoint's veth, and a bridge with its first port, have a carrier. By itself it looks at
    /// a hundred links in a second when many are new at once (`MAX_DO_DEV_NUM`, net/core/link_watch.c); until then the bridge
    /// carries nothing to or from the port, not even ARP.
    fn wake_links(&mut self) {
        if self.waking.is_empty() {
            return;
        }
        let engine = &self.engine;
        let veths: BTreeSet<IfIndex> = engine.actual().endpoints.values().map(|endpoint| endpoint.ifindex).collect();
        self.waking.retain(|(veth, bridge)| {
            let is_there = veths.contains(veth);
            let is_awake = is_there && engine.has_carrier(*veth) && engine.has_carrier(*bridge);
            is_there && !is_awake
        });
    }

    fn build(&self) -> Wanted {
        let actual = self.engine.actual();
        match &self.docker.model {
            Some(docker) => {
                let mode = self.mode().unwrap_or(Mode::Takeover);
                build(&self.bypass.mark(docker), &self.host, mode, &self.wishes, actual)
            }
            // Without Docker's word there is nothing to carry yet, or another version's programs carry it.
            None if actual.attachments.is_empty() || !self.engine.opens_flows() => {
                Wanted { state: actual.clone(), ..Wanted::default() }
            }
            None => build_without_docker(&self.host, &self.wishes, actual),
        }
    }

    fn apply(&mut self, change: Change, failed: &mut Vec<(String, String)>) {
        let change = match change {
            Change::SetPublished(ports) => {
                let endpoints = &self.engine.actual().endpoints;
                let (ready, waiting): (Vec<_>, Vec<_>) =
                    ports.into_iter().partition(|(_, target)| endpoints.contains_key(&target.address));
                let late = |(port, _)| (format!("published port {port}"), "its container isn't there".to_owned());
                failed.extend(waiting.into_iter().map(late));
                if ready.is_empty() {
                    return;
                }
                Change::SetPublished(ready)
            }
            other => other,
        };
        let before = Before::of(&change, self.engine.actual());
        self.departed.learn(&change, self.engine.actual());
        match self.engine.apply(&change) {
            Ok(()) => {
                self.journal.write(&change, &before);
                if let Change::SetEndpoint(_, endpoint) = &change {
                    self.waking.insert((endpoint.ifindex, endpoint.bridge_ifindex));
                }
                self.denied.are_open |= matches!(change, Change::SetPolicy(_)) && !self.denied.are_kept;
            }
            Err(error) => failed.push((self.object(&change), format!("{error:#}"))),
        }
    }

    /// Puts another policy in force, and ends the flows that it denies unless they are to be kept.
    ///
    /// # Errors
    ///
    /// When it isn't in force yet. It stays wanted, and is tried again.
    pub(super) fn put_policy(
        &mut self,
        policy: Policy,
        file: String,
        open: OpenFlows,
    ) -> anyhow::Result<PolicyApplied> {
        let rules = policy.rules.len();
        let needs_names = policy.rules.iter().any(|rule| !rule.network.is_empty());
        self.wishes.policy = policy;
        self.policy_file.clone_from(&file);
        self.denied = Denied { are_kept: open == OpenFlows::Stay, ..Denied::default() };
        self.round();
        self.denied.are_kept = false;
        if let Some(error) = self.failures.of(describe::POLICY).or_else(|| self.failures.of(DENIED)) {
            bail!("{error}; it is tried again");
        }
        if self.docker.model.is_none() && (needs_names || self.engine.actual().attachments.is_empty()) {
            bail!("Docker hasn't said which networks there are; the policy is put in force when it has");
        }
        let warnings = self.wanted.missing_networks.clone();
        Ok(PolicyApplied { file, rules, ended: self.denied.ended, warnings })
    }

    fn end_denied(&mut self, failed: &mut Vec<(String, String)>) {
        if !self.denied.are_open {
            return;
        }
        match self.engine.end_denied() {
            Ok(ended) => {
                self.denied.are_open = false;
                self.denied.ended += ended;
                if ended > 0 {
                    info!(ended, "connections that the policy denies have been ended");
                }
            }
            Err(error) => failed.push((DENIED.to_owned(), format!("{error:#}"))),
        }
    }

    /// The object of a change, with the interface's name where it has one.
    fn object(&self, change: &Change) -> String {
        let object = describe::object(change);
        match change {
            Change::SetUplink(ifindex, _) | Change::RemoveUplink(ifindex) => {
                format!("{object} ({})", self.journal.link(*ifindex))
            }
            Change::Attach(at) | Change::Detach(at) => format!("{object} ({})", self.journal.link(at.ifindex)),
            _ => object,
        }
    }

    fn open_flows(&mut self, failed: &mut Vec<(String, String)>) {
        let opened = match self.mode() {
            Some(Mode::Sole) => self.engine.begin_opening_flows().map(|()| 0),
            _ => handover::take_over(&mut self.engine),
        };
        match opened {
            Ok(0) => info!("netpath opens flows"),
            Ok(connections) => info!(connections, "netpath opens flows; older connections stay with nf_conntrack"),
            Err(error) => failed.push((HANDOVER.to_owned(), format!("{error:#}"))),
        }
    }

    fn report_refusals(&mut self) {
        let refused: BTreeSet<String> = self.wanted.refused.iter().cloned().collect();
        for refusal in refused.difference(&self.refused) {
            warn!("{refusal}");
        }
        self.refused = refused;
    }
}

/// Whether the policy isn't in force: nothing is opened then that it should guard.
fn is_unguarded(failed: &[(String, String)]) -> bool {
    failed.iter().any(|(object, _)| object == describe::POLICY)
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
