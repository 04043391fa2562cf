//! `netpath detach`: gives everything back to the kernel and Docker.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    args::Global,
    exit::Exit,
    output::{message, show},
    preflight,
};
use crate::{
    control::{Client, ClientError},
    dataplane::{Detached, detach},
    macvlan,
};

/// How long a daemon may take to end.
const DAEMON_ENDS: Duration = Duration::from_secs(10);

/// What was removed.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report {
    /// Where it was pinned.
    pin_dir: PathBuf,
    /// Whether a daemon was running and has ended.
    daemon_stopped: bool,
    links: usize,
    maps: usize,
    /// Connections that the kernel's connection tracking carries on.
    connections: usize,
}

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let report = perform(global).await?;
    show(global.output, &report, text)?;
    Ok(Exit::Ok)
}

/// Detaches, and says what was removed.
pub(super) async fn perform(global: &Global) -> anyhow::Result<Report> {
    // Before the daemon ends for nothing: who may open its socket may not always remove what it attached.
    preflight::check_privileges()?;
    let daemon_stopped = stop_daemon(&global.client(), &global.pin_dir)
        .await
        .context("a running daemon must end before what it attached is removed")?;
    let Detached { links, maps, connections } = detach(&global.pin_dir)
        .with_context(|| format!("detaching what is pinned under {}", global.pin_dir.display()))?;
    for interface in macvlan::remove().await.context("removing the host's own macvlan interfaces")? {
        message(format_args!("removed the interface {interface}"));
    }
    Ok(Report { pin_dir: global.pin_dir.clone(), daemon_stopped, links, maps, connections })
}

/// Stops the daemon that works on `pin_dir` and says whether there was one.
async fn stop_daemon(client: &Client, pin_dir: &Path) -> Result<bool, ClientError> {
    match client.status().await {
        Err(ClientError::Unreachable { .. }) => return Ok(false),
        Ok(status) => {
            if let Some(other) = status.daemon.pin_dir.filter(|other| !is_same_directory(other, pin_dir)) {
                message(format_args!("the running daemon works on {} and goes on", other.display()));
                return Ok(false);
            }
        }
        // It answers, if badly; whether it ends when it is told to is seen next.
        Err(_) => {}
    }
    match client.shut_down(DAEMON_ENDS).await {
        Ok(()) => Ok(true),
        Err(ClientError::Unreachable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_same_directory(one: &Path, other: &Path) -> bool {
    one == other || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

fn text(report: &Report) -> String {
    let mut lines = String::new();
    if report.daemon_stopped {
        lines += "stopped the daemon\n";
    }
    if report.links == 0 && report.maps == 0 {
        return format!("{lines}nothing was attached under {}\n", report.pin_dir.display());
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let Report { links, maps, connections, .. } = *report;
    lines += &format!("removed {links} link{} and {maps} map{}\n", plural(links), plural(maps));
    if connections > 0 {
        lines += &format!("{connections} connection{} carried on by the kernel\n", plural(connections));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Report, is_same_directory, text};

    fn report() -> Report {
        Report { pin_dir: PathBuf::from("/pins"), daemon_stopped: false, links: 0, maps: 0, connections: 0 }
    }

    #[test]
    fn the_text_says_what_was_removed() {
        assert_eq!(text(&report()), "nothing was attached under /pins\n");
        let stopped = Report { daemon_stopped: true, ..report() };
        assert_eq!(text(&stopped), "stopped the daemon\nnothing was attached under /pins\n");
        let removed = Report { links: 1, maps: 11, connections: 2, ..stopped };
        assert_eq!(
            text(&removed),
            "stopped the daemon\nremoved 1 link and 11 maps\n2 connections carried on by the kernel\n"
        );
    }

    #[test]
    fn json_has_the_same_numbers() {
        let json = serde_json::to_value(Report { links: 3, ..report() }).unwrap();
        assert_eq!(json["links"], 3);
        assert_eq!(json["daemon_stopped"], false);
    }

    #[test]
    fn one_directory_may_have_two_names() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(is_same_directory(&link, directory.path()));
        assert!(is_same_directory(Path::new("/not/there"), Path::new("/not/there")));
        assert!(!is_same_directory(Path::new("/not/there"), directory.path()));
    }
}
