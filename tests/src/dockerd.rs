//! A Docker daemon of the tests' own, in the network namespace of a lab's host.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::netns::Place;
use crate::root::Root;
use crate::{run, shell, wait};

/// dockerd starts in half a second here; a busy machine may need far longer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// dockerd gives containers 10 s to end, and takes as long to remove the rules of 200 ports.
const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// What happens to containers while dockerd isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// They end with it, its default.
    StopsContainers,
    /// They live on (`--live-restore`).
    KeepsContainers,
    /// They end with it, and it starts no docker-proxy (`--userland-proxy=false`).
    WithoutProxy,
    /// They end with it, and it keeps the containers of its default network apart (`--icc=false`).
    WithoutIcc,
    /// They end with it, and it keeps its rules of ip6tables where it keeps none of iptables.
    WithIpv6Rules,
}

/// What a daemon does for its containers' packets by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Its rules and docker-proxy, its default.
    WithProxy,
    /// Its rules (`--userland-proxy=false`).
    Alone,
    /// Nothing: netpath is to run in sole mode.
    Nothing,
}

impl Rules {
    /// What suits a mode of netpath.
    #[must_use]
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Takeover => Self::WithProxy,
            Mode::Sole => Self::Nothing,
        }
    }

    /// The mode that netpath finds.
    #[must_use]
    pub const fn mode(self) -> Mode {
        match self {
            Self::WithProxy | Self::Alone => Mode::Takeover,
            Self::Nothing => Mode::Sole,
        }
    }

    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::WithProxy => &[],
            Self::Alone => &["--userland-proxy=false"],
            Self::Nothing => &["--iptables=false", "--ip6tables=false", "--userland-proxy=false"],
        }
    }
}

/// A running Docker daemon; dropping it stops it with all its containers.
#[derive(Debug)]
pub struct Dockerd {
    process: Child,
    root: Root,
    directory: PathBuf,
}

impl Dockerd {
    /// Starts dockerd in a namespace, with its files in a directory, and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started or doesn't answer in time; its log is in the message.
    pub fn start(place: &Place, directory: &Path, engine: Engine, rules: Rules, restart: Restart) -> Result<Self> {
        let root = Root::of(engine, directory)?;
        let process = spawn(root.enter(place), &root, directory, rules, restart)?;
        let mut daemon = Self { process, root, directory: directory.to_owned() };
        daemon.wait_until_ready()?;
        daemon.root.keep(&daemon.process)?;
        Ok(daemon)
    }

    /// Starts it anew after it has been stopped, where containers that live on left their files.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_again(&mut self, place: &Place, rules: Rules, restart: Restart) -> Result<()> {
        self.stop()?;
        self.process = spawn(self.root.enter(place), &self.root, &self.directory, rules, restart)?;
        self.wait_until_ready()
    }

    /// Its API's socket, as DOCKER_HOST takes it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    /// Stops it orderly and waits until it has ended.
    ///
    /// # Errors
    /// When it doesn't end in time.
    pub fn stop(&mut self) -> Result<()> {
        if self.process.try_wait().context("look at dockerd")?.is_none() {
            let pid = Pid::from_raw(self.process.id().cast_signed());
            kill(pid, Signal::SIGTERM).context("send SIGTERM to dockerd")?;
            shell::wait_for_exit(&mut self.process, STOP_DEADLINE).context("wait for dockerd to stop")?;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        tail(&self.directory.join("dockerd.log"), 15)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let host = self.host();
        let answers = || shell::run_words(&["docker", "--host", &host, "version"]);
        let ready = wait::until("dockerd to answer", START_DEADLINE, answers).and_then(|_| {
            ensure!(self.process.try_wait().context("look at dockerd")?.is_none(), "dockerd has ended");
            Ok(())
        });
        ready.with_context(|| format!("dockerd's log ends with:\n{}", self.log_tail()))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("dockerd is killed: {error:#}");
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}

fn spawn(mut command: Command, root: &Root, directory: &Path, rules: Rules, restart: Restart) -> Result<Child> {
    let log = directory.join("dockerd.log");
    let log = File::options().create(true).append(true).open(log).context("open dockerd's log")?;
    let at = |name: &str| root.directory().join(name);
    command.arg("dockerd").arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
    command.arg("--pidfile").arg(at("dockerd.pid"));
    command.arg("--host").arg(format!("unix://{}", at("docker.sock").display()));
    // The machine's own file is none of the tests' business; one that a test wrote is.
    if directory.join("daemon.json").exists() {
        command.arg("--config-file").arg(at("daemon.json"));
    }
    let rules = match (restart, rules) {
        (Restart::WithoutProxy, Rules::WithProxy) => Rules::Alone,
        _ => rules,
    };
    let keeps_ipv6 = restart == Restart::WithIpv6Rules;
    command.args(rules.options().iter().filter(|option| !keeps_ipv6 || **option != "--ip6tables=false"));
    match restart {
        Restart::KeepsContainers => drop(command.arg("--live-restore")),
        Restart::WithoutIcc => drop(command.arg("--icc=false")),
        Restart::StopsContainers | Restart::WithoutProxy | Restart::WithIpv6Rules => {}
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().context("duplicate the log")?).stderr(log);
    run::mark(&mut command).spawn().context("start dockerd: is the package docker.io installed?")
}

/// The last lines of a file, or nothing.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
