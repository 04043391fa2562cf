//! The benchmark, as root: see [`netpath_tests::bench`]. `cargo xtask bench` builds and runs it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use netpath_tests::bench::measure::MEASURES;
use netpath_tests::bench::quiet::Patience;
use netpath_tests::bench::{Bench, report};
use netpath_tests::lab::Dataplane;
use netpath_tests::runner;

/// Measures netpath ($NETPATH_BIN, else the release build) against Docker's iptables, by turns, in a lab of its own.
#[derive(Parser)]
#[command(name = "netpath-bench")]
struct Arguments {
    /// Rounds that count; in each, both carry every measure once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Only this measure; repeatable.
    #[arg(long, value_name = "NAME", value_parser = MEASURES.iter().map(|measure| measure.name).collect::<Vec<_>>())]
    only: Vec<String>,
    /// Seconds of the whole run to spend on waiting until other programs leave the CPUs alone.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Where samples.json and report.md go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
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
    let chosen = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let measures: Vec<_> = MEASURES.iter().copied().filter(|measure| chosen(measure.name)).collect();
    let rounds = usize::from(arguments.rounds);
    let mut bench = Bench::create(&binary, &peer).context("build the lab")?;
    let outcome = bench.run(&measures, rounds, Patience::new(Duration::from_secs(arguments.patience)))?;
    print!("{}", report::table(&outcome, &measures));
    report::write(&arguments.out, &outcome, &measures, rounds)?;
    eprintln!("samples.json and report.md are in {}", arguments.out.display());
    Ok(())
}
