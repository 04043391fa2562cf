//! Carrying out a plan, and undoing it from where it failed.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use netpath_common::abi::Mode;
use serde::Serialize;
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    daemon_json,
    plan::{Action, Restart, Step},
};
use crate::{
    cli::{args::Global, detach},
    firewall::{Scene, read, stale},
};

/// How long netpath may take to follow dockerd.
const FOLLOWS: Duration = Duration::from_secs(60);
/// How long somebody may take to restart dockerd by hand.
const OPERATOR: Duration = Duration::from_secs(900);
/// How long a command may take to restart dockerd: it gives each container ten seconds to end.
const RESTARTS: Duration = Duration::from_secs(300);
/// Between two looks.
const POLL: Duration = Duration::from_millis(200);

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Outcome {
    /// It wasn't begun.
    Planned,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// It was done, and undone when another failed.
    Undone,
    /// It was done, and couldn't be undone.
    Left,
}

/// Carries out steps.
pub(super) struct Performer<'a> {
    pub(super) global: &'a Global,
    pub(super) restart: Restart,
    pub(super) scene: Scene,
    /// Whether dockerd has been restarted, or its restart begun.
    pub(super) restarted: bool,
    /// Where progress is told.
    pub(super) say: fn(&str),
}

impl Performer<'_> {
    /// Carries out all steps; when one fails, undoes those done so far, the last first.
    pub(super) async fn run(&mut self, steps: &[Step]) -> (Vec<Outcome>, Option<anyhow::Error>) {
        let mut outcomes = vec![Outcome::Planned; steps.len()];
        for (at, step) in steps.iter().enumerate() {
            (self.say)(&format!("step {} of {}: {}", at + 1, steps.len(), step.does));
            match self.step(&step.action).await {
                Ok(()) => outcomes[at] = Outcome::Done,
                Err(error) => {
                    (self.say)(&format!("step {} failed: {error:#}", at + 1));
                    outcomes[at] = Outcome::Failed;
                    self.undo(steps, &mut outcomes, at).await;
                    return (outcomes, Some(error.context(format!("step {}: {}", at + 1, step.does))));
                }
            }
        }
        (outcomes, None)
    }

    async fn step(&mut self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::WaitFor(mode) => self.wait_for(*mode).await,
            Action::Configure { path, before, after } => {
                let backup = daemon_json::backup_of(path);
                daemon_json::write(&backup, Some(before.as_deref().unwrap_or("{}\n")))?;
                daemon_json::write(path, Some(after))
            }
            Action::Restart => self.restart_dockerd().await,
            Action::ExpectRules => self.expect_rules().await,
            Action::RemoveRules { ipv6 } => self.remove_rules(*ipv6).await,
            Action::Detach => detach::perform(self.global).await.map(drop),
        }
    }

    /// Undoes the steps before `failed`, and what the failed one may have done.
    async fn undo(&mut self, steps: &[Step], outcomes: &mut [Outcome], failed: usize) {
        for at in (0..=failed).rev() {
            let Some(undo) = &steps[at].undo else { continue };
            (self.say)(&format!("undoing step {}: {undo}", at + 1));
            match self.undo_step(&steps[at].action).await {
                Ok(()) if at == failed => {}
                Ok(()) => outcomes[at] = Outcome::Undone,
                Err(error) => {
                    (self.say)(&format!("step {} can't be undone: {error:#}", at + 1));
                    outcomes[at] = Outcome::Left;
                }
            }
        }
    }

    async fn undo_step(&mut self, action: &Action) -> anyhow::Result<()> {
        let Action::Configure { path, before, .. } = action else { return Ok(()) };
        daemon_json::write(path, before.as_deref())?;
        if self.restarted { self.restart_dockerd().await } else { Ok(()) }
    }

    async fn wait_for(&self, mode: Mode) -> anyhow::Result<()> {
        let by_hand = self.restarted && self.restart == Restart::Operator;
        let deadline = Instant::now() + if by_hand { OPERATOR } else { FOLLOWS };
        let client = self.global.client();
        loop {
            let seen = match client.status().await {
                Ok(status) if status.attached && status.in_sync && status.mode == mode.name() => return Ok(()),
                Ok(status) => format!(
                    "it is {}attached, {}in step, in {} mode",
                    if status.attached { "" } else { "not " },
                    if status.in_sync { "" } else { "not " },
                    status.mode
                ),
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            ensure!(Instant::now() < deadline, "netpath doesn't get there: {seen}");
            sleep(POLL).await;
        }
    }

    async fn restart_dockerd(&mut self) -> anyhow::Result<()> {
        self.restarted = true;
        let Some(command) = self.restart.command() else {
            (self.say)("restart dockerd now; netpath waits for it");
            return Ok(());
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(std::process::Stdio::null()).kill_on_drop(true);
        // stdout is for the report.
        shell.stdout(std::process::Stdio::null());
        let status = timeout(RESTARTS, shell.status()).await;
        let status = status.with_context(|| format!("`{command}` takes too long"))?;
        let status = status.with_context(|| format!("starting `{command}`"))?;
        ensure!(status.success(), "`{command}` failed ({status})");
        Ok(())
    }

    async fn expect_rules(&self) -> anyhow::Result<()> {
        let by_hand = self.restarted && self.restart == Restart::Operator;
        let deadline = Instant::now() + if by_hand { OPERATOR } else { FOLLOWS };
        loop {
            let saved = read::saved().await;
            let in_iptables = saved.iter().any(|saved| stale::has_docker(&saved.text));
            if in_iptables || read::has_docker_table().await {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "there are no rules of Docker's");
            sleep(POLL).await;
        }
    }

    async fn remove_rules(&self, ipv6: bool) -> anyhow::Result<()> {
        let concerned = |saved: &read::Saved| ipv6 || !saved.restores.starts_with("ip6");
        for saved in read::saved().await.into_iter().filter(concerned) {
            let script = stale::removal(&saved.text, &self.scene);
            if !script.is_empty() {
                read::change(&saved.restores, &script).await?;
            }
        }
        read::remove_docker_table().await?;
        let left = read::saved().await;
        if left.iter().any(|saved| concerned(saved) && stale::has_docker(&saved.text)) {
            bail!("chains of Docker's are still there");
        }
        Ok(())
    }
}
