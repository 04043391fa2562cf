//! Builds the benchmark's own eBPF programs (`tests/load`) as netpath-user builds netpath's, and leaves the object as
//! `netpath-load` in `OUT_DIR`.

#[path = "../../netpath-user/build/compile.rs"]
mod compile;
#[expect(dead_code, reason = "only xtask installs and lints")]
#[path = "../../netpath-user/build/toolchain.rs"]
mod toolchain;

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
        package: "netpath-load",
        features: &["bpf"],
        inputs: &["tests/load", "tests/build"],
        prebuilt: "NETPATH_LOAD_OBJECT",
    };
    programs.build(&PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(".."))
}
