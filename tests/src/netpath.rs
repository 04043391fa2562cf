//! The netpath under test: its daemon and its command line, used only as its users do, through the binary.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::dockerd::tail;
use crate::netns::{Place, join_command};
use crate::report::{Flow, Port, Status, Traffic};
use crate::usage::Usage;
use crate::{run, shell, wait};

/// How long netpath may take to come into step with Docker after a start, the loading of its programs included: two
/// seconds here, and far longer on a machine that builds something at the same time.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// netpath's promise to a new container: it is carried a second after `docker run` has returned.
const CONTAINER_DEADLINE: Duration = Duration::from_secs(1);

/// How long netpath may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Lines of the daemon's log that a failure shows.
const LOG_LINES: usize = 30;

/// Options of `netpath run` besides those that every test needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    words: Vec<String>,
    /// Whether netpath chooses its uplinks by itself.
    chooses_uplinks: bool,
}

impl Options {
    /// Options given as words, e.g. `["--xdp", "native"]`.
    #[must_use]
    pub fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), chooses_uplinks: false }
    }

    /// As a user starts it: no uplink is named. In all other tests eth0 is.
    #[must_use]
    pub fn without_uplink() -> Self {
        Self { words: Vec::new(), chooses_uplinks: true }
    }
}

/// netpath on a lab's host. Dropping it kills the daemon and removes the pins.
#[derive(Debug)]
pub struct Netpath {
    binary: PathBuf,
    host: String,
    socket: PathBuf,
    pins: PathBuf,
    log: PathBuf,
    docker: String,
    options: Options,
    daemon: Option<Child>,
}

impl Netpath {
    /// Starts the daemon. It isn't waited for.
    ///
    /// # Errors
    /// When the binary can't be started.
    pub fn start(
        binary: &Path,
        host: &Place,
        directory: &Path,
        pins: &Path,
        docker: &str,
        options: Options,
    ) -> Result<Self> {
        let mut netpath = Self {
            binary: binary.to_owned(),
            host: host.path(),
            socket: directory.join("netpath.sock"),
            pins: pins.to_owned(),
            log: directory.join("netpath.log"),
            docker: docker.to_owned(),
            options,
            daemon: None,
        };
        netpath.start_daemon()?;
        Ok(netpath)
    }

    /// The options that it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The directory of its pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A netpath command with the global options and the host's network, not yet run.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = join_command(&self.host, &self.binary);
        command.args(words).arg("--socket").arg(&self.socket).arg("--pin-dir").arg(&self.pins);
        command.env("DOCKER_HOST", &self.docker);
        run::mark(&mut command);
        command
    }

    /// Runs a netpath command to its end, however it ends.
    ///
    /// # Errors
    /// When it can't be started or doesn't end.
    pub fn output(&self, words: &[&str]) -> Result<shell::Output> {
        shell::output(&mut self.command(words))
    }

    /// Runs a netpath command, which must end with an exit code.
    ///
    /// # Errors
    /// When it ends with another.
    pub fn expect_code(&self, words: &[&str], code: i32) -> Result<shell::Output> {
        let output = self.output(words)?;
        ensure!(output.code == code, "netpath {words:?} ended with {}, not {code}: {}", output.code, output.stderr);
        Ok(output)
    }

    /// Runs a netpath command, which must succeed, and reads the JSON that it prints.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let output = self.expect_code(&[words, &["--output", "json"]].concat(), 0)?;
        parse(&output.stdout)
    }

    /// What `netpath status` prints, whatever it ends with.
    ///
    /// # Errors
    /// When it prints nothing that can be read.
    pub fn status(&self) -> Result<Status> {
        parse(&self.output(&["status", "--output", "json"])?.stdout)
    }

    /// What `netpath ct ls` prints.
    ///
    /// # Errors
    /// See [`Self::json`].
    pub fn flows(&self) -> Result<Vec<Flow>> {
        self.json(&["ct", "ls"])
    }

    /// What `netpath ports` prints.
    ///
    /// # Errors
    /// See [`Self::json`].
    pub fn ports(&self) -> Result<Vec<Port>> {
        self.json(&["ports"])
    }

    /// A counter of dropped packets.
    ///
    /// # Errors
    /// When status doesn't show it.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        self.status()?.drops.get(reason).copied().with_context(|| format!("status has no drop reason {reason}"))
    }

    /// A counter of packets by their way.
    ///
    /// # Errors
    /// When status doesn't show it.
    pub fn traffic(&self, way: &str) -> Result<Traffic> {
        self.status()?.traffic.get(way).copied().with_context(|| format!("status has no way {way}"))
    }

    /// Waits until `netpath status` ends with 0: attached and in step with Docker.
    ///
    /// # Errors
    /// When that takes longer than 20 s.
    pub fn wait_in_step(&mut self) -> Result<()> {
        wait::until("netpath to be in step with Docker", STEP_DEADLINE, || {
            let output = self.output(&["status"])?;
            ensure!(output.code == 0, "status ended with {}: {}{}", output.code, output.stdout, output.stderr);
            Ok(())
        })
    }

    /// Waits until netpath carries a new container's packets.
    ///
    /// # Errors
    /// When that takes longer than a second.
    pub fn wait_for_container(&self, address: Ipv4Addr) -> Result<()> {
        wait::until(&format!("netpath to carry the packets of {address}"), CONTAINER_DEADLINE, || {
            let endpoints = self.status()?.endpoints;
            let found = endpoints.iter().any(|endpoint| endpoint.address == address && endpoint.attached);
            ensure!(found, "status shows {endpoints:?}");
            Ok(())
        })
    }

    /// Whether the daemon's process is alive.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn is_running(&mut self) -> Result<bool> {
        let Some(daemon) = &mut self.daemon else { return Ok(false) };
        Ok(daemon.try_wait().context("look at the daemon")?.is_none())
    }

    /// Kills the daemon as a crash would: SIGKILL.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).map(drop)
    }

    /// Sends the daemon SIGHUP, which mustn't end it.
    ///
    /// # Errors
    /// When no daemon runs.
    pub fn hang_up(&self) -> Result<()> {
        let daemon = self.daemon.as_ref().context("no daemon runs")?;
        kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGHUP).context("signal the daemon")
    }

    /// Stops the daemon orderly: SIGTERM.
    ///
    /// # Errors
    /// When it isn't running, doesn't end within 10 s, or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        let code = self.end(Signal::SIGTERM)?;
        ensure!(code == 0, "the daemon ended with {code} after SIGTERM");
        Ok(())
    }

    /// Starts the daemon again, with the same options.
    ///
    /// # Errors
    /// When it can't be started or doesn't come into step with Docker.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_daemon()?;
        self.wait_in_step()
    }

    /// The same, and gives the time until the daemon says that it is attached and in step with Docker.
    ///
    /// # Errors
    /// See [`Self::start_again`].
    pub fn start_timed(&mut self) -> Result<Duration> {
        let before = self.log()?.len();
        let begun = Instant::now();
        self.start_daemon()?;
        wait::until_true("netpath to say that it is attached", STEP_DEADLINE, || {
            Ok(self.log()?[before..].contains("netpath is attached"))
        })?;
        Ok(begun.elapsed())
    }

    /// Runs [`Self::detach`], and gives the time that it took.
    ///
    /// # Errors
    /// When it fails.
    pub fn detach_timed(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.detach()?;
        Ok(begun.elapsed())
    }

    /// The daemon's memory and time.
    ///
    /// # Errors
    /// When no daemon runs.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.daemon.as_ref().context("no daemon runs")?.id())
    }

    /// Runs `netpath detach` and waits for the end of the daemon, which it stops.
    ///
    /// # Errors
    /// When it fails.
    pub fn detach(&mut self) -> Result<()> {
        self.expect_code(&["detach"], 0)?;
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        shell::wait_for_exit(&mut daemon, STOP_DEADLINE).context("wait for the daemon that detach has stopped")?;
        Ok(())
    }

    /// Detaches, and removes the pins whatever becomes of that.
    ///
    /// # Errors
    /// When detaching fails or the pins can't be removed.
    pub fn remove(&mut self) -> Result<()> {
        let detached = self.detach();
        self.remove_by_force();
        detached
    }

    /// What to show with a failure: counters that aren't zero, and the end of the log.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let counters = self.status().map_or_else(
            |error| format!("no status: {error:#}"),
            |status| {
                let traffic = status.traffic.into_iter().map(|(way, traffic)| (way, traffic.packets));
                let counted: Vec<_> = traffic.chain(status.drops).filter(|(_, packets)| *packets > 0).collect();
                format!("packets by way and by reason of a drop: {counted:?}")
            },
        );
        format!("{counters}\n{}", self.log_tail())
    }

    /// What the daemon has logged so far, all of its starts in this lab included.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("read the daemon's log")
    }

    fn log_tail(&self) -> String {
        format!("the daemon's log ends with:\n{}", tail(&self.log, LOG_LINES))
    }

    /// Starts the daemon again without waiting for anything.
    ///
    /// # Errors
    /// When it runs, or can't be started.
    pub fn start_daemon(&mut self) -> Result<()> {
        ensure!(!self.is_running()?, "the daemon is running already");
        let log = File::options().create(true).append(true).open(&self.log).context("open the daemon's log")?;
        let words: &[&str] = if self.options.chooses_uplinks { &["run"] } else { &["run", "--uplink", "eth0"] };
        let mut command = self.command(words);
        command.args(&self.options.words).stdin(Stdio::null());
        command.stdout(log.try_clone().context("duplicate the log")?).stderr(log);
        self.daemon = Some(command.spawn().with_context(|| format!("start {}", self.binary.display()))?);
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<i32> {
        ensure!(self.is_running()?, "the daemon isn't running");
        let mut daemon = self.daemon.take().context("the daemon isn't running")?;
        kill(Pid::from_raw(daemon.id().cast_signed()), signal).context("signal the daemon")?;
        let status = shell::wait_for_exit(&mut daemon, STOP_DEADLINE);
        if status.is_err() {
            daemon.kill().context("kill the daemon")?;
            daemon.wait().context("reap the daemon")?;
        }
        Ok(shell::code(status.with_context(|| format!("after {signal}"))?))
    }

    fn remove_by_force(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        if let Err(error) = run::remove_directory(&self.pins) {
            eprintln!("{} is left: {error:#}", self.pins.display());
        }
    }
}

impl Drop for Netpath {
    fn drop(&mut self) {
        self.remove_by_force();
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("read {text:?}"))
}
