//! One run of the tests: its name, its directory, and what dead earlier runs left behind.
//!
//! Everything that a run makes carries its name: `np-PID` begins the name of each namespace and directory, and every
//! process has it in its environment. So what a killed run left can be found, and nothing else is ever touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{shell, wait};

/// The environment variable that marks every process of a run, through dockerd down to those in containers.
pub const MARK: &str = "NETPATH_TEST_RUN";

const PREFIX: &str = "np-";
const NAMESPACES: &str = "/run/netns";
const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
const PIN_PREFIX: &str = "np-test-";

/// The name of this run.
#[must_use]
pub fn name() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// The directory under which a lab of this run keeps its files. Short: unix sockets lie in it.
#[must_use]
pub fn directory(lab: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{}-{lab}", name()))
}

/// The directory in which netpath pins its maps for a lab of this run.
#[must_use]
pub fn pin_directory(lab: &str) -> PathBuf {
    Path::new(BPF_FILESYSTEM).join(format!("{PIN_PREFIX}{}-{lab}", std::process::id()))
}

/// Marks a command, and all that descends from it, as part of this run.
pub fn mark(command: &mut Command) -> &mut Command {
    command.env(MARK, name())
}

/// Ends the processes and removes the directories and namespaces of this run, for a run that can't end orderly.
///
/// # Errors
/// When something can't be removed; the rest is.
pub fn remove_own() -> Result<()> {
    remove(std::process::id())
}

/// Removes what runs left whose process is gone.
///
/// # Errors
/// When something can't be removed.
pub fn remove_dead() -> Result<()> {
    let mut dead: Vec<u32> = [PathBuf::from(NAMESPACES), std::env::temp_dir(), PathBuf::from(BPF_FILESYSTEM)]
        .iter()
        .flat_map(|folder| entries(folder))
        .filter_map(|path| owner(&path))
        .filter(|pid| !Path::new("/proc").join(pid.to_string()).exists())
        .collect();
    dead.sort_unstable();
    dead.dedup();
    for pid in dead {
        eprintln!("removing what the dead run {PREFIX}{pid} left");
        remove(pid)?;
    }
    Ok(())
}

fn remove(pid: u32) -> Result<()> {
    end_processes(&format!("{MARK}={PREFIX}{pid}"))?;
    for path in entries(Path::new(BPF_FILESYSTEM)).chain(entries(&std::env::temp_dir())) {
        if owner(&path) == Some(pid) {
            remove_directory(&path)?;
        }
    }
    for path in entries(Path::new(NAMESPACES)).filter(|path| owner(path) == Some(pid)) {
        let name = path.file_name().and_then(|name| name.to_str()).context("read the namespace's name")?;
        shell::run_words(&["ip", "netns", "delete", name])?;
    }
    Ok(())
}

/// Removes a directory and what is mounted in it.
///
/// # Errors
/// When something in it is still in use.
pub fn remove_directory(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let inside =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|mount| Path::new(mount).starts_with(path));
    // Backwards: what was mounted last may lie in what was mounted before.
    for mount in inside.collect::<Vec<_>>().into_iter().rev() {
        shell::run_words(&["umount", "--lazy", mount])?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Ends every process, but this one, that has an entry in its environment.
fn end_processes(entry: &str) -> Result<()> {
    wait::until(&format!("the processes with {entry} to end"), Duration::from_secs(10), || {
        let marked = marked_processes(entry);
        for pid in &marked {
            match kill(*pid, Signal::SIGKILL) {
                // It has ended by itself meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("kill process {pid}")),
            }
        }
        ensure!(marked.is_empty(), "{marked:?} are still there");
        Ok(())
    })
}

fn marked_processes(entry: &str) -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    entries(Path::new("/proc"))
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
        })
        .map(Pid::from_raw)
        .collect()
}

/// The process number in the name of something that a run has made.
fn owner(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_prefix(PIN_PREFIX).or_else(|| name.strip_prefix(PREFIX))?;
    rest.split('-').next()?.parse().ok()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}
