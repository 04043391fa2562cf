//! The system tier: real containers of a real dockerd, with netpath on their host, in network namespaces.
//!
//! Needs root and Docker; `cargo xtask test` sees to both. Each test runs in the modes that it is meant for:
//!
//!     cargo test --package netpath-tests --test system -- takeover
//!
//! With NETPATH_DATAPLANE=docker the same tests run against Docker's own rules, to show that what they expect is what
//! Docker's users have.

use std::path::Path;
use std::process::ExitCode;

use netpath_tests::case::Case;
use netpath_tests::runner;

mod system {
    pub(crate) mod masquerade;
}

fn main() -> ExitCode {
    let cases: Vec<Case> = [system::masquerade::CASES].concat();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let code = runner::main(&cases, Path::new(env!("CARGO_BIN_EXE_netpath-peer")), &workspace);
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
