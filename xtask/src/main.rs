//! Set-up, build, lab, tests, benchmark and checks of netpath: one file per verb.

mod bench;
mod build;
mod cargo;
mod ci;
/// Shared with the tests, which run what the set-up makes.
#[expect(dead_code, unreachable_pub, reason = "a public module of the tests, which alone choose among engines")]
#[path = "../../tests/src/engine.rs"]
mod engine;
mod fuzz;
mod lab;
mod process;
mod run;
mod setup;
mod tally;
mod test;
/// Shared with the build script of netpath-user, which can't have dependencies.
#[expect(dead_code, reason = "only the build script builds the programs")]
#[path = "../../netpath-user/build/toolchain.rs"]
mod toolchain;

use std::process::ExitCode;

use clap::Parser;

/// Set-up, build, lab, tests, benchmark and checks of netpath.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Verb {
    /// Find or install what the build needs; with --tests also what the tests and the lab need.
    Setup(setup::Arguments),
    /// Build netpath with the eBPF programs embedded.
    Build(build::Arguments),
    /// Run netpath on this machine's Docker, or in a lab of its own if there is none.
    Run(run::Arguments),
    /// Run the tests: on the host, fuzzing, the programs in the kernel, the whole with a real dockerd.
    Test(test::Arguments),
    /// Measure netpath against Docker's iptables, by turns, in a lab of its own.
    Bench(bench::Arguments),
    /// Fuzz the packet path.
    Fuzz(fuzz::Arguments),
    /// Everything that CI checks.
    Ci,
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Setup(arguments) => setup::main(&arguments),
        Verb::Build(arguments) => build::main(&arguments),
        Verb::Run(arguments) => run::main(&arguments),
        Verb::Test(arguments) => test::main(&arguments),
        Verb::Bench(arguments) => bench::main(&arguments),
        Verb::Fuzz(arguments) => fuzz::main(&arguments),
        Verb::Ci => ci::main(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
