//! Builds the eBPF programs and leaves the object as `netpath-ebpf` in `OUT_DIR`, where the loader embeds it from.
//!
//! The programs are a workspace member but not a dependency: cargo has no way to say "that binary, for that other
//! target". So a second cargo runs inside this one, with its own target directory, which stays between builds.

#[expect(dead_code, reason = "only xtask installs and lints")]
mod toolchain;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::{env, fs};

/// A prebuilt object, for packagers that build the two halves apart.
const PREBUILT: &str = "NETPATH_BPF_OBJECT";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={}", error.to_string().replace('\n', "\ncargo::error="));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for input in ["netpath-ebpf", "netpath-common/src", "netpath-common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={PREBUILT}");

    let object = match env::var_os(PREBUILT) {
        Some(prebuilt) => PathBuf::from(prebuilt),
        None => compile(&workspace, &out.join("bpf"))?,
    };
    fs::copy(&object, out.join("netpath-ebpf"))
        .map_err(|error| format!("copying the eBPF object {}: {error}", object.display()))?;
    Ok(())
}

/// Runs the nested cargo and returns the object that it made.
fn compile(workspace: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err("netpath's maps are little-endian only: build for a little-endian machine".into());
    }
    let toolchain = toolchain::find(&toolchain::Machine::here())?;
    let mut cargo = toolchain.cargo("build", &variable("CARGO_CFG_TARGET_ARCH")?);
    cargo
        .args(["--quiet", "--package", "netpath-ebpf", "--bin", "netpath-ebpf", "--locked"])
        .arg("--target-dir")
        .arg(target_dir);
    if env::var_os("CARGO_FEATURE_TRACE").is_some() {
        cargo.args(["--features", "trace"]);
    }
    let output = cargo
        .current_dir(workspace)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", toolchain.compiler.cargo.display()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("building the eBPF programs with {} failed:\n{messages}", toolchain.compiler.origin).into());
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(target_dir.join("bpfel-unknown-none/release/netpath-ebpf"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error} (this is a build script: cargo runs it)"))
}
