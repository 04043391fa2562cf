//! What the lab has made outside its directory, written down before it is made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{DIRECTORY, cleaning};

/// The state file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// The xtask of this lab.
    owner: Process,
    /// Names of network namespaces.
    pub(crate) namespaces: Vec<String>,
    /// The first processes of the containers: they live in namespaces that Docker made.
    pub(crate) containers: Vec<Process>,
    /// Whether the BPF file system was not mounted before.
    pub(crate) mounts_bpffs: bool,
}

/// A process that can't be mistaken for a later one with its number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// When it began, in ticks since boot.
    started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    /// Whether it still runs; a zombie doesn't.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self) && !is_zombie(self.pid)
    }
}

impl State {
    /// Makes the lab's directory ours. What a killed lab has left is cleared away first; a living lab or a stranger's
    /// is not touched.
    pub(crate) fn claim() -> Result<Self> {
        let file = file();
        if file.exists() {
            let left = Self::load(&file)?;
            if left.owner.is_alive() {
                bail!("a lab is running already (process {}); Ctrl-C there or `kill {0}` ends it", left.owner.pid);
            }
            say!("lab: clearing away what an earlier lab has left");
            cleaning::clean(&left, None).context("clearing away an earlier lab")?;
        }
        if Path::new(DIRECTORY).exists() {
            bail!("{DIRECTORY} exists and has no state file of a lab: look at what it is, and remove it");
        }
        let own = i32::try_from(std::process::id()).ok().and_then(Process::of).context("reading /proc/self/stat")?;
        let state = Self { owner: own, ..Self::default() };
        fs::create_dir(DIRECTORY).with_context(|| format!("making {DIRECTORY}"))?;
        state.save()?;
        Ok(state)
    }

    /// Writes it down, whole or not at all.
    pub(crate) fn save(&self) -> Result<()> {
        let new = file().with_extension("new");
        let text = serde_json::to_string_pretty(self).context("the lab's state as JSON")?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, file()))
            .with_context(|| format!("writing {}", file().display()))
    }

    fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not the state of a lab", file.display()))
    }
}

fn file() -> PathBuf {
    Path::new(DIRECTORY).join("state.json")
}

/// The 22nd field; the second, the program's name, may hold blanks and brackets.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_program_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 11 12";
        assert_eq!(started(stat), Some(98765));
    }

    #[test]
    fn this_process_lives_and_one_that_began_at_another_time_does_not() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
    }
}
