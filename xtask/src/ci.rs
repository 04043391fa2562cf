//! `cargo xtask ci`: what CI checks, in the order in which it is cheapest to fail.

use std::env;

use anyhow::Result;

use crate::cargo::{Metadata, cargo};
use crate::tally::Tally;
use crate::toolchain::{self, Machine};
use crate::{process, run, setup, test};

/// The verb.
pub(crate) fn main() -> Result<()> {
    setup::ensure(setup::Need::Checks)?;
    let mut tally = Tally::default();
    tally.step("formatting", || {
        process::run(cargo("fmt").args(["--all", "--check"]))?;
        process::run(cargo("fmt").args(["--manifest-path", "fuzz/Cargo.toml", "--check"]))
    });
    tally.step("lints of the host's code", lint_host);
    tally.step("lints of the eBPF programs", lint_programs);
    tally.step("licences and sources of the dependencies", deny);
    tally.close("checks")?;
    test::main(&test::Arguments::default())?;
    let mut tally = Tally::default();
    tally.step("demonstration: cargo xtask run", || run::main(&run::Arguments::demonstration()));
    tally.close("demonstration")
}

fn lint_host() -> Result<()> {
    let mut clippy = cargo("clippy");
    clippy.args(["--workspace", "--exclude", "netpath-ebpf", "--all-targets", "--locked", "--", "--deny", "warnings"]);
    process::run(&mut clippy)
}

/// For the BPF target if the compiler that builds them has clippy with it, else for the host, for which aya-ebpf
/// compiles too.
fn lint_programs() -> Result<()> {
    let toolchain = toolchain::find(&Machine::here())?;
    for (package, features) in [("netpath-ebpf", ""), ("netpath-ebpf", "trace"), ("netpath-load", "bpf")] {
        let mut clippy = match toolchain.clippy(env::consts::ARCH) {
            Some(mut clippy) => {
                clippy.current_dir(crate::cargo::workspace());
                clippy.arg("--target-dir").arg(Metadata::read()?.target_directory.join("bpf-lints"));
                clippy
            }
            None => cargo("clippy"),
        };
        clippy.args(["--package", package, "--features", features, "--locked", "--", "--deny", "warnings"]);
        process::run(&mut clippy)?;
    }
    Ok(())
}

/// Without the advisories: their database changes by itself, and a check must not depend on the day it runs.
fn deny() -> Result<()> {
    process::run(cargo("deny").args(["check", "licenses", "bans", "sources"]))
}
