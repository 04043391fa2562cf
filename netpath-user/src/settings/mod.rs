//! The configuration file: what an operator sets once. Options of the command line come before it.
//!
//! TOML, every key optional, unknown keys refused: a misspelt one must not be silently without effect.

use std::{
    collections::BTreeMap,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use self::{
    ports::{PortRange, reserved_ports},
    timeouts::{Profile, TimeoutTable, key},
};

pub mod policy;
mod ports;
mod timeouts;

/// Where the file is when nobody says otherwise; there it may be missing.
pub const DEFAULT_PATH: &str = "/etc/netpath/netpath.toml";

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long flows may be silent.
    pub timeouts: timeouts::Settings,
    /// Source ports of translated flows.
    pub ports: PortSettings,
    /// Who reaches whom.
    pub isolation: IsolationSettings,
    /// What of the host's own is decided at its edge.
    pub edge: EdgeSettings,
    /// Networks of Docker's driver macvlan.
    pub macvlan: MacvlanSettings,
    /// Networks by Docker's name or id.
    pub networks: BTreeMap<String, NetworkSettings>,
    /// Who may open connections to published ports.
    pub policy: policy::Policy,
}

/// `[ports]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSettings {
    /// The range that is searched when a flow can't keep its own port.
    pub range: Option<PortRange>,
    /// Ports that no flow is translated to, besides those of `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Vec<PortRange>,
}

/// `[isolation]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IsolationSettings {
    /// Whether containers reach, by the host's addresses, ports that containers of other networks publish, as with Docker 29.
    pub reach_published_of_others: bool,
}

impl Default for IsolationSettings {
    fn default() -> Self {
        Self { reach_published_of_others: true }
    }
}

/// `[edge]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeSettings {
    /// Whether datagrams to ports of the host that nobody listens on are dropped before the kernel refuses them.
    pub drop_closed_ports: DropClosedPorts,
}

/// What becomes of datagrams to closed ports of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropClosedPorts {
    /// Those beyond what the kernel answers are dropped while nobody but a socket can be waiting for them.
    #[default]
    Auto,
    /// All of them are the kernel's.
    Off,
}

/// `[macvlan]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MacvlanSettings {
    /// Whether the host is given an interface of its own by which it reaches its macvlan containers.
    pub host_access: bool,
}

impl Default for MacvlanSettings {
    fn default() -> Self {
        Self { host_access: true }
    }
}

/// `[networks.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Addresses that flows to the world leave with; every container keeps to one of them. Empty: as Docker's option
    /// `com.docker.network.host_ipv4` says, else as the route decides.
    pub masquerade: Vec<Ipv4Addr>,
    /// Whether its containers' UDP ports are cones. Absent: as Docker's option `netpath.full_cone` says, else not.
    pub full_cone: Option<bool>,
    /// Whether its containers may send with addresses that are neither theirs nor another container's nor the host's: those
    /// of machines behind them, for which they are routers.
    pub allow_foreign_sources: bool,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It can't be read.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It isn't what it should be.
    #[error("the configuration file {} is wrong: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

impl Settings {
    /// Reads a file; without a path the default one, if it is there.
    ///
    /// # Errors
    ///
    /// See [`SettingsError`].
    pub fn read(path: Option<&Path>) -> Result<Self, SettingsError> {
        let file = path.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|message| SettingsError::Wrong { path: file.to_owned(), message }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(source) => Err(SettingsError::Unreadable { path: file.to_owned(), source }),
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut settings: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.timeouts.check()?;
        settings.policy.check(text)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_may() {
        let text = r#"
            [timeouts]
            profile = "rfc"
            tcp_established = 90000
            inbound_refresh = true
            [ports]
            range = "2000-2999"
            reserved = [4789, "500-510"]
            [networks.web]
            masquerade = ["198.51.100.7"]
            full_cone = true
            allow_foreign_sources = true
            [isolation]
            reach_published_of_others = false
            [edge]
            drop_closed_ports = "off"
            [macvlan]
            host_access = false
        "#;
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.timeouts.profile, Profile::Rfc);
        assert_eq!(settings.timeouts.inbound_refresh, Some(true));
        assert_eq!(settings.ports.range, Some(PortRange { first: 2000, last: 2999 }));
        assert_eq!(settings.ports.reserved.len(), 2);
        assert_eq!(settings.networks["web"].masquerade, [Ipv4Addr::new(198, 51, 100, 7)]);
        assert_eq!(settings.networks["web"].full_cone, Some(true));
        assert!(settings.networks["web"].allow_foreign_sources);
        assert!(!settings.isolation.reach_published_of_others);
        assert_eq!(settings.edge.drop_closed_ports, DropClosedPorts::Off);
        assert_eq!(Settings::default().edge.drop_closed_ports, DropClosedPorts::Auto);
        assert!(!settings.macvlan.host_access);
        assert!(Settings::default().macvlan.host_access);
        assert!(Settings::default().isolation.reach_published_of_others);
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place() {
        for (text, expected) in [
            ("[timeouts]\ntcp_establised = 1", "tcp_establised"),
            ("[timeouts]\nprofile = \"fast\"", "fast"),
            ("[timeouts]\nudp_stream = 0", "udp_stream"),
            ("[ports]\nrange = \"9-8\"", "9-8"),
            ("[ports]\nreserved = [70000]", "70000"),
            ("[networks.web]\nmasquerade = [\"host\"]", "masquerade"),
            ("[networks.web]\nfull_cone = \"yes\"", "full_cone"),
            ("[networks.web]\nallow_foreign_sources = 1", "allow_foreign_sources"),
            ("[macvlan]\nhost_acces = true", "host_acces"),
            ("[isolation]\nicc = true", "icc"),
            ("[edge]\ndrop_closed_ports = true", "drop_closed_ports"),
            ("[edge]\ndrop_closed_ports = \"on\"", "auto"),
            ("[network.web]", "network"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        assert!(matches!(Settings::read(Some(Path::new("/nonexistent/x"))), Err(SettingsError::Unreadable { .. })));
    }
}
