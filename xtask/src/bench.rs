//! `cargo xtask bench`: netpath against Docker's iptables.
//!
//! Everything is built as the user; only the benchmark itself runs as root.

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
    /// Only this measure; repeatable. A wrong name lists the right ones.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of the whole run to spend on waiting until other programs leave the CPUs alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Need::Tests)?;
    let netpath = build(Profile::Release)?;
    process::run(cargo("build").args(["--release", "--package", "netpath-tests", "--bins"]))?;
    let target = Metadata::read()?.target_directory;
    let mut bench = Command::new(target.join("release/netpath-bench"));
    bench.args(["--rounds", &arguments.rounds.to_string(), "--patience", &arguments.patience.to_string()]);
    bench.arg("--out").arg(target.join("bench"));
    for name in &arguments.only {
        bench.args(["--only", name]);
    }
    bench.env("NETPATH_BIN", &netpath).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    process::run(&mut process::privileged(bench)?)
}
