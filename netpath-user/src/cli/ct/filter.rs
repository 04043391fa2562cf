//! Which connections a command is about.
//!
//! Every option names a property of the connection or of the packet that opened it, the *original* tuple. Several values
//! of one option are alternatives, several options must all fit.

use std::ops::RangeInclusive;

use clap::Args;

use super::{connection::Connection, state};
use crate::subnet::Subnet;

/// The options that choose connections.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct FilterArgs {
    /// Protocols: tcp, udp, icmp, sctp, gre, esp, igmp or a number
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',', value_parser = protocol)]
    proto: Vec<u8>,
    /// Addresses or subnets that the connection was opened from
    #[arg(long, value_name = "ADDRESS[/BITS]", value_delimiter = ',')]
    src: Vec<Subnet>,
    /// Addresses or subnets that it was opened to, before any translation
    #[arg(long, value_name = "ADDRESS[/BITS]", value_delimiter = ',')]
    dst: Vec<Subnet>,
    /// Ports that it was opened from, such as 40000 or 40000-40099; for ICMP echo the identifier
    #[arg(long, value_name = "PORT[-PORT]", value_delimiter = ',', value_parser = ports)]
    sport: Vec<RangeInclusive<u16>>,
    /// Ports that it was opened to, before any translation
    #[arg(long, value_name = "PORT[-PORT]", value_delimiter = ',', value_parser = ports)]
    dport: Vec<RangeInclusive<u16>>,
    /// States such as ESTABLISHED or TIME_WAIT, in any case
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state_name)]
    state: Vec<&'static str>,
    /// Docker networks by name, by id, or by number as `ct ls -o json` shows it
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    network: Vec<String>,
}

impl FilterArgs {
    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        let Self { proto, src, dst, sport, dport, state, network } = self;
        proto.is_empty()
            && src.is_empty()
            && dst.is_empty()
            && sport.is_empty()
            && dport.is_empty()
            && state.is_empty()
            && network.is_empty()
    }

    /// The networks that are asked for.
    pub(super) fn networks(&self) -> &[String] {
        &self.network
    }

    /// Whether a connection fits. `networks` are the numbers of those that are asked for.
    pub(super) fn fits(&self, connection: &Connection, networks: &[u16]) -> bool {
        fn any<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
            wanted.is_empty() || wanted.iter().any(fits)
        }
        let original = connection.original;
        any(&self.proto, |protocol| *protocol == connection.protocol_number)
            && any(&self.src, |subnet| subnet.contains(original.source))
            && any(&self.dst, |subnet| subnet.contains(original.destination))
            && any(&self.sport, |ports| ports.contains(&original.source_port))
            && any(&self.dport, |ports| ports.contains(&original.destination_port))
            && any(&self.state, |state| *state == connection.state)
            && (self.network.is_empty() || networks.contains(&connection.network_number))
    }
}

fn protocol(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "icmp" => Ok(1),
        "igmp" => Ok(2),
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "gre" => Ok(47),
        "esp" => Ok(50),
        "sctp" => Ok(132),
        number => {
            number.parse().map_err(|_| "expected tcp, udp, icmp, sctp, gre, esp, igmp or a number up to 255".to_owned())
        }
    }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} isn't a port; ports are 0 to 65535"));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range ends ({last}) before it begins ({first})"));
    }
    Ok(first..=last)
}

fn state_name(text: &str) -> Result<&'static str, String> {
    state::names().find(|name| name.eq_ignore_ascii_case(text)).ok_or_else(|| {
        let names: Vec<_> = state::names().collect();
        format!("states are {}", names.join(", "))
    })
}

fn network(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a network's name, id or number".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::{super::connection::connections, super::sample::*, FilterArgs, ports, protocol, state_name};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn filter(words: &str) -> FilterArgs {
        Line::try_parse_from(std::iter::once("ct").chain(words.split_whitespace())).unwrap().filter
    }

    /// The protocols of those of the samples that fit.
    fn chosen(words: &str) -> Vec<&'static str> {
        let filter = filter(words);
        let entries = [published(), masqueraded(), pinged()].concat();
        let connections = connections(&entries, 110 * SECOND, &names());
        connections.iter().filter(|one| filter.fits(one, &[1])).map(|one| one.protocol).collect()
    }

    #[test]
    fn each_option_chooses_by_the_packet_that_opened_the_connection() {
        for (words, expected) in [
            ("", &["icmp", "tcp", "udp"][..]),
            ("--proto tcp", &["tcp"]),
            ("--proto TCP,17", &["tcp", "udp"]),
            ("--proto tcp --proto icmp", &["icmp", "tcp"]),
            ("--proto sctp", &[]),
            ("--src 172.17.0.2", &["icmp", "tcp"]),
            ("--src 172.17.0.0/16,198.51.100.7", &["icmp", "tcp", "udp"]),
            ("--dst 192.0.2.1", &["udp"]),
            ("--dst 192.0.2.99/24", &["udp"]),
            ("--dst 0.0.0.0/0", &["icmp", "tcp", "udp"]),
            // Where the published one really goes isn't what it was opened to.
            ("--dst 172.17.0.2", &[]),
            ("--sport 40000", &["tcp"]),
            ("--sport 77", &["icmp"]),
            ("--sport 5000-6000", &["udp"]),
            ("--dport 443,53", &["tcp", "udp"]),
            ("--dport 5300", &[]),
            ("--state established", &["tcp"]),
            ("--state Unreplied,ECHO", &["icmp", "udp"]),
            ("--network bridge --proto udp", &["udp"]),
            ("--proto tcp --dport 53", &[]),
        ] {
            assert_eq!(chosen(words), expected, "{words}");
        }
    }

    #[test]
    fn a_network_that_isnt_asked_for_doesnt_fit() {
        let all = connections(&masqueraded(), 110 * SECOND, &names());
        let filter = filter("--network other");
        assert_eq!(filter.networks(), ["other"]);
        assert!(!filter.fits(&all[0], &[2]) && filter.fits(&all[0], &[2, 1]));
    }

    #[test]
    fn only_no_option_at_all_is_empty() {
        assert!(filter("").is_empty());
        for words in ["--proto 1", "--src 0.0.0.0/0", "--sport 1", "--dport 1", "--state echo", "--network 1"] {
            assert!(!filter(words).is_empty(), "{words}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in ["", "256", "tpc", "-1"] {
            assert!(protocol(text).is_err(), "{text}");
        }
        for text in ["", "::1", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "/8"] {
            let line = ["ct", "--src", text];
            assert!(Line::try_parse_from(line).is_err(), "{text}");
        }
        for text in ["", "-", "65536", "9-8", "1-", "x"] {
            assert!(ports(text).is_err(), "{text}");
        }
        assert!(state_name("OPEN").unwrap_err().contains("ESTABLISHED"));
    }

    proptest! {
        #[test]
        fn a_range_of_ports_contains_its_ends_and_what_is_between(first: u16, last: u16, port: u16) {
            match ports(&format!("{first}-{last}")) {
                Ok(range) => prop_assert_eq!(range.contains(&port), first <= port && port <= last),
                Err(_) => prop_assert!(first > last),
            }
        }

        #[test]
        fn states_are_found_in_any_case(bits: u32, index in 0..netpath_common::conntrack::PairState::ALL.len()) {
            let name = super::state::names().nth(index).unwrap();
            let mixed: String = name
                .char_indices()
                .map(|(at, letter)| if bits >> at & 1 == 0 { letter } else { letter.to_ascii_lowercase() })
                .collect();
            prop_assert_eq!(state_name(&mixed), Ok(name));
        }
    }
}
