//! Builds the eBPF programs and leaves the object as `netpath-ebpf` in `OUT_DIR`, where the loader embeds it from.
//!
//! The programs are a workspace member but not a dependency: cargo has no way to say "that binary, for that other
//! target". So a second cargo runs inside this one, with its own target directory, which stays between builds.

mod compile;
#[expect(dead_code, reason = "only xtask installs and lints")]
mod toolchain;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use compile::{Programs, variable};

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
    let programs = Programs {
        package: "netpath-ebpf",
        features: if env::var_os("CARGO_FEATURE_TRACE").is_some() { &["trace"] } else { &[] },
        inputs: &["netpath-ebpf", "netpath-common/src", "netpath-common/Cargo.toml"],
        prebuilt: "NETPATH_BPF_OBJECT",
    };
    programs.build(&PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(".."))
}
