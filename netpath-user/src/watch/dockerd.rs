//! Whether dockerd keeps iptables rules, and so which mode suits.
//!
//! The API doesn't say it. The process behind the socket does, on its command line or in its configuration file. When it
//! can't be read, the default network tells: dockerd without iptables forces `enable_ip_masquerade` off there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use netpath_common::abi::Mode;
use tokio::net::UnixStream;
use tracing::debug;

const DEFAULT_CONFIG: &str = "/etc/docker/daemon.json";
/// The process name of the daemon.
const DOCKERD: &str = "dockerd";

/// The mode for the dockerd behind `socket`; `default_masquerades` is `enable_ip_masquerade` of the default network.
pub async fn detect(socket: &Path, default_masquerades: Option<bool>) -> Mode {
    let process = match process_behind(socket).await {
        Some(pid) => {
            tokio::task::spawn_blocking(move || keeps_rules(&PathBuf::from(format!("/proc/{pid}")))).await.ok()
        }
        None => None,
    };
    let keeps_rules = match process {
        Some(Ok(keeps)) => keeps,
        Some(Err(error)) => {
            debug!(error = format!("{error:#}"), "dockerd can't be read; its default network decides the mode");
            default_masquerades.unwrap_or(true)
        }
        None => default_masquerades.unwrap_or(true),
    };
    if keeps_rules { Mode::Takeover } else { Mode::Sole }
}

/// The words of the command line of the dockerd behind `socket`; none when it can't be read.
pub async fn arguments(socket: &Path) -> Vec<String> {
    let Some(pid) = process_behind(socket).await else { return Vec::new() };
    fs::read(format!("/proc/{pid}/cmdline")).map(|bytes| words(&bytes)).unwrap_or_default()
}

fn words(command_line: &[u8]) -> Vec<String> {
    let words = command_line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

/// The process id of the dockerd that listens on `socket`. A socket that systemd made names systemd; then it is the
/// only dockerd on the host, if there is only one.
async fn process_behind(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let listener = stream.peer_cred().ok()?.pid()?;
    if is_dockerd(Path::new(&format!("/proc/{listener}"))) {
        return Some(listener);
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut daemons = processes.filter(|entry| is_dockerd(&entry.path()));
    let only = daemons.next()?.file_name().to_str()?.parse().ok()?;
    daemons.next().is_none().then_some(only)
}

fn is_dockerd(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == DOCKERD)
}

/// Whether the dockerd with this directory in `/proc` manages iptables rules.
fn keeps_rules(process: &Path) -> anyhow::Result<bool> {
    let command_line = fs::read(process.join("cmdline")).context("reading dockerd's command line")?;
    let arguments = words(&command_line);
    if let Some(keeps) = iptables_argument(&arguments) {
        return Ok(keeps);
    }
    let named = config_argument(&arguments);
    let path = config_path(process, named.as_deref().unwrap_or(DEFAULT_CONFIG));
    match fs::read_to_string(&path) {
        Ok(text) => {
            iptables_setting(&text).with_context(|| format!("reading dockerd's configuration {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("reading dockerd's configuration {}", path.display())),
    }
}

/// The last `--iptables` on a command line. Without a value it means true: dockerd takes none from the next argument.
fn iptables_argument(arguments: &[String]) -> Option<bool> {
    arguments.iter().rev().find_map(|argument| match argument.strip_prefix("--iptables") {
        Some("") => Some(true),
        Some(value) => value.strip_prefix('=').and_then(parse_bool),
        None => None,
    })
}

/// The values that dockerd takes (`strconv.ParseBool`).
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn config_argument(arguments: &[String]) -> Option<String> {
    let mut found = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--config-file") {
            Some("") => found = rest.next().cloned(),
            Some(value) => found = value.strip_prefix('=').map(str::to_owned).or(found),
            None => {}
        }
    }
    found
}

/// dockerd may run in another mount namespace and another directory.
fn config_path(process: &Path, named: &str) -> PathBuf {
    match named.strip_prefix('/') {
        Some(from_root) => process.join("root").join(from_root),
        None => process.join("cwd").join(named),
    }
}

fn iptables_setting(text: &str) -> anyhow::Result<bool> {
    #[derive(serde::Deserialize)]
    struct Configuration {
        iptables: Option<bool>,
    }
    // dockerd takes an empty file for an empty configuration.
    if text.trim().is_empty() {
        return Ok(true);
    }
    let configuration: Configuration = serde_json::from_str(text)?;
    Ok(configuration.iptables.unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process directory as in `/proc`.
    fn process(arguments: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cmdline"), arguments.join("\0") + "\0").unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn dockerd_keeps_rules_unless_told_otherwise() {
        let off = r#"{"iptables": false, "debug": true}"#;
        let default = "root/etc/docker/daemon.json";
        type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], bool);
        let rows: &[Row<'_>] = &[
            (&["dockerd"], &[], true),
            (&["dockerd", "--iptables=false"], &[], false),
            (&["dockerd", "--iptables=0"], &[], false),
            (&["dockerd", "--iptables=F", "-H", "fd://"], &[], false),
            (&["dockerd", "--iptables", "false"], &[], true),
            (&["dockerd", "--iptables=false", "--iptables=true"], &[], true),
            (&["dockerd", "--ip6tables=false"], &[], true),
            (&["dockerd"], &[(default, off)], false),
            (&["dockerd"], &[(default, "{}")], true),
            (&["dockerd"], &[(default, "")], true),
            (&["dockerd", "--config-file", "/a.json"], &[("root/a.json", off)], false),
            (&["dockerd", "--config-file=/a.json"], &[("root/a.json", off), (default, "{}")], false),
            (&["dockerd", "--config-file=a.json"], &[("cwd/a.json", off)], false),
            (&["dockerd", "--config-file=/a.json"], &[(default, off)], true),
        ];
        for (arguments, files, expected) in rows {
            let process = process(arguments, files);
            assert_eq!(keeps_rules(process.path()).unwrap(), *expected, "{arguments:?} {files:?}");
        }
    }

    #[test]
    fn a_configuration_that_is_not_json_is_an_error() {
        let process = process(&["dockerd"], &[("root/etc/docker/daemon.json", "iptables: false")]);
        assert!(keeps_rules(process.path()).is_err());
    }

    #[tokio::test]
    async fn the_default_network_decides_when_nothing_listens() {
        let nowhere = Path::new("/nonexistent/docker.sock");
        assert_eq!(detect(nowhere, Some(false)).await, Mode::Sole);
        assert_eq!(detect(nowhere, None).await, Mode::Takeover);
    }
}
