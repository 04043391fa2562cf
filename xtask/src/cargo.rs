//! The cargo that runs the workspace, and where it puts things.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us, in the workspace, without what `cargo run` added to the environment for xtask alone. The
/// variables would make build scripts run again, and the library path would reach compilers of other toolchains.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if ours || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace()).arg(verb);
    command
}

/// What `cargo metadata` says, as far as it matters here.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    /// Where everything is built.
    pub(crate) target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let mut command = cargo("metadata");
        command.args(["--no-deps", "--format-version", "1"]);
        let text = process::read(&mut command)?;
        serde_json::from_str(&text).context("what `cargo metadata` printed")
    }

    /// The names of a package's integration tests, in order.
    pub(crate) fn tests_of(&self, package: &str) -> Vec<&str> {
        let targets = self.packages.iter().filter(|found| found.name == package).flat_map(|found| &found.targets);
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name.as_str())
            .collect()
    }
}
