//! The programs that stay up during the lab, netpath above all.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::interrupt::Interrupt;
use super::state::State;
use super::{DIRECTORY, PIN_DIRECTORY, docker, network};
use crate::process::{self, command};

const SOCKET: &str = "/run/netpath-lab/netpath.sock";

/// Starts a program that writes to a log of its own. In a process group of its own: Ctrl-C is for us, who end the
/// others in order.
pub(crate) fn spawn(name: &str, mut command: Command) -> Result<Child> {
    let log = log(name);
    let file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let both = file.try_clone().with_context(|| format!("a second handle of {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(both).process_group(0);
    command.spawn().with_context(|| format!("starting `{}`", process::line(&command)))
}

/// An error if it has ended.
pub(crate) fn still_running(name: &str, child: &mut Child) -> Result<()> {
    match child.try_wait().with_context(|| format!("asking for the state of {name}"))? {
        Some(status) => bail!("{name} has ended ({status}); its log: {}", log(name).display()),
        None => Ok(()),
    }
}

fn log(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name).with_extension("log")
}

/// A running netpath.
pub(crate) struct Daemon {
    program: PathBuf,
}

impl Daemon {
    /// Starts it in `host` and waits until it is in step with Docker.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        state: &mut State,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        state.mounts_bpffs = !is_bpffs_mounted();
        state.save()?;
        let daemon = Self { program: program.to_owned() };
        let mut run = daemon.command();
        run.args(["run", "--uplink", "eth0"]).args(arguments).env("DOCKER_HOST", docker::HOST);
        let mut running = spawn("netpath", network::inside("host", &run))?;
        let ready =
            interrupt.until("netpath in step with Docker (`netpath status` = 0)", Duration::from_secs(30), || {
                still_running("netpath", &mut running)?;
                Ok(process::succeeds(daemon.command().arg("status")))
            });
        ready.with_context(|| format!("its log: {}", daemon.log().display()))?;
        Ok(daemon)
    }

    /// What netpath itself says about the traffic.
    pub(crate) fn show(&self) -> Result<()> {
        for verb in [&["status"][..], &["ct", "ls"], &["drops"]] {
            say!("\n$ netpath {}", verb.join(" "));
            process::run(network::inside("host", &self.command()).args(verb))?;
        }
        Ok(())
    }

    /// How to call it from a shell.
    pub(crate) fn command_line(&self) -> String {
        process::line(&self.command())
    }

    /// What it logs.
    pub(crate) fn log(&self) -> PathBuf {
        log("netpath")
    }

    fn command(&self) -> Command {
        let mut netpath = command(&self.program, ["--socket", SOCKET]);
        netpath.args(["--pin-dir", PIN_DIRECTORY]);
        netpath
    }
}

/// Removes all that the lab's netpath has in the kernel, and ends it if it runs.
pub(crate) fn detach(program: &Path) -> Result<()> {
    process::read(Daemon { program: program.to_owned() }.command().arg("detach").env("DOCKER_HOST", docker::HOST))?;
    Ok(())
}

/// Whether `/sys/fs/bpf` has its file system.
fn is_bpffs_mounted() -> bool {
    process::read(&mut process::words("stat --file-system --format=%T /sys/fs/bpf"))
        .is_ok_and(|kind| kind.trim() == "bpf_fs")
}
