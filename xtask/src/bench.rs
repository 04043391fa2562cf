//! `cargo xtask bench`: netpath against Docker's iptables and its other peers.
//!
//! Everything is built as the user; only the benchmark itself runs as root.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::build::{Profile, build};
use crate::cargo::{Metadata, cargo};
use crate::{process, setup};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds that count, after one that doesn't.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u16,
    /// Only iptables and netpath, short samples, nothing that grows: a few minutes.
    #[arg(long)]
    quick: bool,
    /// Only this measure; repeatable. A wrong name lists the right ones.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of the whole run to spend on waiting until other programs leave the CPUs alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Run the load at real-time priority: for a machine that others use.
    #[arg(long)]
    realtime: bool,
    /// Where samples.json, report.md and the plots go [default: target/bench].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fail when a ratio got worse than in the samples.json of an earlier run.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Need::Tests)?;
    let netpath = build(Profile::Release)?;
    process::run(cargo("build").args(["--release", "--package", "netpath-tests", "--bins"]))?;
    let target = Metadata::read()?.target_directory;
    let mut bench = Command::new(target.join("release/netpath-bench"));
    bench.args(["--rounds", &arguments.rounds.to_string(), "--patience", &arguments.patience.to_string()]);
    bench.arg("--out").arg(arguments.out.clone().unwrap_or_else(|| target.join("bench")));
    if let Some(file) = &arguments.compare {
        bench.arg("--compare").arg(file);
    }
    for name in &arguments.only {
        bench.args(["--only", name]);
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    if arguments.realtime {
        bench.arg("--realtime");
    }
    bench.env("NETPATH_BIN", &netpath).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    process::run(&mut process::privileged(bench)?)
}
