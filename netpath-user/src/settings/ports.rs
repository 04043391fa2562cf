//! Ranges of ports, and the ports that no flow is translated to.

use std::{collections::BTreeSet, fmt, fs, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// Where the kernel says which ports are for applications that ask for them (Documentation/networking/ip-sysctl.rst).
const LOCAL_RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Ports from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, never before the first.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// Reads `A-B`, or `A` for a single port.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("{text:?} isn't a port; ports are 1 to 65535")),
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the range {text} ends ({last}) before it begins ({first})"));
        }
        Ok(Self { first, last })
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a port or a range such as \"1024-65535\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The ports that no flow is translated to: those that the host reserves, and the operator's.
#[must_use]
pub fn reserved_ports(configured: &[PortRange]) -> BTreeSet<u16> {
    let text = fs::read_to_string(LOCAL_RESERVED).unwrap_or_default();
    let of_host = text.trim().split(',').filter_map(|range| range.parse::<PortRange>().ok());
    of_host.chain(configured.iter().copied()).flat_map(|range| range.first..=range.last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_checked() {
        assert_eq!("1-65535".parse(), Ok(PortRange { first: 1, last: 65535 }));
        assert_eq!("9".parse(), Ok(PortRange { first: 9, last: 9 }));
        for text in ["", "-", "0-9", "9-8", "1-65536", "1-2-3", "a-b"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn configured_ports_are_reserved() {
        let reserved = reserved_ports(&[PortRange { first: 500, last: 502 }, PortRange { first: 4789, last: 4789 }]);
        assert!([500, 501, 502, 4789].iter().all(|port| reserved.contains(port)));
    }
}
