//! Where a run was made, for its report.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::shell;

/// The machine, and the versions of what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// When the run began, UTC.
    pub date: String,
    /// The processor's model.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// `dockerd --version`.
    pub docker: String,
    /// `iptables --version`.
    pub iptables: String,
    /// `netpath --version`.
    pub netpath: String,
    /// The load averages (1, 5, 15 minutes) before the run.
    pub load_before: String,
    /// And after it; the run itself adds about 2.
    pub load_after: String,
}

impl Machine {
    /// Looks.
    ///
    /// # Errors
    /// When something doesn't tell.
    pub fn read(binary: &Path) -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let models = || processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let ask = |words: &[&str]| Ok::<_, anyhow::Error>(shell::run_words(words)?.trim().to_owned());
        Ok(Self {
            date: ask(&["date", "--utc", "+%Y-%m-%d %H:%M"])?,
            cpu: models().next().map_or("unknown", |(_, model)| model).to_owned(),
            cpus: models().count(),
            kernel: ask(&["uname", "--kernel-release"])?,
            docker: ask(&["dockerd", "--version"])?,
            iptables: ask(&["iptables", "--version"])?,
            netpath: ask(&[&binary.to_string_lossy(), "--version"])?,
            load_before: load()?,
            load_after: String::new(),
        })
    }
}

/// The load averages.
///
/// # Errors
/// When they can't be read.
pub fn load() -> Result<String> {
    let all = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(all.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
