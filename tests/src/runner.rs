//! Runs the system tests: one lab per mode, shared by the tests of that mode and built anew after a failure.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use netpath_common::abi::Mode;

use crate::case::{Case, Needs};
use crate::engine::Engine;
use crate::lab::{Dataplane, Lab};
use crate::{run, shell};

/// Programs that the labs use, and the Debian packages they come in.
const TOOLS: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("conntrack", "conntrack"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("dockerd", "docker.io"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iptables-save", "iptables"),
    ("ldd", "libc-bin"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("tar", "tar"),
    ("tc", "iproute2"),
];

const MODES: [Mode; 2] = [Mode::Takeover, Mode::Sole];

/// Runs the cases.
///
/// `peer` is the program for the containers, `workspace` the directory in which `target` is looked for.
#[must_use]
pub fn main(cases: &[Case], peer: &Path, workspace: &Path) -> ExitCode {
    // One after the other: they share labs, and each measures what the other would disturb.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let prepared = prepare(workspace).map_err(|error| format!("{error:#}"));
    let dataplane = prepared.as_ref().ok().cloned();
    let compares = matches!(dataplane, Some(Dataplane::Docker));
    let labs = Arc::new(Labs { current: Mutex::new(None), prepared, peer: peer.to_owned() });
    let mut trials = Vec::new();
    for (engine, mode) in Engine::ALL.into_iter().flat_map(|engine| MODES.map(|mode| (engine, mode))) {
        for case in cases.iter().copied().filter(|case| case.runs_in(mode, engine)) {
            let labs = Arc::clone(&labs);
            // Docker without its rules has nothing to compare with.
            let ignored = compares && (mode == Mode::Sole || case.needs != Needs::Dataplane);
            let name = match engine {
                Engine::Installed => format!("{}: {}", mode.name(), case.name),
                Engine::Newer(newer) => format!("{}, engine {}: {}", mode.name(), newer.version, case.name),
            };
            trials.push(Trial::test(name, move || labs.run(case, mode, engine)).with_ignored_flag(ignored));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    labs.close();
    conclusion.exit_code()
}

/// Checks what every test needs. Something missing fails the tests: a test that was not run has not passed.
///
/// # Errors
/// With what is missing.
pub fn prepare(workspace: &Path) -> Result<Dataplane> {
    ensure!(nix::unistd::geteuid().is_root(), "the system tests need root: run them with sudo, or `cargo xtask test`");
    let missing: Vec<_> = TOOLS.iter().filter(|(program, _)| !shell::is_installed(program)).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    ensure!(missing.is_empty(), "{missing:?} are missing: run `cargo xtask setup`, or install {}", packages.join(" "));
    run::remove_dead().context("remove what earlier runs left")?;
    match std::env::var("NETPATH_DATAPLANE").as_deref() {
        Ok("docker") => return Ok(Dataplane::Docker),
        Ok("netpath") | Err(_) => {}
        Ok(other) => bail!("NETPATH_DATAPLANE is {other:?}, which is neither \"netpath\" nor \"docker\""),
    }
    binary(workspace).map(Dataplane::Netpath)
}

/// The binary under test: $NETPATH_BIN, else the release build, else the debug build.
fn binary(workspace: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NETPATH_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "NETPATH_BIN names {}, which is no file", path.display());
        return path.canonicalize().context("resolve NETPATH_BIN");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let candidates = [target.join("release/netpath"), target.join("debug/netpath")];
    let found = candidates.into_iter().find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no netpath in {}: build it with `cargo xtask build --release`", target.display())
    })
}

#[derive(Debug)]
struct Labs {
    current: Mutex<Option<Lab>>,
    prepared: Result<Dataplane, String>,
    peer: PathBuf,
}

// The containers' handles and the lab are used by one thread at a time, under the lock.
impl Labs {
    fn run(&self, case: Case, mode: Mode, engine: Engine) -> Result<(), Failed> {
        let _watchdog = Watchdog::start(case);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A lab of another kind, or one in which a test panicked, ends before the next begins.
        let mut lab = match current.take() {
            Some(lab) if lab.mode() == mode && lab.engine() == engine => lab,
            other => {
                drop(other);
                self.lab(mode, engine).map_err(|error| format!("build the lab: {error:#}"))?
            }
        };
        match run_in(&mut lab, case) {
            Ok(()) => {
                *current = Some(lab);
                Ok(())
            }
            Err(error) => Err(format!("{error:#}\n\n{}", lab.diagnosis()).into()),
        }
    }

    fn lab(&self, mode: Mode, engine: Engine) -> Result<Lab> {
        let dataplane = self.prepared.clone().map_err(anyhow::Error::msg)?;
        Lab::create(mode, engine, dataplane, &self.peer)
    }

    fn close(&self) {
        drop(self.current.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Runs a test, and undoes what it did to netpath as a part of it: what fails there is this test's failure.
fn run_in(lab: &mut Lab, case: Case) -> Result<()> {
    match case.needs {
        Needs::Dataplane | Needs::Netpath => lab.ensure_netpath().context("before the test")?,
        Needs::OwnNetpath => lab.remove_netpath().context("before the test")?,
    }
    (case.run)(lab)?;
    if case.needs == Needs::OwnNetpath {
        lab.remove_netpath().context("after the test")?;
    }
    Ok(())
}

/// Ends the whole run when a test doesn't end.
struct Watchdog {
    // Dropped with the watchdog, which ends the thread.
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(Case { name, deadline, .. }: Case) -> Self {
        let (alive, ended) = mpsc::channel();
        thread::spawn(move || {
            if ended.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                eprintln!("\n\"{name}\" didn't end within {deadline:?}: giving up, and removing what this run made");
                if let Err(error) = run::remove_own() {
                    eprintln!("{error:#}");
                }
                std::process::exit(101);
            }
        });
        Self { _alive: alive }
    }
}
