//! Who else on this host may wait for datagrams that no socket of its own takes, besides rules of the firewall; and how often
//! the kernel says that a port is closed. Read from `/proc`, in the network namespace of this process; decides nothing.

use std::{fs, path::Path};

/// What the kernel says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// IPVS has virtual services.
    pub ipvs: bool,
    /// Somebody reads UDP from a raw socket.
    pub raw_udp: bool,
    /// The kernel's limits.
    pub limits: IcmpLimits,
}

/// How many ICMP errors "port unreachable" the kernel sends (Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpLimits {
    /// Whether they are limited at all: `icmp_ratemask`.
    pub limited: bool,
    /// Milliseconds between two to one receiver; 0: it isn't limited. `icmp_ratelimit`.
    pub interval_ms: u64,
    /// In a second, to all together: `icmp_msgs_per_sec`.
    pub per_second: u64,
    /// At once, to all together: `icmp_msgs_burst`.
    pub burst: u64,
}

impl Default for IcmpLimits {
    /// The kernel's own defaults.
    fn default() -> Self {
        Self { limited: true, interval_ms: 1000, per_second: 1000, burst: 50 }
    }
}

/// The bit of destination unreachable in `icmp_ratemask`.
const UNREACHABLE: u64 = 1 << 3;
/// Lines above the first service in `/proc/net/ip_vs`.
const IPVS_HEAD: usize = 3;

impl Waiting {
    /// Of this host, now.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(Path::new("/proc").join(path)).ok();
        let number = |name: &str| text(&format!("sys/net/ipv4/{name}"))?.trim().parse::<u64>().ok();
        let defaults = IcmpLimits::default();
        Self {
            ipvs: text("self/net/ip_vs").is_some_and(|text| has_services(&text)),
            // Where it can't be read there may be some.
            raw_udp: text("self/net/raw").is_none_or(|text| has_raw_udp(&text)),
            limits: IcmpLimits {
                limited: number("icmp_ratemask").is_none_or(|mask| mask & UNREACHABLE != 0),
                interval_ms: number("icmp_ratelimit").unwrap_or(defaults.interval_ms),
                // A namespace of its own has none before Linux 6.11; the machine's count then, and stay what they are.
                per_second: number("icmp_msgs_per_sec").unwrap_or(defaults.per_second),
                burst: number("icmp_msgs_burst").unwrap_or(defaults.burst),
            },
        }
    }
}

fn has_services(text: &str) -> bool {
    text.lines().skip(IPVS_HEAD).any(|line| !line.trim().is_empty())
}

/// The protocol stands in the place of the local port, in hexadecimal digits.
fn has_raw_udp(text: &str) -> bool {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).any(|local| local.ends_with(":0011"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_ipvs_are_told_from_its_head() {
        let head = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        assert!(!has_services(head));
        assert!(has_services(&format!("{head}UDP  C0000201:0035 rr\n")));
    }

    #[test]
    fn raw_sockets_of_udp_are_told_from_others() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
        let line = |protocol: &str| format!("{head}    1: 00000000:{protocol} 00000000:0000 07 00000000:00000000\n");
        assert!(!has_raw_udp(head) && !has_raw_udp(&line("0001")));
        assert!(has_raw_udp(&line("0011")));
    }

    #[test]
    fn this_kernel_says_its_limits() {
        let limits = Waiting::read().limits;
        assert!(limits.per_second > 0 && limits.burst > 0, "{limits:?}");
    }
}
