//! The netpath daemon and command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    netpath::cli::main()
}
