//! `netpath run`: checks the system, opens the control socket and becomes the daemon.
//!
//! The socket is taken first and given up last: nobody else touches the dataplane in between, and who sees the socket go
//! knows that this daemon has let go of it.

use std::{
    future::pending,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::EnvFilter;

use super::{
    args::{Global, LogFormat, RunArgs},
    exit::Exit,
    output::print,
    preflight::{self, PreflightError, Tcx},
};
use crate::{
    control::{Server, server::Api},
    daemon,
    dataplane::{self, TcChoice},
    report::DaemonStatus,
    settings::{PortRange, Settings, TimeoutTable, reserved_ports},
    status::Status,
};

/// The kernel's masquerade searches the same range.
const DEFAULT_PORT_RANGE: PortRange = PortRange { first: 1024, last: 65535 };

pub(super) async fn run(global: &Global, args: RunArgs) -> anyhow::Result<Exit> {
    let tcx = if args.tc == TcChoice::Tcx { Tcx::Demanded } else { Tcx::Optional };
    preflight::check_system(&args.uplinks, tcx)?;
    let settings = Settings::read(args.config.as_deref())?;
    start_log(args.log_format)?;
    let server = Server::bind(&global.socket).await?;

    let (shutdown, mut asked) = watch::channel(false);
    let (policies, wishes) = mpsc::channel(1);
    let (reports, report) = watch::channel(DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        ..DaemonStatus::default()
    });
    let announcing = tokio::spawn(announce(report.clone(), global.pin_dir.clone()));
    let api = Api { report, pin_dir: global.pin_dir.clone(), shutdown, policies };
    let (daemon_ended, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(api, async {
        // An error is the daemon's end as well: the sender is gone.
        ended.await.ok();
    }));

    let outcome = daemon::run(options(global, args, settings), reports, wishes, async move {
        // Fails when the socket's task is gone; the daemon works without it.
        if asked.wait_for(|asked| *asked).await.is_err() {
            pending::<()>().await;
        }
    })
    .await;

    drop(daemon_ended);
    announcing.abort();
    if let Err(error) = serving.await.context("the control socket's task").flatten() {
        warn!(error = format!("{error:#}"), "the control socket failed");
    }
    outcome.map(|()| Exit::Ok)
}

fn options(global: &Global, args: RunArgs, settings: Settings) -> daemon::Options {
    let networks = &settings.networks;
    let full_cone = networks.iter().filter_map(|(name, network)| Some((name.clone(), network.full_cone?))).collect();
    let foreign = networks.iter().filter(|(_, network)| network.allow_foreign_sources);
    let foreign_sources = foreign.map(|(name, _)| name.clone()).collect();
    let masquerade = settings.networks.into_iter().map(|(name, network)| (name, network.masquerade)).collect();
    daemon::Options {
        uplinks: args.uplinks,
        mode: args.mode.forced(),
        ignore_user_rules: args.ignore_user_rules,
        dataplane: dataplane::Options {
            pin_dir: global.pin_dir.clone(),
            xdp: args.xdp,
            tc: args.tc,
            flows_max: args.flows_max,
            port_range: args.port_range.or(settings.ports.range).unwrap_or(DEFAULT_PORT_RANGE),
            reserved_ports: reserved_ports(&settings.ports.reserved),
            timeouts: TimeoutTable::of_host(&settings.timeouts),
        },
        masquerade,
        full_cone,
        foreign_sources,
        reach_published_of_others: settings.isolation.reach_published_of_others,
        reach_macvlan: settings.macvlan.host_access,
        policy: settings.policy,
        drop_closed_ports: settings.edge.drop_closed_ports,
        config: args.config,
    }
}

/// Tells whoever started the daemon, once, that it is in step.
async fn announce(mut report: watch::Receiver<DaemonStatus>, pin_dir: PathBuf) {
    // Fails only when the daemon has ended before it was in step; then its error is the news.
    let Ok(in_step) = report.wait_for(|report| report.in_sync).await.map(|report| report.clone()) else { return };
    if let Err(error) = print(&(Status::of_daemon(in_step, &pin_dir).summary() + "\n")) {
        warn!(error = format!("{error:#}"), "nobody reads that netpath is attached");
    }
}

/// Sends the log to stderr: what `RUST_LOG` says, else from `info` on.
fn start_log(format: LogFormat) -> Result<(), PreflightError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| PreflightError::LogFilter(error.to_string()))?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
