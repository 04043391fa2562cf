//! What a process costs: its memory and its time on the CPUs, as the kernel tells them.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process's memory and time.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident now, in bytes.
    pub resident: u64,
    /// The most that has ever been resident, in bytes.
    pub resident_most: u64,
    /// Time on the CPUs so far, which the kernel counts in ticks of some milliseconds.
    pub cpu: Duration,
}

impl Usage {
    /// Reads a process's.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        // "NAME:   VALUE kB"
        let bytes = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("find {name}"))?;
            Ok(value.parse::<u64>().with_context(|| format!("read {name} {value:?}"))? * 1024)
        };
        // "PID (NAME) STATE PPID ...": the name may hold blanks; user and system time are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(") ").context("read the process's times")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel doesn't tell its clock ticks")?;
        let cpu = Duration::from_millis(ticks * 1000 / u64::try_from(per_second)?);
        Ok(Self { resident: bytes("VmRSS:")?, resident_most: bytes("VmHWM:")?, cpu })
    }
}
