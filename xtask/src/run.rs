//! `cargo xtask run`: netpath on this machine's Docker, or in a lab of its own if there is none.
//!
//! Building happens as the user; only then, if need be, the same verb starts again as root with what was built.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use anyhow::{Context as _, Result, bail};

use crate::build::{Profile, build};
use crate::{lab, process, setup};

/// Arguments of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Make the lab even if this machine has a Docker daemon.
    #[arg(long)]
    lab: bool,
    /// End the lab after the demonstration.
    #[arg(long)]
    once: bool,
    /// Make the lab's containers plain network namespaces, as where docker.io can't be installed.
    #[arg(long, conflicts_with = "plain")]
    namespaces: bool,
    /// Leave netpath out of the lab: the same traffic through Docker's own rules, to compare.
    #[arg(long)]
    plain: bool,
    /// A netpath that is built already.
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
    /// Arguments for `netpath run`.
    #[arg(last = true)]
    netpath: Vec<OsString>,
}

impl Arguments {
    /// The lab, once.
    pub(crate) fn demonstration() -> Self {
        Self { lab: true, once: true, namespaces: false, plain: false, built: None, netpath: Vec::new() }
    }
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let wants_lab = arguments.lab || arguments.plain || arguments.once || arguments.namespaces;
    let daemon = if wants_lab { None } else { daemon()? };
    let netpath = match &arguments.built {
        Some(built) => built.clone(),
        None => {
            set_up(daemon.is_some())?;
            build(Profile::Release)?
        }
    };
    if !process::is_root() {
        return again_as_root(&netpath);
    }
    match daemon {
        Some(socket) => on_this_machine(&netpath, &socket, &arguments.netpath),
        None => lab::main(&lab::Plan {
            netpath: (!arguments.plain).then_some(netpath),
            netpath_arguments: arguments.netpath.clone(),
            containers: containers(arguments),
            stay: if arguments.once { lab::Stay::UntilShown } else { lab::Stay::UntilInterrupted },
        }),
    }
}

/// Sets up what is needed; a lab does without docker.io where that can't be installed.
fn set_up(has_docker: bool) -> Result<()> {
    if has_docker {
        return setup::ensure(setup::Need::Build);
    }
    match setup::ensure(setup::Need::Tests) {
        Err(error) if setup::find_tool("dockerd").is_none() => {
            println!("{error:#}\nwithout a dockerd the lab's containers are plain network namespaces");
            setup::ensure(setup::Need::Build)
        }
        result => result,
    }
}

/// A dockerd's, if it can be had at all.
fn containers(arguments: &Arguments) -> lab::Containers {
    if arguments.namespaces || (!arguments.plain && setup::find_tool("dockerd").is_none()) {
        lab::Containers::Namespaces
    } else {
        lab::Containers::Docker
    }
}

/// Becomes `netpath run`: what is left of us would only stand between it and the signals.
fn on_this_machine(netpath: &Path, socket: &Path, arguments: &[OsString]) -> Result<()> {
    let path = netpath.display();
    println!("netpath takes over this machine's Docker ({}).", socket.display());
    println!("  look:  {path} status    {path} ct ls    {path} drops");
    println!(
        "  Ctrl-C ends the daemon; its programs stay in the kernel and carry on, and the next `cargo xtask run` adopts \
         them."
    );
    println!("  undo:  {path} detach    (Docker's own rules carry on from there)\n");
    let error = Command::new(netpath).arg("run").args(arguments).exec();
    Err(error).with_context(|| format!("`{path} run` could not be started"))
}

fn again_as_root(netpath: &Path) -> Result<()> {
    let mut again = Command::new(env::current_exe().context("the path of xtask itself")?);
    again.args(env::args_os().nth(1)).arg("--built").arg(netpath).args(env::args_os().skip(2));
    for name in ["PATH", "DOCKER_HOST", "RUST_LOG"] {
        if let Some(value) = env::var_os(name) {
            again.env(name, value);
        }
    }
    println!("netpath needs root: {}", process::line(&again));
    let error = process::privileged(again)?.exec();
    Err(error).context("sudo could not be started")
}

/// The socket of a Docker daemon that answers. A `DOCKER_HOST` that doesn't is an error: the user means that daemon,
/// not a lab.
fn daemon() -> Result<Option<PathBuf>> {
    let Some(host) = env::var_os("DOCKER_HOST").filter(|host| !host.is_empty()) else {
        let socket = PathBuf::from("/var/run/docker.sock");
        return Ok(answers(&socket).unwrap_or(false).then_some(socket));
    };
    let host = host.to_string_lossy().into_owned();
    let Some(socket) = host.strip_prefix("unix://").map(PathBuf::from) else {
        bail!(
            "DOCKER_HOST is {host}, but netpath must be on Docker's machine: set it to a unix:// socket, or unset it"
        );
    };
    match answers(&socket) {
        Ok(true) => Ok(Some(socket)),
        Ok(false) => bail!("what listens on {host} (DOCKER_HOST) is not a Docker daemon"),
        Err(error) => {
            Err(error).with_context(|| format!("no Docker daemon on {host} (DOCKER_HOST); unset it for a lab"))
        }
    }
}

/// Whether a Docker daemon listens there. One that we may not ask is taken for one: root may.
fn answers(socket: &Path) -> io::Result<bool> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(true),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.") && answer.to_ascii_lowercase().contains("api-version:"))
}
