//! How long flows may be silent: the profile, the host's sysctls, the operator's own values, in this order.

use std::{collections::BTreeMap, fs, path::Path};

use netpath_common::conntrack::PairState;
use serde::Deserialize;

/// Where nf_conntrack keeps its timeouts, in the daemon's network namespace.
const SYSCTLS: &str = "/proc/sys/net/netfilter";

/// Where timeouts come from.
#[repr(u8)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// nf_conntrack's: the host's sysctls where they exist, else the kernel's defaults.
    #[default]
    Netfilter = 0,
    /// What RFC 4787, 5382, 5508 and 7857 ask for at least.
    Rfc = 1,
}

impl Profile {
    /// The profile of a number in the map `CONFIG`.
    #[must_use]
    pub const fn numbered(number: u8) -> Self {
        if number == Self::Rfc as u8 { Self::Rfc } else { Self::Netfilter }
    }

    /// The name that the file takes and commands show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::Rfc => "rfc",
        }
    }
}

/// `[timeouts]`: a profile and values of one's own, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// The profile.
    #[serde(default)]
    pub profile: Profile,
    /// Whether packets from the world keep a masqueraded UDP flow alive.
    pub inbound_refresh: Option<bool>,
    /// Values by [`key`].
    #[serde(flatten)]
    values: BTreeMap<String, u32>,
}

impl Settings {
    /// Refuses unknown keys and what can't be meant.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, seconds) in &self.values {
            if !PairState::ALL.iter().any(|state| key(*state) == name) {
                let keys: Vec<_> = PairState::ALL.iter().map(|state| key(*state)).collect();
                return Err(format!("[timeouts] has no key {name:?}; there are {}", keys.join(", ")));
            }
            if *seconds == 0 {
                return Err(format!("[timeouts] {name} is 0; a flow lives for a second at least"));
            }
        }
        Ok(())
    }
}

/// The timeouts that the programs are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutTable {
    /// The profile that they come from.
    pub profile: Profile,
    /// Whether packets from the world keep a masqueraded UDP flow alive.
    pub inbound_refresh: bool,
    seconds: Vec<u32>,
}

impl TimeoutTable {
    /// The timeouts of a host with these settings. Reads the host's sysctls.
    #[must_use]
    pub fn of_host(settings: &Settings) -> Self {
        Self::with(settings, |name| {
            let text = fs::read_to_string(Path::new(SYSCTLS).join(name)).ok()?;
            text.trim().parse().ok().filter(|seconds| *seconds > 0)
        })
    }

    fn with(settings: &Settings, sysctl: impl Fn(&str) -> Option<u32>) -> Self {
        let of_profile = |state: PairState| match settings.profile {
            Profile::Netfilter => sysctl(sysctl_name(state)).unwrap_or(state.default_timeout_s()),
            Profile::Rfc => rfc(state),
        };
        let seconds = PairState::ALL.iter().map(|state| {
            let own = settings.values.get(key(*state)).copied();
            own.unwrap_or_else(|| of_profile(*state))
        });
        Self {
            profile: settings.profile,
            inbound_refresh: settings.inbound_refresh.unwrap_or(settings.profile == Profile::Netfilter),
            seconds: seconds.collect(),
        }
    }

    /// Each state with its timeout in seconds.
    pub fn iter(&self) -> impl Iterator<Item = (PairState, u32)> {
        PairState::ALL.iter().copied().zip(self.seconds.iter().copied())
    }
}

/// The name of a state's timeout in the configuration file and in reports.
#[must_use]
pub const fn key(state: PairState) -> &'static str {
    match state {
        PairState::SynSent => "tcp_syn_sent",
        PairState::SynReceived => "tcp_syn_recv",
        PairState::Established => "tcp_established",
        PairState::FinWait => "tcp_fin_wait",
        PairState::CloseWait => "tcp_close_wait",
        PairState::LastAck => "tcp_last_ack",
        PairState::TimeWait => "tcp_time_wait",
        PairState::Close => "tcp_close",
        PairState::UdpUnreplied => "udp_unreplied",
        PairState::UdpReplied => "udp_replied",
        PairState::UdpStream => "udp_stream",
        PairState::Echo => "icmp",
        PairState::OtherUnreplied => "other_unreplied",
        PairState::OtherReplied => "other_replied",
    }
}

/// The sysctl of nf_conntrack (Documentation/networking/nf_conntrack-sysctl.rst).
const fn sysctl_name(state: PairState) -> &'static str {
    match state {
        PairState::SynSent => "nf_conntrack_tcp_timeout_syn_sent",
        PairState::SynReceived => "nf_conntrack_tcp_timeout_syn_recv",
        PairState::Established => "nf_conntrack_tcp_timeout_established",
        PairState::FinWait => "nf_conntrack_tcp_timeout_fin_wait",
        PairState::CloseWait => "nf_conntrack_tcp_timeout_close_wait",
        PairState::LastAck => "nf_conntrack_tcp_timeout_last_ack",
        PairState::TimeWait => "nf_conntrack_tcp_timeout_time_wait",
        PairState::Close => "nf_conntrack_tcp_timeout_close",
        PairState::UdpUnreplied | PairState::UdpReplied => "nf_conntrack_udp_timeout",
        PairState::UdpStream => "nf_conntrack_udp_timeout_stream",
        PairState::Echo => "nf_conntrack_icmp_timeout",
        PairState::OtherUnreplied | PairState::OtherReplied => "nf_conntrack_generic_timeout",
    }
}

/// TCP: 2 h 4 min open and 4 min otherwise (RFC 5382, REQ-5; also after a reset, RFC 7857, section 2.2); UDP 5 min
/// (RFC 4787, REQ-5); ICMP 60 s (RFC 5508, REQ-2).
const fn rfc(state: PairState) -> u32 {
    match state {
        PairState::Established => 7440,
        PairState::SynSent
        | PairState::SynReceived
        | PairState::FinWait
        | PairState::CloseWait
        | PairState::LastAck
        | PairState::TimeWait
        | PairState::Close => 240,
        PairState::UdpUnreplied | PairState::UdpReplied | PairState::UdpStream => 300,
        PairState::Echo => 60,
        PairState::OtherUnreplied | PairState::OtherReplied => 600,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(table: &TimeoutTable, wanted: PairState) -> u32 {
        table.iter().find(|(state, _)| *state == wanted).unwrap().1
    }

    #[test]
    fn own_values_come_before_sysctls_and_these_before_the_defaults() {
        let settings = Settings { values: BTreeMap::from([("tcp_close".to_owned(), 3)]), ..Settings::default() };
        let sysctl = |name: &str| match name {
            "nf_conntrack_tcp_timeout_close" => Some(11),
            "nf_conntrack_udp_timeout_stream" => Some(180),
            _ => None,
        };
        let table = TimeoutTable::with(&settings, sysctl);
        assert_eq!(seconds(&table, PairState::Close), 3);
        assert_eq!(seconds(&table, PairState::UdpStream), 180);
        assert_eq!(seconds(&table, PairState::Established), 432_000);
        assert!(table.inbound_refresh);
    }

    #[test]
    fn the_rfc_profile_asks_no_sysctl_and_refreshes_outbound_only() {
        let settings = Settings { profile: Profile::Rfc, ..Settings::default() };
        let table = TimeoutTable::with(&settings, |_| Some(1));
        assert_eq!(seconds(&table, PairState::Established), 7440);
        assert_eq!(seconds(&table, PairState::UdpReplied), 300);
        assert!(!table.inbound_refresh);
    }
}
