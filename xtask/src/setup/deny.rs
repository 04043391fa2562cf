//! cargo-deny, which checks the licences and sources of the dependencies.

use anyhow::Result;

use super::Steps;
use crate::process;
use crate::toolchain::Machine;

const VERSION: &str = "0.20.2";

/// Finds it, or builds it.
pub(super) fn ensure(machine: &Machine, steps: &mut Steps) -> Result<()> {
    if let Some(deny) = machine.program("cargo-deny") {
        steps.found(&format!("cargo-deny: {}", deny.display()));
        return Ok(());
    }
    let mut cargo = crate::cargo::cargo("install");
    cargo.current_dir("/").args(["cargo-deny", "--version", VERSION, "--locked"]).env_remove("CARGO_TARGET_DIR");
    steps.doing(&format!("{} (two minutes or so)", process::line(&cargo)));
    process::run(&mut cargo)
}
