//! The firewall's rules, asked of the tools that show them, in the network namespace of this process.
//!
//! Every tool is a child process with a time limit. One that isn't there or fails is an error in the answer, never silence:
//! rules that can't be seen may be there.

use std::{collections::BTreeSet, fs, io, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{Backend, Ruleset, Table, nft, save};

/// A hundred thousand rules take a second.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Tables of iptables of old that have ever been used; without any, its tool has nothing to show and would load modules.
const LEGACY_TABLES: &str = "/proc/self/net/ip_tables_names";

/// Where the tools are when `PATH` leaves the system's own directories out.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Reads all rules. What a tool showed `before` is kept when it fails.
pub async fn read(before: &Ruleset) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let mut shown_by_iptables = BTreeSet::new();
    match iptables_nft().await {
        Ok(tables) => {
            shown_by_iptables = tables.iter().map(|table| table.name.clone()).collect();
            ruleset.tables.extend(tables);
        }
        Err(error) => ruleset.keep(before, Backend::IptablesNft, error),
    }
    if has_legacy_tables(Path::new(LEGACY_TABLES)) {
        match run("iptables-legacy-save", &[]).await {
            Ok(text) => ruleset.tables.extend(save::parse(Backend::IptablesLegacy, &text)),
            Err(error) => ruleset.keep(before, Backend::IptablesLegacy, error.to_string()),
        }
    }
    let listed = run("nft", &["--json", "list", "ruleset"]).await;
    match listed
        .map_err(|error| error.to_string())
        .and_then(|text| nft::parse(&text, &shown_by_iptables).map_err(|error| format!("{error:#}")))
    {
        Ok(tables) => ruleset.tables.extend(tables),
        Err(error) => ruleset.keep(before, Backend::Nft, error),
    }
    ruleset
}

/// Whether all rules are of a kind whose changes the kernel tells: none are iptables' of old.
#[must_use]
pub fn tells_of_changes() -> bool {
    !has_legacy_tables(Path::new(LEGACY_TABLES))
}

impl Ruleset {
    fn keep(&mut self, before: &Self, backend: Backend, error: String) {
        let of_backend = |table: &&Table| table.backend == backend;
        self.tables.extend(before.tables.iter().filter(of_backend).cloned());
        self.errors.push(error);
    }
}

/// Where there is no `iptables-nft-save`, `iptables-save` is whatever the host has.
async fn iptables_nft() -> Result<Vec<Table>, String> {
    let text = match run("iptables-nft-save", &[]).await {
        Err(ToolError::Absent(_)) => run("iptables-save", &[]).await,
        other => other,
    };
    text.map(|text| save::parse(Backend::IptablesNft, &text)).map_err(|error| error.to_string())
}

fn has_legacy_tables(names: &Path) -> bool {
    fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty())
}

/// Rules of iptables word for word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// What restores them, such as `iptables-nft-restore`.
    pub restores: String,
    /// What `iptables-save` prints.
    pub text: String,
}

/// The rules of both kinds of iptables, and of ip6tables, word for word. What can't be shown is left out.
pub async fn saved() -> Vec<Saved> {
    let mut all = Vec::new();
    for family in ["iptables", "ip6tables"] {
        let mut tools = vec![format!("{family}-nft")];
        let names = LEGACY_TABLES.replace("ip_", if family == "iptables" { "ip_" } else { "ip6_" });
        if has_legacy_tables(Path::new(&names)) {
            tools.push(format!("{family}-legacy"));
        }
        for tool in tools {
            if let Ok(text) = run(&format!("{tool}-save"), &[]).await {
                all.push(Saved { restores: format!("{tool}-restore"), text });
            }
        }
    }
    all
}

/// Makes changes as `iptables-restore --noflush` takes them, each table's at once.
///
/// # Errors
///
/// When the tool refuses; then the table at fault is as it was.
pub async fn change(restores: &str, script: &str) -> anyhow::Result<()> {
    let mut child = command(restores, &["--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {restores}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).await.with_context(|| format!("writing to {restores}"))?;
    }
    let output = timeout(TIME_LIMIT, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{restores} takes too long"))?.context("waiting for it")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{restores} failed ({}): {}", output.status, message.trim());
    Ok(())
}

/// The table in which Docker 29 and later can keep its rules.
const DOCKER_TABLE: [&str; 3] = ["table", "ip", "docker-bridges"];

/// Whether Docker keeps its rules in nftables.
pub async fn has_docker_table() -> bool {
    run("nft", &[&["list"], &DOCKER_TABLE[..]].concat()).await.is_ok()
}

/// Removes the table in which Docker kept its rules, if it is there.
///
/// # Errors
///
/// When nft refuses.
pub async fn remove_docker_table() -> anyhow::Result<()> {
    if has_docker_table().await {
        run("nft", &[&["delete"], &DOCKER_TABLE[..]].concat()).await?;
    }
    Ok(())
}

/// Why a tool shows nothing.
#[derive(Debug, thiserror::Error)]
enum ToolError {
    #[error("{0} isn't installed; rules that only it shows can't be seen")]
    Absent(String),
    #[error("{tool} can't be started: {source}")]
    Start { tool: String, source: io::Error },
    #[error("{tool} takes longer than {} s", TIME_LIMIT.as_secs())]
    TimedOut { tool: String },
    #[error("{tool} failed ({status}): {message}")]
    Failed { tool: String, status: std::process::ExitStatus, message: String },
}

async fn run(tool: &str, arguments: &[&str]) -> Result<String, ToolError> {
    let owned = || tool.to_owned();
    let output = match timeout(TIME_LIMIT, command(tool, arguments).output()).await {
        Err(_) => return Err(ToolError::TimedOut { tool: owned() }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(ToolError::Absent(owned())),
        Ok(Err(source)) => return Err(ToolError::Start { tool: owned(), source }),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ToolError::Failed { tool: owned(), status: output.status, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command(tool: &str, arguments: &[&str]) -> Command {
    let path = std::env::var("PATH").map_or_else(|_| SYSTEM_PATH.to_owned(), |path| format!("{path}:{SYSTEM_PATH}"));
    let mut command = Command::new(tool);
    command.args(arguments).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tool_that_is_not_there_or_fails_is_told_apart() {
        assert!(matches!(run("netpath-no-such-tool", &[]).await, Err(ToolError::Absent(_))));
        let failed = run("sh", &["-c", "echo why >&2; exit 3"]).await.unwrap_err().to_string();
        assert!(failed.contains("why"), "{failed}");
        assert_eq!(run("echo", &["rules"]).await.unwrap(), "rules\n");
    }

    #[test]
    fn what_a_failing_tool_showed_before_is_kept() {
        let before =
            Ruleset { tables: save::parse(Backend::IptablesNft, "*filter\n:FORWARD ACCEPT\n"), errors: vec![] };
        let mut ruleset = Ruleset::default();
        ruleset.keep(&before, Backend::Nft, "nft failed".to_owned());
        assert!(ruleset.tables.is_empty());
        ruleset.keep(&before, Backend::IptablesNft, "iptables failed".to_owned());
        assert_eq!((ruleset.tables, ruleset.errors.len()), (before.tables, 2));
    }
}
