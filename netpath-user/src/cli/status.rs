//! `netpath status`: is it attached, is it in step with Docker, and what does it carry?
//!
//! The daemon's word when it answers, else what is pinned. The same report either way.

use self::table::table;
use super::{
    args::Global,
    exit::{Exit, NothingAttached},
    output::{message, show},
};
use crate::{control::ClientError, report::DockerStatus, status::Status};

mod table;

/// What there is to say of Docker before the daemon's first round.
const STARTING: &str = "the daemon is starting";

/// What there is to say, and how to end.
#[derive(Debug)]
struct Outcome {
    status: Status,
    exit: Exit,
    messages: Vec<String>,
}

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let daemon = global.client().status().await;
    let Outcome { status, exit, messages } = judge(daemon, || Status::of_pins(&global.pins()?))?;
    show(global.output, &status, table)?;
    messages.iter().for_each(message);
    Ok(exit)
}

/// Chooses between the daemon's report and what the pins say, and finds the exit code.
///
/// # Errors
///
/// When there are neither a daemon's report nor readable pins, for another reason than that nothing is attached.
fn judge(
    daemon: Result<Status, ClientError>,
    pinned: impl FnOnce() -> anyhow::Result<Status>,
) -> anyhow::Result<Outcome> {
    let error = match daemon {
        Ok(status) => return Ok(judge_daemon(status)),
        Err(error) => anyhow::Error::from(error),
    };
    let exit = Exit::of(&error);
    match pinned() {
        Ok(status) => {
            let message = format!("{error:#}; this is what is pinned");
            Ok(Outcome { status, exit, messages: vec![message] })
        }
        Err(absent) if absent.is::<NothingAttached>() => {
            Ok(Outcome { status: Status::default(), exit, messages: vec![format!("{error:#}"), absent.to_string()] })
        }
        Err(unreadable) => Err(unreadable),
    }
}

fn judge_daemon(status: Status) -> Outcome {
    let mut messages = Vec::new();
    if !status.attached {
        messages.push("the daemon runs, but nothing is attached".to_owned());
    }
    if !status.in_sync {
        messages.push(format!("not in step with Docker: {}", why_not_in_step(&status)));
    }
    let exit = if messages.is_empty() { Exit::Ok } else { Exit::Degraded };
    Outcome { status, exit, messages }
}

fn why_not_in_step(status: &Status) -> String {
    let DockerStatus { socket, connected, last_error, .. } = &status.docker;
    if socket.is_empty() {
        return STARTING.to_owned();
    }
    match (connected, last_error, status.pending.as_slice()) {
        (false, Some(error), _) => format!("{socket}: {error}"),
        (false, None, _) => format!("{socket}: not connected"),
        (true, _, []) => "the first list isn't applied yet".to_owned(),
        (true, _, [pending]) => format!("{}: {}", pending.object, pending.error),
        (true, _, [pending, others @ ..]) => {
            format!("{}: {} (and {} more)", pending.object, pending.error, others.len())
        }
    }
}

#[cfg(test)]
mod tests;
