//! The benchmark, as root: see [`netpath_tests::bench`]. `cargo xtask bench` builds and runs it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use netpath_tests::bench::measure::all;
use netpath_tests::bench::pinned::{Pace, Priority};
use netpath_tests::bench::plan::Plan;
use netpath_tests::bench::quiet::Patience;
use netpath_tests::bench::{Bench, gate, report};
use netpath_tests::lab::Dataplane;
use netpath_tests::runner;

/// Measures netpath ($NETPATH_BIN, else the release build) against Docker's iptables and others, by turns, in labs of its
/// own.
#[derive(Parser)]
#[command(name = "netpath-bench")]
struct Arguments {
    /// Rounds that count; in each, all of them carry every measure once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Only iptables and netpath, short samples, nothing that grows: a few minutes.
    #[arg(long)]
    quick: bool,
    /// Only this measure; repeatable.
    #[arg(long, value_name = "NAME", value_parser = names())]
    only: Vec<String>,
    /// Seconds of the whole run to spend on waiting until other programs leave the CPUs alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Run the load at real-time priority: for a machine that others use.
    #[arg(long)]
    realtime: bool,
    /// Where samples.json, report.md and the plots go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Fail when a ratio got worse than in the samples.json of an earlier run.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = all().iter().map(|measure| measure.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nnetpath-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.compare {
        ensure!(file.is_file(), "{} isn't there", file.display());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Dataplane::Netpath(binary) = runner::prepare(&workspace)? else {
        bail!("NETPATH_DATAPLANE=docker leaves nothing to compare: unset it");
    };
    let peer = std::env::current_exe().context("find this program")?.with_file_name("netpath-peer");
    ensure!(
        peer.is_file(),
        "{} isn't there: build with `cargo build --release --package netpath-tests --bins`",
        peer.display()
    );
    let plan = Plan::choose(&arguments.only, arguments.quick, usize::from(arguments.rounds))?;
    let priority = if arguments.realtime { Priority::Realtime } else { Priority::Normal };
    let pace = if arguments.quick { Pace::Quick } else { Pace::Full };
    let mut bench = Bench::create(&binary, &peer, priority, pace)?;
    let patience = Patience::new(Duration::from_secs(arguments.patience));
    let outcome = bench.run(&plan, patience, |outcome| report::write(&arguments.out, outcome, &plan))?;
    drop(bench);
    print!("{}", report::table(&outcome, &plan));
    eprintln!("samples.json, report.md and the plots are in {}", arguments.out.display());
    let failed = &outcome.failed;
    ensure!(failed.is_empty(), "{} samples couldn't be taken:\n{}", failed.len(), failed.join("\n"));
    arguments.compare.as_ref().map_or(Ok(()), |file| {
        let (worse, compared) = gate::regressions(file, &outcome.samples, &plan.measures)?;
        ensure!(worse.is_empty(), "worse than in {}:\n{}", file.display(), worse.join("\n"));
        eprintln!("none of {compared} ratios is worse than in {}", file.display());
        Ok(())
    })
}
