//! The lab: a Docker host and its network neighbour, made of two network namespaces of this machine.
//!
//! ```text
//!    namespace `lan`                       namespace `host`
//!    203.0.113.80  "the world"             dockerd, netpath, docker0 172.17.0.1
//!    198.51.100.2  eth0 <----- a wire -----> eth0 198.51.100.1
//!                                                  web     8080->80/tcp, 5353/udp
//!                                                  client
//! ```
//!
//! The addresses are documentation's (RFC 5737). All files are under [`DIRECTORY`], whose state file says what else
//! was made, so that even a lab whose xtask was killed is cleared away, and nothing that somebody else made.

/// Prints a line. Nobody may be listening any more (`| head`, a terminal that is gone): that is no reason to stop
/// half-way, which `println!` would.
macro_rules! say {
    ($($line:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($line)*))).ok()
    };
}

/// The same to standard error.
macro_rules! complain {
    ($($line:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($line)*))).ok()
    };
}

mod cleaning;
mod daemon;
mod docker;
mod image;
mod interrupt;
mod network;
mod plain;
mod proof;
mod state;
mod traffic;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use daemon::Daemon;
use interrupt::Interrupt;
use state::State;

/// Everything of the lab that is a file.
const DIRECTORY: &str = "/run/netpath-lab";

/// Where the lab's netpath pins its maps and links.
const PIN_DIRECTORY: &str = "/sys/fs/bpf/netpath-lab";

/// What to do in the lab.
pub(crate) struct Plan {
    /// The netpath to run; without one Docker's own rules carry the traffic.
    pub(crate) netpath: Option<PathBuf>,
    /// More arguments for `netpath run`.
    pub(crate) netpath_arguments: Vec<OsString>,
    /// What the containers are.
    pub(crate) containers: Containers,
    /// How long the lab stays.
    pub(crate) stay: Stay,
}

/// What the lab's containers are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Containers {
    /// Those of a dockerd.
    Docker,
    /// Plain network namespaces, where docker.io isn't to be had.
    Namespaces,
}

/// What runs the containers.
enum Engine {
    Docker(docker::Docker),
    Plain(plain::Plain),
}

impl Engine {
    fn start(containers: Containers, state: &mut State, interrupt: &Interrupt) -> Result<Self> {
        if containers == Containers::Namespaces {
            say!("lab: a bridge in `host`, plain namespaces as containers `web` and `client`");
            return Ok(Self::Plain(plain::Plain::start(state, interrupt)?));
        }
        say!("lab: a dockerd in `host`, an image of busybox, containers `web` and `client`");
        let docker = docker::Docker::start(interrupt)?;
        docker.make_image()?;
        docker.run_containers(state)?;
        Ok(Self::Docker(docker))
    }

    /// A shell command in a container.
    fn exec(&self, container: &str, line: &str) -> Command {
        match self {
            Self::Docker(docker) => docker.command(["exec", container, "sh", "-c", line]),
            Self::Plain(plain) => plain.exec(container, line),
        }
    }

    /// A container's address.
    fn address(&self, container: &str) -> Result<String> {
        match self {
            Self::Docker(docker) => docker.address(container),
            Self::Plain(plain) => Ok(plain.address(container)),
        }
    }
}

/// How long the lab stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Until the demonstration is over.
    UntilShown,
    /// Until Ctrl-C or SIGTERM.
    UntilInterrupted,
}

/// Makes the lab, shows netpath at work in it and takes it away again, whatever happens in between.
pub(crate) fn main(plan: &Plan) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let mut state = State::claim()?;
    let shown = show(plan, &mut state, &interrupt);
    if shown.is_err() {
        logs();
    }
    say!("\nlab: taking everything away that was made");
    let cleaned = cleaning::clean(&state, plan.netpath.as_deref());
    shown.context("the lab")?;
    cleaned.context("taking the lab away")
}

fn show(plan: &Plan, state: &mut State, interrupt: &Interrupt) -> Result<()> {
    say!("lab: network namespaces `host` and `lan` with a wire between them");
    network::make(state)?;
    let engine = Engine::start(plan.containers, state, interrupt)?;
    traffic::serve(interrupt)?;
    let daemon = match &plan.netpath {
        Some(netpath) => {
            say!("lab: netpath in `host`, on eth0");
            Some(Daemon::start(netpath, &plan.netpath_arguments, state, interrupt)?)
        }
        None => None,
    };
    let passed = demonstrate(&engine, daemon.as_ref(), interrupt);
    if interrupt.came() {
        return Ok(());
    }
    passed?;
    if plan.stay == Stay::UntilInterrupted {
        hints(&engine, daemon.as_ref());
        interrupt.wait();
    }
    Ok(())
}

/// Sends the traffic and shows who carried it.
fn demonstrate(engine: &Engine, daemon: Option<&Daemon>, interrupt: &Interrupt) -> Result<()> {
    let before = proof::Witness::ask()?;
    say!("\nreal traffic, and what the other end saw:");
    let passed = traffic::send(engine, interrupt);
    let after = proof::Witness::ask()?;
    if let Some(daemon) = daemon {
        daemon.show()?;
    }
    say!("\nwhat the kernel's own NAT did meanwhile:");
    let kernel = proof::compare(&before, &after);
    say!("{kernel}");
    passed?;
    if daemon.is_some() {
        kernel.is_idle()?;
        say!("\nall of this traffic went its way, and netpath carried it");
    }
    Ok(())
}

fn hints(engine: &Engine, daemon: Option<&Daemon>) {
    say!("\nthe lab stays until Ctrl-C. Try, in another terminal (as root):");
    say!(
        "  nsenter --net=/run/netns/lan busybox wget -qO- http://{}:8080/cgi-bin/who     the container sees you",
        network::HOST
    );
    let ask = format!("wget -qO- http://{}:8000/cgi-bin/who", network::WORLD);
    match engine {
        Engine::Docker(_) => {
            say!("  docker -H {} exec -it client sh     then: {ask}", docker::HOST);
            say!("  docker -H {} run --rm -p 8081:80 netpath-lab httpd -f -p 80 -h /www", docker::HOST);
        }
        Engine::Plain(_) => {
            say!("  nsenter --net=/run/netns/{} busybox {ask}", plain::namespace("client"));
        }
    }
    say!("  nsenter --net=/run/netns/host conntrack -L     what the kernel tracks itself");
    if let Some(daemon) = daemon {
        for verb in ["status", "ct ls", "ports", "drops"] {
            say!("  {} {verb}", daemon.command_line());
        }
        say!("  its log: {}", daemon.log().display());
    }
}

/// The last words of every program that the lab started.
fn logs() {
    let Ok(files) = std::fs::read_dir(DIRECTORY) else { return };
    for file in
        files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"))
    {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().collect::<Vec<_>>();
        if lines.is_empty() {
            continue;
        }
        complain!("-- {} (its end)", file.display());
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            complain!("   {line}");
        }
    }
}
