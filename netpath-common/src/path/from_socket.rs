//! The host's own sockets: where one goes that asks for a published port.
//!
//! No packet is touched. The kernel asks before it chooses a source address and a route, so a socket that is led to the
//! container there has a plain connection between the bridge's address and the container's, and [`super::from_host`]
//! carries it. Without this, the listener that dockerd or docker-proxy holds on the port would take the connection.

use super::is_loopback;
use crate::{
    abi::{Address, Asked, AskedKey, Port, PublishedKey},
    tables::{Published, Tables},
    wire::protocol,
};

/// The container's port behind the published one that is asked for: on exactly this address, or on each of the host's,
/// to which 127.0.0.0/8 and its IPv6 addresses belong. `None`: the destination stays as it is.
#[inline(always)]
pub fn published<T: Tables>(tables: &T, asked: &Asked, protocol: u8) -> Option<Published> {
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return None;
    }
    let on = |address| {
        let block = tables.published(&PublishedKey::port(address, protocol, asked.port))?;
        Some(Published::of(block, asked.port))
    };
    let Some(address) = asked.as_ipv4() else {
        let published = on(ANY)?;
        return (asked.is_ipv6_loopback() || tables.is_host_address_ipv6(asked.address)).then_some(published);
    };
    // Asked for, 0.0.0.0 is the loopback address; in the map it stands for all addresses.
    let address = if address == ANY { LOCALHOST } else { address };
    if let Some(published) = on(address) {
        return Some(published);
    }
    let published = on(ANY)?;
    (is_loopback(address) || tables.is_host_address(address)).then_some(published)
}

const ANY: Address = [0; 4];
const LOCALHOST: Address = [127, 0, 0, 1];

/// Whether a socket that is bound to an IPv4 address, 0.0.0.0 being none, can talk to a container: the kernel sends
/// nothing with a loopback address out of another interface.
#[inline(always)]
#[must_use]
pub const fn may_leave(bound: Address) -> bool {
    !is_loopback(bound)
}

/// The same for an IPv6 socket; to an IPv4 container it can only talk with an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn may_leave_ipv6(bound: [u32; 4]) -> bool {
    match Asked::ipv6(bound, [0; 2]).as_ipv4() {
        Some(address) => may_leave(address),
        None => bound[0] | bound[1] | bound[2] | bound[3] == 0,
    }
}

/// Under which key is kept what a socket asked for that now has this peer.
#[inline(always)]
#[must_use]
pub const fn key(cookie: u64, address: Address, port: Port, protocol: u8) -> AskedKey {
    AskedKey { cookie, address, port, protocol, reserved: 0 }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{abi::Mode, model::Model};

    const WEB: Published = Published { address: [172, 17, 0, 2], port: [0, 80], reserved: [0; 2] };

    fn asked(address: &str, port: u16) -> Asked {
        let port = port.to_be_bytes();
        match address.parse::<Ipv4Addr>() {
            Ok(address) => Asked::ipv4(address.octets(), port),
            Err(_) => Asked::ipv6(words(address), port),
        }
    }

    fn words(address: &str) -> [u32; 4] {
        let bytes = address.parse::<Ipv6Addr>().unwrap().octets();
        std::array::from_fn(|word| u32::from_ne_bytes(std::array::from_fn(|byte| bytes[4 * word + byte])))
    }

    fn host_with(published: &[(&str, u16)]) -> Model {
        let mut model = Model::host(Mode::Sole);
        model.published.clear();
        for (address, port) in published {
            let address = address.parse::<Ipv4Addr>().unwrap().octets();
            model.publish((address, *port), protocol::TCP, (WEB.address, 80));
        }
        model
    }

    #[test]
    fn a_port_published_on_all_addresses_answers_on_each_of_the_hosts_own() {
        let model = host_with(&[("0.0.0.0", 8080)]);
        let own = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "198.51.100.1", "172.17.0.1", "::1", "::"];
        let mapped = ["::ffff:127.0.0.1", "::ffff:198.51.100.1", "::ffff:0.0.0.0"];
        for address in own.into_iter().chain(mapped) {
            assert_eq!(published(&model, &asked(address, 8080), protocol::TCP), Some(WEB), "{address}");
        }
        for address in ["198.51.100.2", "172.17.0.2", "::ffff:198.51.100.2", "2001:db8::1", "::2", "::7f00:1"] {
            assert_eq!(published(&model, &asked(address, 8080), protocol::TCP), None, "{address}");
        }
    }

    #[test]
    fn the_hosts_ipv6_addresses_are_its_own_too() {
        let mut model = host_with(&[("0.0.0.0", 8080), ("127.0.0.1", 8081)]);
        model.host_addresses_ipv6.insert(words("2001:db8::1"));
        assert_eq!(published(&model, &asked("2001:db8::1", 8080), protocol::TCP), Some(WEB));
        assert_eq!(published(&model, &asked("2001:db8::2", 8080), protocol::TCP), None);
        assert_eq!(published(&model, &asked("2001:db8::1", 8081), protocol::TCP), None);
    }

    #[test]
    fn a_port_published_on_one_address_answers_there_and_nowhere_else() {
        for (on, others) in [
            ("127.0.0.1", ["198.51.100.1", "127.0.0.2", "::1", "172.17.0.1"]),
            ("198.51.100.1", ["127.0.0.1", "172.17.0.1", "::1", "0.0.0.0"]),
        ] {
            let model = host_with(&[(on, 8080)]);
            assert_eq!(published(&model, &asked(on, 8080), protocol::TCP), Some(WEB), "{on}");
            for address in others {
                assert_eq!(published(&model, &asked(address, 8080), protocol::TCP), None, "{on}: {address}");
            }
        }
    }

    #[test]
    fn the_unspecified_address_asks_for_the_loopback_one() {
        let model = host_with(&[("127.0.0.1", 8080)]);
        assert_eq!(published(&model, &asked("0.0.0.0", 8080), protocol::TCP), Some(WEB));
    }

    #[test]
    fn an_exact_address_comes_before_all_addresses() {
        let mut model = host_with(&[("0.0.0.0", 8080)]);
        let other = Published { address: [172, 17, 0, 3], ..WEB };
        model.publish((Model::HOST, 8080), protocol::TCP, (other.address, 80));
        assert_eq!(published(&model, &asked("198.51.100.1", 8080), protocol::TCP), Some(other));
        assert_eq!(published(&model, &asked("127.0.0.1", 8080), protocol::TCP), Some(WEB));
    }

    #[test]
    fn other_ports_and_protocols_stay_as_they_are() {
        let model = host_with(&[("0.0.0.0", 8080)]);
        assert_eq!(published(&model, &asked("127.0.0.1", 8081), protocol::TCP), None);
        for other in [protocol::UDP, protocol::ICMP, 132] {
            assert_eq!(published(&model, &asked("127.0.0.1", 8080), other), None, "{other}");
        }
    }

    #[test]
    fn a_socket_bound_to_a_loopback_or_an_ipv6_address_stays_on_the_host() {
        assert!(may_leave([0; 4]) && may_leave([192, 0, 2, 1]));
        assert!(!may_leave([127, 0, 0, 1]));
        for address in ["::", "::ffff:0.0.0.0", "::ffff:192.0.2.1"] {
            assert!(may_leave_ipv6(words(address)), "{address}");
        }
        for address in ["::1", "::ffff:127.0.0.1", "2001:db8::1"] {
            assert!(!may_leave_ipv6(words(address)), "{address}");
        }
    }
}
