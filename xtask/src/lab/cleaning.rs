//! Takes a lab away: everything that its state and its directory name, and nothing else. It goes on after an error
//! and tells all of them.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::state::{Process, State};
use super::{DIRECTORY, PIN_DIRECTORY, daemon, docker};
use crate::process::{self, words};

const GRACE: Duration = Duration::from_secs(15);

/// Takes the lab away. `netpath` is the program that ran in it, if it is known.
pub(crate) fn clean(state: &State, netpath: Option<&Path>) -> Result<()> {
    let mut errors = Vec::new();
    let mut step = |what: &str, done: Result<()>| {
        if let Err(error) = done {
            errors.push(format!("{what}: {error:#}"));
        }
    };
    if let Some(netpath) = netpath
        && Path::new(PIN_DIRECTORY).exists()
    {
        step("netpath detach", daemon::detach(netpath));
    }
    if let Some(dockerd) = docker::running() {
        step("containers", docker::remove_containers());
        step("dockerd", end(&[dockerd]));
    }
    step("processes", end(&processes(state)));
    step("namespaces", delete_namespaces(state));
    step("pins", remove_pins());
    step("BPF file system", unmount_bpffs(state));
    step("mounts", unmount_all());
    if errors.is_empty() {
        // Last, because the state file in it is what another attempt needs.
        return fs::remove_dir_all(DIRECTORY).with_context(|| format!("removing {DIRECTORY}"));
    }
    bail!("{}", errors.join("; "))
}

/// What still lives of the lab: all processes in its namespaces, and the containers' first ones.
fn processes(state: &State) -> Vec<Process> {
    let mut processes = state.containers.clone();
    for name in &state.namespaces {
        let pids = process::read(&mut words(&format!("ip netns pids {name}"))).unwrap_or_default();
        processes.extend(pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Process::of));
    }
    processes
}

/// SIGTERM, and SIGKILL for those that take too long.
fn end(processes: &[Process]) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in processes.iter().filter(|process| process.is_alive()) {
            // It may end by itself in between.
            kill(Pid::from_raw(process.pid), signal).ok();
        }
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if !processes.iter().any(|process| process.is_alive()) {
                bury(processes);
                return Ok(());
            }
            sleep(Duration::from_millis(50));
        }
    }
    let left = processes.iter().filter(|process| process.is_alive()).map(|process| process.pid.to_string());
    bail!("these don't end: {}", left.collect::<Vec<_>>().join(", "))
}

/// Takes those that we started ourselves out of the process table.
fn bury(processes: &[Process]) {
    for process in processes {
        waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG)).ok();
    }
}

fn delete_namespaces(state: &State) -> Result<()> {
    for name in state.namespaces.iter().filter(|name| Path::new("/run/netns").join(name).exists()) {
        process::read(&mut words(&format!("ip netns delete {name}")))?;
    }
    Ok(())
}

/// The pins of a netpath that could not detach by itself. Removing a pinned link detaches its program.
fn remove_pins() -> Result<()> {
    if !Path::new(PIN_DIRECTORY).exists() {
        return Ok(());
    }
    fs::remove_dir_all(PIN_DIRECTORY).with_context(|| format!("removing {PIN_DIRECTORY}"))
}

/// If netpath had to mount it and nobody else has begun to use it.
fn unmount_bpffs(state: &State) -> Result<()> {
    let place = Path::new("/sys/fs/bpf");
    let is_empty = || fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    if !state.mounts_bpffs || !is_mounted(place) || !is_empty() {
        return Ok(());
    }
    umount2(place, MntFlags::empty()).context("unmounting /sys/fs/bpf")
}

/// dockerd's own mounts, the innermost first.
fn unmount_all() -> Result<()> {
    for point in mount_points()?.iter().rev().filter(|point| Path::new(point).starts_with(DIRECTORY)) {
        umount2(point.as_str(), MntFlags::MNT_DETACH).with_context(|| format!("unmounting {point}"))?;
    }
    Ok(())
}

fn is_mounted(place: &Path) -> bool {
    mount_points().is_ok_and(|points| points.iter().any(|point| Path::new(point) == place))
}

fn mount_points() -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}
