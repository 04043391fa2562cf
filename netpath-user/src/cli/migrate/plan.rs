//! The steps from one way of carrying packets to another. Pure: a plan is printed, tested and carried out as a value.
//!
//! The order is such that somebody always keeps closed what is to be closed: netpath carries before Docker's rules go, and
//! Docker's rules are back before netpath goes.

use std::path::{Path, PathBuf};

use anyhow::bail;
use netpath_common::abi::Mode;

use super::daemon_json;

/// Where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Target {
    /// netpath alone: dockerd keeps no rules
    Sole,
    /// netpath beside dockerd's rules
    Takeover,
    /// dockerd's rules alone; netpath is detached
    Docker,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) action: Action,
    /// What it does, for people.
    pub(super) does: String,
    /// What undoing it does; none when there is nothing to undo.
    pub(super) undo: Option<String>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Waits until netpath is attached, in step with Docker, and in a mode.
    WaitFor(Mode),
    /// Writes dockerd's configuration; dockerd doesn't read it before it is restarted.
    Configure {
        /// The file.
        path: PathBuf,
        /// As it was.
        before: Option<String>,
        /// As it becomes.
        after: String,
    },
    /// Restarts dockerd.
    Restart,
    /// Waits until Docker's rules are there.
    ExpectRules,
    /// Removes Docker's rules, which nobody keeps any more.
    RemoveRules {
        /// Those of ip6tables too.
        ipv6: bool,
    },
    /// Detaches netpath.
    Detach,
}

/// What a plan is made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Situation {
    /// How dockerd runs.
    pub(super) mode: Option<Mode>,
    /// Whether netpath is attached and its daemon answers.
    pub(super) attached: bool,
    /// Whether chains of Docker's are there.
    pub(super) docker_chains: bool,
    /// Whether a network has IPv6, whose rules stay dockerd's.
    pub(super) has_ipv6: bool,
    /// dockerd's configuration file.
    pub(super) daemon_json: PathBuf,
    /// What is in it.
    pub(super) before: Option<String>,
    /// What was in it before an earlier migration.
    pub(super) backup: Option<String>,
    /// How dockerd is restarted, for people.
    pub(super) restart: String,
}

/// The steps to a target; none when it is reached.
///
/// # Errors
///
/// When netpath isn't there to be moved to, or dockerd's configuration can't be read.
pub(super) fn plan(target: Target, situation: &Situation) -> anyhow::Result<Vec<Step>> {
    if target != Target::Docker && !situation.attached {
        bail!("netpath isn't attached, or its daemon doesn't answer; start it with `netpath run`, then migrate");
    }
    let Some(mode) = situation.mode else { bail!("it can't be told whether dockerd keeps rules") };
    let configure = |after: String| configure(situation, after);
    let restart =
        || Step { action: Action::Restart, does: format!("restart dockerd ({})", situation.restart), undo: None };
    let mut steps = Vec::new();
    match (target, mode) {
        (Target::Sole, Mode::Takeover) => {
            steps.push(wait_for(Mode::Takeover));
            steps.push(configure(daemon_json::hands_off(situation.before.as_deref(), situation.has_ipv6)?));
            steps.extend([restart(), wait_for(Mode::Sole), remove_rules(!situation.has_ipv6)]);
        }
        (Target::Sole, Mode::Sole) => {
            if situation.docker_chains {
                steps.extend([wait_for(Mode::Sole), remove_rules(!situation.has_ipv6)]);
            }
        }
        (Target::Takeover | Target::Docker, Mode::Sole) => {
            if situation.attached {
                steps.push(wait_for(Mode::Sole));
            }
            let after = daemon_json::hands_on(situation.before.as_deref(), situation.backup.as_deref())?;
            steps.extend([configure(after), restart(), expect_rules()]);
            if situation.attached {
                steps.push(wait_for(Mode::Takeover));
            }
        }
        (Target::Takeover, Mode::Takeover) => {}
        (Target::Docker, Mode::Takeover) => {
            if situation.attached {
                steps.push(expect_rules());
            }
        }
    }
    if target == Target::Docker && situation.attached {
        steps.push(Step {
            action: Action::Detach,
            does: "detach netpath; connections go on with Docker's rules".to_owned(),
            undo: None,
        });
    }
    Ok(steps)
}

fn wait_for(mode: Mode) -> Step {
    let does = format!("wait until netpath is attached, in step with Docker and in {} mode", mode.name());
    Step { action: Action::WaitFor(mode), does, undo: None }
}

fn configure(situation: &Situation, after: String) -> Step {
    let path = situation.daemon_json.clone();
    let backup = daemon_json::backup_of(&path);
    let keys = settings(&after);
    let does = format!("write {} ({keys}; the file as it was is kept as {})", path.display(), backup.display());
    let undo = Some(format!("write {} as it was, and restart dockerd if it was restarted", path.display()));
    Step { action: Action::Configure { path, before: situation.before.clone(), after }, does, undo }
}

/// The three keys as a configuration has them.
fn settings(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let said = daemon_json::KEYS
        .map(|key| value.get(key).map_or_else(|| format!("no {key}"), |value| format!("{key}={value}")));
    said.join(", ")
}

fn expect_rules() -> Step {
    Step { action: Action::ExpectRules, does: "see that Docker's rules are there".to_owned(), undo: None }
}

fn remove_rules(ipv6: bool) -> Step {
    let which = if ipv6 { "" } else { " of IPv4" };
    let does = format!(
        "remove Docker's rules{which}, which nobody keeps any more; DOCKER-USER stays where it has rules of yours, and so \
         do all policies"
    );
    Step { action: Action::RemoveRules { ipv6 }, does, undo: None }
}

/// Whether a plan restarts dockerd.
pub(super) fn restarts(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.action == Action::Restart)
}

/// How dockerd is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Restart {
    /// `--restart-command`.
    Command(String),
    /// systemd's unit.
    Systemd,
    /// Somebody does it while netpath waits.
    Operator,
}

impl Restart {
    /// As the operator says, else as the host has it.
    pub(super) fn of(command: Option<&str>, systemd: &Path) -> Self {
        match command {
            Some(command) => Self::Command(command.to_owned()),
            None if systemd.is_dir() => Self::Systemd,
            None => Self::Operator,
        }
    }

    /// The command line; none when it is the operator's business.
    pub(super) fn command(&self) -> Option<&str> {
        match self {
            Self::Command(command) => Some(command),
            Self::Systemd => Some("systemctl restart docker"),
            Self::Operator => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(mode: Mode) -> Situation {
        Situation {
            mode: Some(mode),
            attached: true,
            daemon_json: "/etc/docker/daemon.json".into(),
            restart: "systemctl restart docker".to_owned(),
            ..Situation::default()
        }
    }

    fn names(target: Target, situation: &Situation) -> Vec<&'static str> {
        let name = |step: &Step| match step.action {
            Action::WaitFor(Mode::Takeover) => "takeover",
            Action::WaitFor(Mode::Sole) => "sole",
            Action::Configure { .. } => "configure",
            Action::Restart => "restart",
            Action::ExpectRules => "rules",
            Action::RemoveRules { ipv6: true } => "remove",
            Action::RemoveRules { ipv6: false } => "remove IPv4",
            Action::Detach => "detach",
        };
        plan(target, situation).unwrap().iter().map(name).collect()
    }

    #[test]
    fn somebody_always_keeps_the_host_closed() {
        let (takeover, sole) = (situation(Mode::Takeover), situation(Mode::Sole));
        let stale = Situation { docker_chains: true, ..situation(Mode::Sole) };
        let ipv6 = Situation { has_ipv6: true, ..situation(Mode::Takeover) };
        let unattached = |mode| Situation { attached: false, ..situation(mode) };
        for (target, situation, expected) in [
            // netpath enforces before the rules go.
            (Target::Sole, &takeover, &["takeover", "configure", "restart", "sole", "remove"][..]),
            // Nobody but Docker's rules keeps IPv6 closed.
            (Target::Sole, &ipv6, &["takeover", "configure", "restart", "sole", "remove IPv4"]),
            (Target::Sole, &sole, &[]),
            (Target::Sole, &stale, &["sole", "remove"]),
            (Target::Takeover, &sole, &["sole", "configure", "restart", "rules", "takeover"]),
            (Target::Takeover, &takeover, &[]),
            // The rules are there before netpath goes.
            (Target::Docker, &sole, &["sole", "configure", "restart", "rules", "takeover", "detach"]),
            (Target::Docker, &takeover, &["rules", "detach"]),
            (Target::Docker, &unattached(Mode::Sole), &["configure", "restart", "rules"]),
            (Target::Docker, &unattached(Mode::Takeover), &[]),
        ] {
            assert_eq!(names(target, situation), expected, "{target:?} {situation:?}");
        }
        assert!(plan(Target::Sole, &unattached(Mode::Takeover)).is_err());
        let broken = Situation { before: Some("{".to_owned()), ..situation(Mode::Takeover) };
        assert!(plan(Target::Sole, &broken).is_err());
    }

    #[test]
    fn steps_say_what_they_do() {
        let steps = plan(Target::Sole, &situation(Mode::Takeover)).unwrap();
        assert!(restarts(&steps));
        assert!(steps[1].does.contains("iptables=false, ip6tables=false, userland-proxy=false"), "{}", steps[1].does);
        assert!(steps[1].undo.is_some());
        let back = plan(Target::Docker, &situation(Mode::Sole)).unwrap();
        assert!(back[1].does.contains("no iptables"), "{}", back[1].does);
    }

    #[test]
    fn dockerd_is_restarted_as_the_operator_says_else_by_systemd() {
        let here = Path::new("/");
        assert_eq!(Restart::of(Some("x"), here).command(), Some("x"));
        assert_eq!(Restart::of(None, here).command(), Some("systemctl restart docker"));
        assert_eq!(Restart::of(None, Path::new("/nonexistent")).command(), None);
    }
}
