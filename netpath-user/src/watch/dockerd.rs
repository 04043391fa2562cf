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

/// What was found out about a dockerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The mode that suits it.
    pub mode: Mode,
    /// Whether its default network is to masquerade (`--ip-masq`).
    pub masquerades: bool,
    /// Whether it leaves containers' addresses open (`--allow-direct-routing`).
    pub allows_direct_routing: bool,
}

/// Looks at the dockerd behind `socket`; `default_masquerades` is `enable_ip_masquerade` of the default network.
pub async fn detect(socket: &Path, default_masquerades: Option<bool>) -> Found {
    let process = match process_behind(socket).await {
        Some(pid) => {
            tokio::task::spawn_blocking(move || Switches::read(&PathBuf::from(format!("/proc/{pid}")))).await.ok()
        }
        None => None,
    };
    let switches = match process {
        Some(Ok(switches)) => switches,
        Some(Err(error)) => {
            debug!(error = format!("{error:#}"), "dockerd can't be read; its default network decides the mode");
            Switches { iptables: default_masquerades, ..Switches::default() }
        }
        None => Switches { iptables: default_masquerades, ..Switches::default() },
    };
    Found {
        mode: if switches.iptables.unwrap_or(true) { Mode::Takeover } else { Mode::Sole },
        masquerades: switches.ip_masq.unwrap_or(true),
        allows_direct_routing: switches.allow_direct_routing.unwrap_or(false),
    }
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

/// What dockerd was told, if anything: the command line's word, else the configuration file's. dockerd refuses to start
/// when both say something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Switches {
    iptables: Option<bool>,
    ip_masq: Option<bool>,
    allow_direct_routing: Option<bool>,
}

impl Switches {
    /// Of the dockerd with this directory in `/proc`.
    fn read(process: &Path) -> anyhow::Result<Self> {
        let command_line = fs::read(process.join("cmdline")).context("reading dockerd's command line")?;
        let arguments = words(&command_line);
        let of_file = Self::of_file(process, &arguments);
        let iptables = switch(&arguments, "--iptables");
        let of_file = match of_file {
            Err(error) if iptables.is_none() => return Err(error),
            of_file => of_file.unwrap_or_default(),
        };
        Ok(Self {
            iptables: iptables.or(of_file.iptables),
            ip_masq: switch(&arguments, "--ip-masq").or(of_file.ip_masq),
            allow_direct_routing: switch(&arguments, "--allow-direct-routing").or(of_file.allow_direct_routing),
        })
    }

    fn of_file(process: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let named = config_argument(arguments);
        let path = config_path(process, named.as_deref().unwrap_or(DEFAULT_CONFIG));
        match fs::read_to_string(&path) {
            // dockerd takes an empty file for an empty configuration.
            Ok(text) if text.trim().is_empty() => Ok(Self::default()),
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("reading dockerd's configuration {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading dockerd's configuration {}", path.display())),
        }
    }
}

/// The last word of a switch on a command line. Without a value it means true: dockerd takes none from the next argument.
fn switch(arguments: &[String], name: &str) -> Option<bool> {
    arguments.iter().rev().find_map(|argument| match argument.strip_prefix(name) {
        Some("") => Some(true),
        Some(value) => value.strip_prefix('=').and_then(parse_bool),
        None => None,
    })
}

/// The values that dockerd takes (`strconv.ParseBool`).
pub(super) fn parse_bool(value: &str) -> Option<bool> {
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
            assert_eq!(
                Switches::read(process.path()).unwrap().iptables.unwrap_or(true),
                *expected,
                "{arguments:?} {files:?}"
            );
        }
    }

    #[test]
    fn other_switches_are_read_from_both_places() {
        let file = r#"{"ip-masq": false, "allow-direct-routing": true}"#;
        let of_file = process(&["dockerd"], &[("root/etc/docker/daemon.json", file)]);
        let of_command = process(&["dockerd", "--ip-masq=false", "--allow-direct-routing"], &[]);
        let expected = Switches { iptables: None, ip_masq: Some(false), allow_direct_routing: Some(true) };
        for process in [of_file, of_command] {
            assert_eq!(Switches::read(process.path()).unwrap(), expected);
        }
    }

    #[test]
    fn a_configuration_that_is_not_json_is_an_error() {
        let process = process(&["dockerd"], &[("root/etc/docker/daemon.json", "iptables: false")]);
        assert!(Switches::read(process.path()).is_err());
    }

    #[tokio::test]
    async fn the_default_network_decides_when_nothing_listens() {
        let nowhere = Path::new("/nonexistent/docker.sock");
        assert_eq!(detect(nowhere, Some(false)).await.mode, Mode::Sole);
        assert_eq!(detect(nowhere, None).await.mode, Mode::Takeover);
    }
}
