//! `netpath migrate`: moves a host from Docker's rules to netpath and back, and says before what that would change.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use serde::Serialize;

#[cfg(test)]
pub(super) use self::check::Report as CheckReport;
use self::{
    check::{Item, Level},
    facts::Facts,
    perform::{Outcome, Performer},
    plan::{Restart, Situation, Step, Target, plan, restarts},
};
use super::{
    args::Global,
    exit::{Exit, UsageError},
    output::{Format, message, print, show},
    preflight,
};
use crate::control::ClientError;

mod check;
mod daemon_json;
mod facts;
mod perform;
mod plan;

/// dockerd's configuration file where nobody says otherwise.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// There where systemd runs.
const SYSTEMD: &str = "/run/systemd/system";

/// `netpath migrate`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["check", "to"]))]
pub(super) struct MigrateArgs {
    /// Say what moving over would change and what stands in its way; ends with 6 when something does
    #[arg(long)]
    check: bool,
    /// Move there, step by step; a step that fails undoes those before it
    #[arg(long, value_enum, value_name = "TARGET")]
    to: Option<Target>,
    /// Print the steps only
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// Go on although containers are restarted with dockerd
    #[arg(long, conflicts_with = "check")]
    yes: bool,
    /// Go on although something stands in the way
    #[arg(long, conflicts_with = "check")]
    force: bool,
    /// dockerd's configuration file
    #[arg(long, value_name = "PATH", default_value = DAEMON_JSON)]
    daemon_json: PathBuf,
    /// How dockerd is restarted [default: `systemctl restart docker` where systemd runs, else you do it]
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
}

/// What `--to` prints.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MoveReport {
    /// Whether nothing was done.
    dry_run: bool,
    /// Whether containers are restarted with dockerd.
    restarts_containers: bool,
    /// The steps, in their order.
    steps: Vec<StepReport>,
}

/// A step and what became of it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct StepReport {
    /// What it does.
    does: String,
    /// What undoing it does.
    undo: Option<String>,
    /// What became of it.
    outcome: Outcome,
}

pub(super) async fn run(global: &Global, args: &MigrateArgs) -> anyhow::Result<Exit> {
    preflight::check_privileges()?;
    let netpath = match global.client().status().await {
        Ok(status) => Some(status),
        Err(ClientError::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let facts = Facts::gather(netpath).await.context("looking at the host")?;
    match args.to {
        None => {
            let report = check::report(&facts);
            show(global.output, &report, check::text)?;
            Ok(if report.ready { Exit::Ok } else { Exit::Degraded })
        }
        Some(target) => go(global, args, target, facts).await,
    }
}

async fn go(global: &Global, args: &MigrateArgs, target: Target, facts: Facts) -> anyhow::Result<Exit> {
    let restart = Restart::of(args.restart_command.as_deref(), Path::new(SYSTEMD));
    let steps = plan(target, &situation(args, &facts, &restart)?)?;
    let restarts_containers = restarts(&steps) && !facts.docker.live_restore && facts.docker.running > 0;
    let blocking = blocking(target, &steps, &facts);
    for item in &blocking {
        message(format_args!("in the way: {}: {}", item.finding, item.advice));
    }
    if restarts_containers {
        let running = facts.docker.running;
        message(format_args!("live-restore is off: restarting dockerd restarts the {running} containers that run"));
    }
    if args.dry_run {
        report(global, true, restarts_containers, &steps, &vec![Outcome::Planned; steps.len()])?;
        return Ok(if blocking.is_empty() || args.force { Exit::Ok } else { Exit::Degraded });
    }
    if !blocking.is_empty() && !args.force {
        message("nothing was changed; settle this first, or go on all the same with --force");
        return Ok(Exit::Degraded);
    }
    if restarts_containers && !args.yes {
        let what = "nothing was changed; --yes goes on all the same, and \"live-restore\": true keeps containers alive";
        return Err(UsageError(what.to_owned()).into());
    }
    let say: fn(&str) = if global.output == Format::Json { |text| message(text) } else { say_on_stdout };
    let mut performer = Performer { global, restart, scene: facts.scene, restarted: false, say };
    let (outcomes, error) = performer.run(&steps).await;
    if global.output == Format::Json {
        report(global, false, restarts_containers, &steps, &outcomes)?;
    } else if error.is_none() {
        say(if steps.is_empty() { "nothing to do: it is so already" } else { "done" });
    }
    error.map_or(Ok(Exit::Ok), Err)
}

/// Progress is the data of this verb; who has stopped reading it doesn't stop the migration half-way.
fn say_on_stdout(text: &str) {
    if let Err(error) = print(&format!("{text}\n")) {
        message(format_args!("{error:#}"));
    }
}

fn situation(args: &MigrateArgs, facts: &Facts, restart: &Restart) -> anyhow::Result<Situation> {
    Ok(Situation {
        mode: facts.docker.mode,
        attached: facts.netpath.as_ref().is_some_and(|status| status.attached),
        docker_chains: facts.docker_chains,
        has_ipv6: facts.has_ipv6(),
        daemon_json: args.daemon_json.clone(),
        before: daemon_json::read(&args.daemon_json)?,
        backup: daemon_json::read(&daemon_json::backup_of(&args.daemon_json))?,
        restart: restart
            .command()
            .map_or_else(|| "you do it, netpath waits".to_owned(), |command| format!("`{command}`")),
    })
}

/// What stands in the way of a target. The way back to Docker's rules is open to everybody.
fn blocking(target: Target, steps: &[Step], facts: &Facts) -> Vec<Item> {
    let matters = |item: &Item| match item.subject {
        "stale_chains" => false,
        "command_line" => restarts(steps),
        // What is passed by in takeover mode was settled when the daemon was started.
        _ => target == Target::Sole,
    };
    let found = check::report(facts).findings.into_iter();
    found.filter(|item| item.level == Level::Blocks && matters(item) && !steps.is_empty()).collect()
}

fn report(
    global: &Global,
    dry_run: bool,
    restarts_containers: bool,
    steps: &[Step],
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    let step = |(step, outcome): (&Step, &Outcome)| StepReport {
        does: step.does.clone(),
        undo: step.undo.clone(),
        outcome: *outcome,
    };
    let report = MoveReport { dry_run, restarts_containers, steps: steps.iter().zip(outcomes).map(step).collect() };
    show(global.output, &report, |report| {
        let lines = report.steps.iter().enumerate().map(|(at, step)| {
            let undo = step.undo.as_ref().map(|undo| format!("\n   undone by: {undo}")).unwrap_or_default();
            format!("{}. {}{undo}\n", at + 1, step.does)
        });
        let text: String = lines.collect();
        if text.is_empty() { "nothing to do: it is so already\n".to_owned() } else { text }
    })
}
