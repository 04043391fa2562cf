//! dockerd's configuration file, changed in three keys; all others stay as they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// The keys by which dockerd leaves packets to somebody else.
pub(super) const KEYS: [&str; 3] = ["iptables", "ip6tables", "userland-proxy"];

/// That of them which is about IPv6.
const IPV6: &str = "ip6tables";

/// What is behind the file's name for the file as it was before.
const BACKUP: &str = ".netpath-backup";

/// The file as it is; none when it isn't there.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The file's text with which dockerd leaves packets to netpath. Where containers have IPv6, whatever rules dockerd keeps of
/// ip6tables stay: nobody else guards that.
pub(super) fn hands_off(before: Option<&str>, has_ipv6: bool) -> anyhow::Result<String> {
    let mut settings = settings(before)?;
    for key in KEYS.into_iter().filter(|key| !(has_ipv6 && *key == IPV6)) {
        settings.insert(key.to_owned(), Value::Bool(false));
    }
    text(&settings)
}

/// The text with which dockerd keeps its own rules: the three keys as they were in the backup, else left out.
pub(super) fn hands_on(before: Option<&str>, backup: Option<&str>) -> anyhow::Result<String> {
    let mut settings = settings(before)?;
    let mut earlier = self::settings(backup)?;
    // A backup of a file that switched iptables off is no way back to Docker's rules.
    if earlier.get("iptables") == Some(&Value::Bool(false)) {
        earlier.clear();
    }
    for key in KEYS {
        match earlier.remove(key) {
            Some(value) => settings.insert(key.to_owned(), value),
            None => settings.remove(key),
        };
    }
    text(&settings)
}

fn settings(text: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    match text.map(str::trim) {
        // dockerd takes an empty file for an empty configuration.
        None | Some("") => Ok(Map::new()),
        Some(text) => match serde_json::from_str(text).context("dockerd's configuration isn't JSON")? {
            Value::Object(settings) => Ok(settings),
            _ => bail!("dockerd's configuration isn't a JSON object"),
        },
    }
}

fn text(settings: &Map<String, Value>) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(settings).context("writing JSON")? + "\n")
}

/// Where the file is kept as it was before.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

/// Puts a text in the file's place, whole or not at all, or removes the file.
pub(super) fn write(path: &Path, text: Option<&str>) -> anyhow::Result<()> {
    let what = || format!("writing {}", path.display());
    let Some(text) = text else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(what),
            _ => Ok(()),
        };
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(what)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text).with_context(what)?;
    if let Ok(metadata) = fs::metadata(path) {
        fs::set_permissions(&beside, metadata.permissions()).with_context(what)?;
    }
    fs::rename(&beside, path).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_keys_stay_and_the_way_back_is_the_same() {
        let before = r#"{"live-restore": true, "userland-proxy": true}"#;
        let off = hands_off(Some(before), false).unwrap();
        let value: Value = serde_json::from_str(&off).unwrap();
        assert_eq!(value["live-restore"], true);
        assert!(KEYS.iter().all(|key| value[*key] == false), "{value}");
        let with_ipv6: Value = serde_json::from_str(&hands_off(Some(before), true).unwrap()).unwrap();
        assert!(with_ipv6["iptables"] == false && with_ipv6.get(IPV6).is_none(), "{with_ipv6}");
        let back: Value = serde_json::from_str(&hands_on(Some(&off), Some(before)).unwrap()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(before).unwrap());
        assert_eq!(hands_on(Some(&off), Some(&off)).unwrap(), "{\n  \"live-restore\": true\n}\n");
        assert_eq!(hands_on(Some(&hands_off(None, false).unwrap()), None).unwrap(), "{}\n");
        assert!(hands_off(Some("iptables: false"), false).is_err() && hands_off(Some("[]"), false).is_err());
    }

    #[test]
    fn a_file_is_replaced_or_removed_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker/daemon.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, Some("{}")).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("{}"));
        write(&path, None).unwrap();
        write(&path, None).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
