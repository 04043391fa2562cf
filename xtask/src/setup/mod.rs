//! `cargo xtask setup`: finds what netpath's build, lab and tests need, and installs what is missing.
//!
//! Every other verb calls [`ensure`] for its own needs, so nobody has to know this one. It installs with apt (Debian,
//! Ubuntu), rustup and `cargo install`; on a machine where these can't, it says what to do by hand. It changes
//! nothing that is already good enough.

mod apt;
mod compiler;
mod deny;
mod engines;
mod linker;
mod tools;

use anyhow::Result;

pub(crate) use self::tools::find as find_tool;

use self::apt::Apt;
use crate::toolchain::Machine;

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what the tests and the lab need: docker.io, newer engines, iptables, iperf3 and the like.
    #[arg(long)]
    tests: bool,
}

/// What a verb needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To build netpath.
    Build,
    /// To build it and to run the lab or the tests.
    Tests,
    /// All that, and to lint the eBPF programs and the dependencies.
    Checks,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// What is found and what is done.
    Everything,
    /// Only what is done.
    Changes,
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let need = if arguments.tests { Need::Tests } else { Need::Build };
    set_up(need, &mut Steps { talk: Talk::Everything, done: 0 })
}

/// Makes sure of what a verb needs; says nothing if all is there.
pub(crate) fn ensure(need: Need) -> Result<()> {
    set_up(need, &mut Steps { talk: Talk::Changes, done: 0 })
}

/// Makes sure of a C++ compiler: libFuzzer is written in C++.
pub(crate) fn ensure_cpp() -> Result<()> {
    let mut steps = Steps { talk: Talk::Changes, done: 0 };
    if Machine::here().program("c++").is_none() {
        Apt::find().install(&["g++".to_owned()], &mut steps)?;
    }
    Ok(())
}

fn set_up(need: Need, steps: &mut Steps) -> Result<()> {
    let machine = Machine::here();
    let mut apt = Apt::find();
    let compiler = compiler::ensure(&machine, &mut apt, steps)?;
    linker::ensure(&machine, &compiler, &mut apt, steps)?;
    if need == Need::Checks {
        compiler::ensure_clippy(&compiler, &mut apt, steps)?;
        deny::ensure(&machine, steps)?;
    }
    if need != Need::Build {
        tools::ensure(&mut apt, steps)?;
        engines::ensure(&machine, &mut apt, steps)?;
    }
    match steps.done {
        0 => steps.found("everything is there, nothing to do"),
        done => println!("setup: {done} step{} done", if done == 1 { "" } else { "s" }),
    }
    Ok(())
}

/// Says what happens, and counts what was changed.
struct Steps {
    talk: Talk,
    done: u32,
}

impl Steps {
    /// Something is as it should be.
    fn found(&self, what: &str) {
        if self.talk == Talk::Everything {
            println!("setup: {what}");
        }
    }

    /// Something is about to be changed.
    fn doing(&mut self, what: &str) {
        self.done += 1;
        println!("setup: {what}");
    }

    /// Worth saying, whatever the talk.
    fn note(&self, what: &str) {
        println!("setup: {what}");
    }
}
