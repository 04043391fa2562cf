//! Who carried the traffic: the kernel's own connection tracking and NAT say whether they did.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::network::{GATEWAY, HOST, inside};
use crate::process::{self, words};

/// What the kernel's NAT knows at one moment.
pub(crate) struct Witness {
    /// Every line of `conntrack -L`.
    connections: Vec<String>,
    /// Packets counted by each rule of the nat table. Equal rules are added up.
    rules: BTreeMap<String, u64>,
}

/// What the kernel's NAT did between two moments.
pub(crate) struct Work {
    connections: Vec<String>,
    /// Connections that a program of the host itself opened: the kernel tracks them where they begin, whoever
    /// forwards them afterwards.
    own: Vec<String>,
    rules: Vec<(String, u64)>,
}

impl Witness {
    /// Asks in `host`.
    pub(crate) fn ask() -> Result<Self> {
        let connections =
            process::read(&mut inside("host", &words("conntrack -L -f ipv4"))).context("listing nf_conntrack")?;
        let rules = process::read(&mut inside("host", &words("iptables-save -c -t nat")))
            .context("reading iptables' counters")?;
        Ok(Self { connections: connections.lines().map(key).collect(), rules: counters(&rules) })
    }
}

/// What is new in the later one.
pub(crate) fn compare(before: &Witness, after: &Witness) -> Work {
    let new = after.connections.iter().filter(|connection| !before.connections.contains(connection)).cloned();
    let (own, connections) = new.partition(|connection| is_of_the_host(connection));
    let grown = |(rule, count): (&String, &u64)| {
        let more = count.saturating_sub(before.rules.get(rule).copied().unwrap_or(0));
        (more > 0).then(|| (rule.clone(), more))
    };
    Work { connections, own, rules: after.rules.iter().filter_map(grown).collect() }
}

impl Work {
    /// An error unless it did nothing.
    pub(crate) fn is_idle(&self) -> Result<()> {
        if !self.connections.is_empty() || !self.rules.is_empty() {
            bail!(
                "the kernel's NAT carried part of the traffic: {} connections tracked, {} rules counted packets",
                self.connections.len(),
                self.rules.len()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  nf_conntrack entries for this traffic: {}", self.connections.len())?;
        for connection in &self.connections {
            writeln!(f, "    {connection}")?;
        }
        writeln!(f, "  and for the host's own connections, which begin in its kernel: {}", self.own.len())?;
        write!(f, "  rules of iptables' nat table that counted packets: {}", self.rules.len())?;
        for (rule, more) in &self.rules {
            write!(f, "\n    +{more} {rule}")?;
        }
        Ok(())
    }
}

/// A connection without what changes while it lasts: its timeout and state. The addresses and ports are what it is
/// known by.
fn key(line: &str) -> String {
    let mut words = line.split_whitespace();
    let protocol = words.next().unwrap_or_default();
    let tuple =
        words.filter(|word| ["src=", "dst=", "sport=", "dport=", "id="].iter().any(|name| word.starts_with(name)));
    std::iter::once(protocol).chain(tuple).collect::<Vec<_>>().join(" ")
}

fn is_of_the_host(connection: &str) -> bool {
    let source = connection.split(' ').find_map(|word| word.strip_prefix("src="));
    [HOST, GATEWAY].iter().any(|address| source == Some(*address))
}

/// `[packets:bytes] -A CHAIN ...` and `:CHAIN POLICY [packets:bytes]`. A chain's own count is of packets that no rule
/// took: not work of NAT.
fn counters(saved: &str) -> BTreeMap<String, u64> {
    let mut rules = BTreeMap::new();
    for line in saved.lines() {
        let Some((count, rule)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else { continue };
        let packets = count.split(':').next().and_then(|packets| packets.parse::<u64>().ok()).unwrap_or(0);
        *rules.entry(rule.to_owned()).or_default() += packets;
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_its_addresses_not_by_its_age() {
        let young = "tcp      6 117 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 mark=0 use=1";
        let old = "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [ASSURED] mark=0 use=1";
        assert_eq!(key(young), key(old));
    }

    #[test]
    fn a_connection_is_the_hosts_by_who_opened_it() {
        assert!(is_of_the_host(
            "tcp src=172.17.0.1 dst=172.17.0.2 sport=1 dport=80 src=172.17.0.2 dst=172.17.0.1 sport=80 dport=1"
        ));
        assert!(!is_of_the_host(
            "tcp src=172.17.0.3 dst=203.0.113.80 sport=1 dport=80 src=203.0.113.80 dst=198.51.100.1 sport=80 dport=1"
        ));
    }

    #[test]
    fn only_rules_that_counted_are_named() {
        let before = "*nat\n:PREROUTING ACCEPT [9:540]\n[1:60] -A DOCKER -j RETURN\n[0:0] -A POSTROUTING -j MASQUERADE\nCOMMIT\n";
        let after = "*nat\n:PREROUTING ACCEPT [12:700]\n[1:60] -A DOCKER -j RETURN\n[3:180] -A POSTROUTING -j MASQUERADE\nCOMMIT\n";
        let witness = |rules| Witness { connections: Vec::new(), rules: counters(rules) };
        let work = compare(&witness(before), &witness(after));
        assert_eq!(work.rules, [("-A POSTROUTING -j MASQUERADE".to_owned(), 3)]);
        assert!(work.is_idle().is_err());
        assert!(compare(&witness(before), &witness(before)).is_idle().is_ok());
    }
}
