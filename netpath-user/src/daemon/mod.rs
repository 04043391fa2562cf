//! The daemon: one loop that learns what watchers see, brings the dataplane in step and reports.
//!
//! Everything that can happen is an [`Event`]. However many come at once, they are learnt first and one round follows.
//! The daemon may die at any moment: all that matters is in the kernel, and the next start adopts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use aya::util::KernelVersion;
use netpath_common::abi::Mode;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch as channel},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tracing::{error, info, warn};

use self::{
    bypass::{Bypass, UserRules},
    closed_ports::ClosedPorts,
    core::{Core, OpenFlows},
    fill::{Fill, Notice},
};
use crate::{
    control::ApplyPolicy,
    dataplane::{self, Collected, Kernel, XdpChoice},
    desired::{
        self,
        build::{Wishes, Xdp},
        host::HostModel,
        macvlan::Wanted,
        model::IfIndex,
        uplinks::UplinkChoice,
    },
    firewall::{self, Ruleset},
    macvlan,
    report::{DaemonStatus, MacvlanStatus, PolicyApplied},
    settings::{self, DEFAULT_PATH, DropClosedPorts, Settings, SettingsError},
    status::Flows,
    watch::{
        self, News,
        docker::{Watcher, socket_from_environment},
        netlink::{self, HostWatch},
        netns::Wish,
        waiting::Waiting,
    },
};

pub(crate) mod bypass;
mod closed_ports;
mod core;
mod departed;
mod engine;
mod failures;
mod fill;
mod handover;
mod journal;
mod status;

/// News that wait; a watcher that is ahead of the daemon waits too.
const NEWS_MAX: usize = 64;
/// Between slices of the collector's work.
const COLLECT: Duration = Duration::from_millis(250);
/// Slices for a full table: one sweep takes 20 seconds, below the shortest timeout of an established flow.
const COLLECT_SLICES: usize = 80;
/// From the beginning of a sweep to that of the next while nothing changes. A sweep of a nearly empty table is one slice,
/// which looks at the tags of all its buckets: more often that would be most of what an idle daemon does.
const SWEEP: Duration = Duration::from_secs(2);
/// Entries in the smallest slice.
const COLLECT_ENTRIES_MIN: usize = 4096;
/// Between looks whether somebody else detached netpath.
const CHECK_PINS: Duration = Duration::from_secs(2);

/// What the daemon is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Interfaces that lead to the world; empty: see [`UplinkChoice::DefaultRoutes`].
    pub uplinks: Vec<String>,
    /// The mode; absent: as dockerd is configured.
    pub mode: Option<Mode>,
    /// Addresses that flows of a network leave with, by its name or id.
    pub masquerade: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Whether a network has cones, by its name or id.
    pub full_cone: BTreeMap<String, bool>,
    /// Networks, by name or id, whose containers may send with addresses that aren't theirs.
    pub foreign_sources: BTreeSet<String>,
    /// Whether containers reach ports that other networks publish.
    pub reach_published_of_others: bool,
    /// Whether the host is given an interface by which it reaches its macvlan containers.
    pub reach_macvlan: bool,
    /// Who may open connections to published ports.
    pub policy: settings::policy::Policy,
    /// Whether datagrams to closed ports of the host are dropped early.
    pub drop_closed_ports: DropClosedPorts,
    /// The configuration file; absent: the default one, if it is there.
    pub config: Option<PathBuf>,
    /// Whether networks are taken over although rules of the firewall lose their effect on them.
    pub ignore_user_rules: bool,
    /// How the dataplane is opened.
    pub dataplane: dataplane::Options,
}

/// A wish for another policy.
#[derive(Debug)]
pub struct PolicyRequest {
    /// What is asked for.
    pub wish: ApplyPolicy,
    /// Who waits for the outcome.
    pub answer: oneshot::Sender<anyhow::Result<PolicyApplied>>,
}

/// Everything that can happen.
enum Event {
    /// A watcher saw something.
    News(News),
    /// Somebody wants another policy.
    Policy(PolicyRequest),
    /// Time to go on, or to try again what failed.
    Retry,
    /// Time for a slice of the collector's work.
    Collect,
    /// Time to look whether the pins are still there.
    CheckPins,
    /// A terminal was closed, or somebody expects the settings to be read again.
    HangUp,
    /// The daemon is to end.
    Stop(&'static str),
}

/// Runs until `stop` is, until SIGTERM or SIGINT, or until somebody else detaches netpath. What is attached stays.
///
/// # Errors
///
/// When a named uplink doesn't exist, or when the kernel refuses the dataplane or its sockets.
pub async fn run(
    options: Options,
    reports: channel::Sender<DaemonStatus>,
    policies: mpsc::Receiver<PolicyRequest>,
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let socket = socket_from_environment()?;
    let host_watch = HostWatch::subscribe()?;
    let host = Arc::new(netlink::read()?);
    check_uplinks(&options.uplinks, &host)?;
    let firewall_watch = watch::firewall::Watcher::subscribe();
    // Before anything is carried: a rule that would lose its effect must be known by then.
    let ruleset = Arc::new(firewall::read::read(&Ruleset::default()).await);

    let (send, news) = mpsc::channel(NEWS_MAX);
    // Dropping the set ends the watchers.
    let mut watchers = JoinSet::new();
    watchers.spawn(host_watch.run(Arc::clone(&host), send.clone()));
    watchers.spawn(firewall_watch.run(Arc::clone(&ruleset), send.clone()));
    watchers.spawn(Watcher::new(socket.clone(), send, frames(options.dataplane.xdp)).run());
    // Beside the watchers, which run on threads of their own: hundreds of containers take Docker as long as the kernel takes.
    let mut kernel = Kernel::open(&options.dataplane)?;
    kernel.attach_host_access();

    let (beside, wanted) = channel::channel(None);
    let (troubled, trouble) = channel::channel(None);
    watchers.spawn(macvlan::keep(wanted, troubled));

    let collect_entries = (kernel.pins().flows_capacity() as usize * 2 / COLLECT_SLICES).max(COLLECT_ENTRIES_MIN);
    let mut core = Core::new(kernel, wishes(&options), options.mode, host, &socket);
    core.policy_file = options.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH)).display().to_string();
    let user_rules = if options.ignore_user_rules { UserRules::Ignore } else { UserRules::Refuse };
    core.bypass = Bypass::new(user_rules, Some(ruleset));
    core.closed_ports = ClosedPorts::new(options.drop_closed_ports);
    let pin_dir = options.dataplane.pin_dir;
    let mut daemon = Daemon {
        core,
        reports,
        collect_entries,
        pin_dir,
        collector_error: None,
        sweep_begun: Instant::now(),
        sweep_ended: false,
        sweep_at_once: false,
        fill: Fill::default(),
        config: options.config,
        beside: Beside { wanted: beside, trouble, is_wished: options.reach_macvlan, present: BTreeSet::new() },
    };
    daemon.run(Sources::new(news, policies)?, stop).await;
    Ok(())
}

fn wishes(options: &Options) -> Wishes {
    let uplinks = if options.uplinks.is_empty() {
        UplinkChoice::DefaultRoutes
    } else {
        UplinkChoice::Named(options.uplinks.clone())
    };
    let xdp = if options.dataplane.xdp == XdpChoice::Off { Xdp::Off } else { Xdp::Attach };
    Wishes {
        uplinks,
        xdp,
        masquerade: options.masquerade.clone(),
        full_cone: options.full_cone.clone(),
        foreign_sources: options.foreign_sources.clone(),
        reach_published_of_others: options.reach_published_of_others,
        policy: options.policy.clone(),
    }
}

/// Whether containers are to take frames from XDP. `auto` leaves their interfaces alone.
fn frames(xdp: XdpChoice) -> Wish {
    let has_napi = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 13, 0));
    if xdp == XdpChoice::Native && has_napi { Wish::TakeFrames } else { Wish::Nothing }
}

/// An uplink may vanish and come back later, but one that isn't there at the start is most likely a typing error.
fn check_uplinks(names: &[String], host: &HostModel) -> anyhow::Result<()> {
    for name in names {
        match host.link_named(name) {
            None => bail!("the uplink {name} doesn't exist; `ip link` lists the interfaces"),
            Some((_, link)) if link.mac.is_none() => {
                bail!("the uplink {name} isn't an Ethernet interface; netpath can't work on it")
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Where events come from.
struct Sources {
    news: mpsc::Receiver<News>,
    policies: mpsc::Receiver<PolicyRequest>,
    collect: Interval,
    check_pins: Interval,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    retry_at: Option<Instant>,
}

impl Sources {
    fn new(news: mpsc::Receiver<News>, policies: mpsc::Receiver<PolicyRequest>) -> anyhow::Result<Self> {
        Ok(Self {
            news,
            policies,
            collect: every(COLLECT),
            check_pins: every(CHECK_PINS),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            retry_at: None,
        })
    }

    async fn next(&mut self, stop: impl Future<Output = ()>) -> Event {
        let retry_at = self.retry_at.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = stop => Event::Stop("asked through the control socket"),
            _ = self.terminate.recv() => Event::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Event::Stop("SIGINT"),
            _ = self.hangup.recv() => Event::HangUp,
            news = self.news.recv() => news.map_or(Event::Stop("the watchers ended"), Event::News),
            // None: the control socket is gone, and with it whoever could ask.
            Some(request) = self.policies.recv() => Event::Policy(request),
            _ = self.check_pins.tick() => Event::CheckPins,
            _ = self.collect.tick() => Event::Collect,
            // Last: it may be due again and again.
            () = sleep_until(retry_at), if self.retry_at.is_some() => Event::Retry,
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

struct Daemon {
    core: Core<Kernel>,
    reports: channel::Sender<DaemonStatus>,
    collect_entries: usize,
    pin_dir: PathBuf,
    collector_error: Option<String>,
    sweep_begun: Instant,
    sweep_ended: bool,
    /// Whether something has changed since.
    sweep_at_once: bool,
    fill: Fill,
    config: Option<PathBuf>,
    beside: Beside,
}

/// What is told to the task that keeps the host's own macvlan interfaces.
struct Beside {
    wanted: channel::Sender<Option<Wanted>>,
    /// What it couldn't do.
    trouble: channel::Receiver<Option<String>>,
    is_wished: bool,
    /// The interfaces there were when it was last told.
    present: BTreeSet<IfIndex>,
}

impl Beside {
    /// What `netpath status` shows of it.
    fn status(&self, core: &Core<Kernel>) -> MacvlanStatus {
        let could = core.docker.model.as_ref().map(|docker| desired::macvlan::wanted(docker, &core.host));
        MacvlanStatus {
            host_access: self.is_wished,
            error: self.trouble.borrow().clone(),
            parents: desired::macvlan::parents(&could.unwrap_or_default(), &core.host),
        }
    }

    /// Tells it what has changed, once Docker has said what there is.
    fn tell(&mut self, core: &Core<Kernel>) {
        let Some(docker) = &core.docker.model else { return };
        let wanted = if self.is_wished { desired::macvlan::wanted(docker, &core.host) } else { Wanted::new() };
        let present = desired::macvlan::present(&core.host);
        let is_new = self.wanted.borrow().as_ref() != Some(&wanted) || present != self.present;
        if is_new && !(wanted.is_empty() && present.is_empty() && self.present.is_empty()) {
            self.present = present;
            self.wanted.send_replace(Some(wanted));
        }
    }
}

impl Daemon {
    async fn run(&mut self, mut sources: Sources, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        self.round(&mut sources);
        loop {
            match sources.next(stop.as_mut()).await {
                Event::News(news) => {
                    self.core.learn(news);
                    while let Ok(news) = sources.news.try_recv() {
                        self.core.learn(news);
                    }
                    self.round(&mut sources);
                }
                Event::Policy(PolicyRequest { wish, answer }) => {
                    let outcome = self.put_policy(wish);
                    self.after_round(&mut sources);
                    // Who asked may have gone; what was asked for is done all the same.
                    answer.send(outcome).ok();
                }
                Event::Retry => self.round(&mut sources),
                Event::Collect => self.collect(),
                Event::CheckPins if engine::pins_are_gone(&self.pin_dir) => {
                    warn!(pins = %self.pin_dir.display(), "somebody detached netpath; the daemon ends");
                    return;
                }
                Event::CheckPins => self.look_again(),
                Event::HangUp => info!(
                    "SIGHUP changes nothing: settings are read when the daemon starts, a policy by `netpath policy apply`"
                ),
                Event::Stop(reason) => {
                    info!(reason, "the daemon ends; what is attached stays and goes on carrying traffic");
                    return;
                }
            }
        }
    }

    fn round(&mut self, sources: &mut Sources) {
        self.core.round();
        self.beside.tell(&self.core);
        self.after_round(sources);
    }

    fn after_round(&mut self, sources: &mut Sources) {
        let waits = [self.core.failures.retry_after(), self.core.bypass.judge_after()];
        let wait = if self.core.has_more { Some(Duration::ZERO) } else { waits.into_iter().flatten().min() };
        sources.retry_at = wait.map(|wait| Instant::now() + wait);
        self.look_again();
        // No flow should be left of a container that has gone.
        self.sweep_at_once = true;
        self.reports.send_replace(status::report(&self.core));
    }

    /// Renews what nobody tells of when it changes, and the report where it did.
    fn look_again(&mut self) {
        let before = (self.core.closed_ports.status(), self.core.macvlan.clone());
        self.core.closed_ports.learn(Waiting::read());
        self.core.renew_closed_ports();
        self.core.macvlan = self.beside.status(&self.core);
        if (self.core.closed_ports.status(), &self.core.macvlan) != (before.0, &before.1) {
            self.reports.send_replace(status::report(&self.core));
        }
    }

    /// Reads the policy anew, from the text given or from the daemon's own file, and puts it in force.
    fn put_policy(&mut self, wish: ApplyPolicy) -> anyhow::Result<PolicyApplied> {
        let (settings, file) = match (wish.text, wish.file) {
            (Some(text), file) => {
                let path = PathBuf::from(file.unwrap_or_default());
                let settings =
                    Settings::parse(&text).map_err(|message| SettingsError::Wrong { path: path.clone(), message })?;
                (settings, path)
            }
            (None, _) => {
                let path = self.config.as_deref();
                (Settings::read(path)?, path.unwrap_or_else(|| Path::new(DEFAULT_PATH)).to_owned())
            }
        };
        let open = if wish.keep_flows { OpenFlows::Stay } else { OpenFlows::End };
        self.core.put_policy(settings.policy, file.display().to_string(), open)
    }

    /// A failing collector is logged when it begins to fail, not each time.
    fn collect(&mut self) {
        if self.sweep_ended {
            if self.sweep_begun.elapsed() < SWEEP && !self.sweep_at_once {
                return;
            }
            self.sweep_begun = Instant::now();
            self.sweep_at_once = false;
        }
        let collected = self.core.engine.collect(self.collect_entries);
        self.sweep_ended = !matches!(collected, Ok(Collected { left: None, .. }));
        if let Ok(Collected { left: Some(used), .. }) = collected {
            self.tell_fill(used);
        }
        let error = collected.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error
            && self.collector_error.is_none()
        {
            error!(error, "flows that have ended can't be removed; the flow table may fill up");
        }
        self.collector_error = error;
    }

    fn tell_fill(&mut self, used: u64) {
        let capacity = u64::from(self.core.engine.pins().flows_capacity());
        match self.fill.learn(&Flows::new(used, capacity)) {
            Some(Notice::NearlyFull) => warn!(
                used,
                capacity,
                "the flow table is nearly full; when it is, half-open, closed and unanswered flows and short UDP \
                 exchanges make room, and new ones are refused if there are none; see `netpath ct stats`, and --flows-max for a larger table"
            ),
            Some(Notice::Relieved) => info!(used, capacity, "the flow table has room again"),
            None => {}
        }
    }
}
