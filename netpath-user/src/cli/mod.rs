//! The command line: one file per verb.
//!
//! A verb collects a report and renders it; rendering and exit codes are pure. Data goes to stdout, messages to stderr.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::runtime;

use self::{
    args::{CommandLine, CtVerb, EndpointVerb, Global, NetVerb, Verb},
    exit::{Exit, NothingAttached, UsageError},
    output::{Format, message},
};
use crate::{
    control::Client,
    dataplane::{Pins, PinsError},
};

mod args;
mod ct;
mod detach;
mod drops;
mod endpoint;
mod exit;
mod inspect;
mod list;
mod migrate;
mod net;
mod output;
mod policy;
mod ports;
mod preflight;
mod run;
#[cfg(test)]
mod schema_tests;
mod status;

/// Reads the command line, does what it says and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let CommandLine { global, verb } = CommandLine::parse();
    let exit = perform(&global, verb).unwrap_or_else(|error| {
        message(format_args!("{error:#}"));
        Exit::of(&error)
    });
    exit.into()
}

fn perform(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    if global.output == Format::Conntrack && !matches!(verb, Verb::Ct(CtVerb::Ls(_) | CtVerb::Events(_))) {
        let what = "`-o conntrack` is for `netpath ct ls` and `netpath ct events`";
        return Err(UsageError(what.to_owned()).into());
    }
    let mut builder = match verb {
        Verb::Run(_) => runtime::Builder::new_multi_thread(),
        // One request and some maps: a thread is enough.
        _ => runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().context("starting the async runtime")?;
    runtime.block_on(async {
        match verb {
            Verb::Run(args) => run::run(global, args).await,
            Verb::Detach => detach::run(global).await,
            Verb::Status => status::run(global).await,
            Verb::Ct(verb) => ct::run(global, verb).await,
            Verb::Ports(args) => ports::run(global, &args).await,
            Verb::Net(NetVerb::Ls(args)) => net::list(global, &args).await,
            Verb::Net(NetVerb::Inspect(args)) => inspect::run(global, &args).await,
            Verb::Endpoint(EndpointVerb::Ls(args)) => endpoint::list(global, &args).await,
            Verb::Policy(verb) => policy::run(global, verb).await,
            Verb::Drops => drops::run(global),
            Verb::Migrate(args) => migrate::run(global, &args).await,
        }
    })
}

impl Global {
    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    fn pins(&self) -> anyhow::Result<Pins> {
        Pins::open(&self.pin_dir).map_err(|error| match error {
            PinsError::Absent(directory) => NothingAttached(directory).into(),
            error => error.into(),
        })
    }
}
