//! `netpath ct rm` and `netpath ct flush`: connections end because somebody wants it.
//!
//! The program `np_remove` ends each pair as a whole ([`Remover`]). What fits is looked up before: a connection that is
//! opened or changes its state in between is as it was looked up, or stays, as with `conntrack -D`.

use netpath_common::abi::FlowKey;
use serde::Serialize;

use super::{Selection, connection::all_keys, filter::FilterArgs};
use crate::{
    cli::{
        args::Global,
        exit::{Exit, UsageError},
        output::show,
    },
    dataplane::Remover,
};

/// What was removed.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Removed {
    /// How many connections.
    removed: u64,
}

pub(super) async fn remove(global: &Global, filter: &FilterArgs) -> anyhow::Result<Exit> {
    if filter.is_empty() {
        let what = "`netpath ct rm` wants to know which connections, such as `--dst 198.51.100.7`; \
                    `netpath ct flush` removes all";
        return Err(UsageError(what.to_owned()).into());
    }
    let connections = Selection::read(global, filter).await?.connections;
    let keys: Vec<_> = connections.iter().map(|connection| connection.key).collect();
    run(global, &keys)
}

pub(super) fn flush(global: &Global) -> anyhow::Result<Exit> {
    let keys = all_keys(&global.pins()?.flows()?);
    run(global, &keys)
}

fn run(global: &Global, keys: &[FlowKey]) -> anyhow::Result<Exit> {
    let removed = if keys.is_empty() { 0 } else { Remover::open(&global.pin_dir)?.remove(keys)? };
    show(global.output, &Removed { removed }, text)?;
    Ok(Exit::Ok)
}

fn text(report: &Removed) -> String {
    let plural = if report.removed == 1 { "" } else { "s" };
    format!("removed {} connection{plural}\n", report.removed)
}

#[cfg(test)]
mod tests {
    use super::{Removed, text};

    #[test]
    fn the_text_says_how_many() {
        assert_eq!(text(&Removed { removed: 0 }), "removed 0 connections\n");
        assert_eq!(text(&Removed { removed: 1 }), "removed 1 connection\n");
    }
}
