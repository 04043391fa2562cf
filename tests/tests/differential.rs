//! The differential tier: netpath against Docker's own rules, packet by packet.
//!
//! Needs root and Docker; `cargo xtask test` sees to both. NETPATH_DIFFERENTIAL_SEEDS says how many seeds are played,
//! NETPATH_DIFFERENTIAL_FIRST with which one it begins: a failure is replayed by its seed alone.
//!
//!     NETPATH_DIFFERENTIAL_FIRST=4711 NETPATH_DIFFERENTIAL_SEEDS=1 cargo test --package netpath-tests --test differential

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use netpath_common::abi::Mode;
use netpath_tests::differential::session;
use netpath_tests::lab::Dataplane;
use netpath_tests::runner;

/// Seeds of a normal run, half of them in each mode.
const SEEDS: u64 = 20_000;

/// So many sequences show every kind of packet.
const ENOUGH: usize = 500;

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trial = |mode: Mode| {
        let name = format!("{}: generated packets come out of netpath as out of Docker's rules", mode.name());
        Trial::test(name, move || compare(mode).map_err(|error| Failed::from(format!("{error:#}"))))
    };
    libtest_mimic::run(&arguments, vec![trial(Mode::Takeover), trial(Mode::Sole)]).exit_code()
}

fn compare(mode: Mode) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let peer = Path::new(env!("CARGO_BIN_EXE_netpath-peer"));
    let dataplane = runner::prepare(&workspace)?;
    if dataplane == Dataplane::Docker {
        bail!("NETPATH_DATAPLANE=docker leaves nothing to compare");
    }
    let findings = session::run(mode, &dataplane, peer, &seeds(mode)?)?;
    println!("{}: {}", mode.name(), findings.summary());
    // A few sequences, as in a replay, don't show everything.
    if findings.sequences >= ENOUGH {
        findings.self_check.check()?;
    }
    findings.check()
}

/// The seeds of a mode. A single one is played in both.
fn seeds(mode: Mode) -> Result<Vec<u64>> {
    let (first, count) = (number("NETPATH_DIFFERENTIAL_FIRST", 0)?, number("NETPATH_DIFFERENTIAL_SEEDS", SEEDS)?);
    let all = first..first + count;
    let parity = u64::from(mode == Mode::Sole);
    Ok(all.filter(|seed| count == 1 || seed % 2 == parity).collect())
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is {text:?}, not a number")),
        Err(_) => Ok(default),
    }
}
