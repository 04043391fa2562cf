//! Runs a second cargo, for the BPF target, inside a build script, and leaves the object in `OUT_DIR`.
//!
//! Shared with the build script of netpath-tests, which has programs of its own.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use crate::toolchain;

/// A package with one binary of its own name, to be built for BPF.
pub(crate) struct Programs<'a> {
    /// The package's name, and the object's.
    pub(crate) package: &'a str,
    /// Features to switch on.
    pub(crate) features: &'a [&'a str],
    /// What it is made of, relative to the workspace.
    pub(crate) inputs: &'a [&'a str],
    /// The environment variable that names a prebuilt object, for packagers that build the two halves apart.
    pub(crate) prebuilt: &'a str,
}

impl Programs<'_> {
    /// Leaves the object in `OUT_DIR`, under the package's name.
    pub(crate) fn build(&self, workspace: &Path) -> Result<(), Box<dyn Error>> {
        let out = PathBuf::from(variable("OUT_DIR")?);
        for input in self.inputs.iter().chain(&["Cargo.toml", "Cargo.lock", "netpath-user/build"]) {
            println!("cargo::rerun-if-changed={}", workspace.join(input).display());
        }
        println!("cargo::rerun-if-env-changed={}", self.prebuilt);
        let object = match env::var_os(self.prebuilt) {
            Some(prebuilt) => PathBuf::from(prebuilt),
            None => self.compile(workspace, &out.join("bpf"))?,
        };
        fs::copy(&object, out.join(self.package))
            .map_err(|error| format!("copying the eBPF object {}: {error}", object.display()))?;
        Ok(())
    }

    /// Runs the nested cargo and returns the object that it made.
    fn compile(&self, workspace: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
        if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
            return Err("netpath's maps are little-endian only: build for a little-endian machine".into());
        }
        let toolchain = toolchain::find(&toolchain::Machine::here())?;
        let mut cargo = toolchain.cargo("build", &variable("CARGO_CFG_TARGET_ARCH")?);
        cargo
            .args(["--quiet", "--package", self.package, "--bin", self.package, "--locked"])
            .args(["--features", &self.features.join(",")])
            .arg("--target-dir")
            .arg(target_dir);
        let output = cargo
            .current_dir(workspace)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", toolchain.compiler.cargo.display()))?;
        let messages = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let origin = toolchain.compiler.origin;
            return Err(format!("building {} with {origin} failed:\n{messages}", self.package).into());
        }
        for line in messages.lines() {
            println!("cargo::warning={line}");
        }
        Ok(target_dir.join("bpfel-unknown-none/release").join(self.package))
    }
}

pub(crate) fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error} (this is a build script: cargo runs it)"))
}
