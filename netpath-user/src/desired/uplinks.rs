//! Which interfaces are uplinks.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    docker::DockerModel,
    host::{HostModel, Link},
    model::{IfIndex, Uplink},
};
use crate::report::UncoveredInterface;

/// The loopback interface's number, the same in every network namespace.
const LOOPBACK: IfIndex = 1;

/// How uplinks are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkChoice {
    /// These interfaces.
    Named(Vec<String>),
    /// The output interfaces of the default routes, those of [`stay`], and in sole mode those of [`beside`].
    DefaultRoutes,
}

/// Uplinks, and what can't be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The uplinks that exist.
    pub interfaces: BTreeSet<IfIndex>,
    /// Those of them that are one beside the default routes' only.
    pub beside: BTreeSet<IfIndex>,
    /// One sentence for each interface that was asked for, or found, but can't be used.
    pub refused: Vec<String>,
    /// What is asked for and isn't there now (object, reason).
    pub missing: Vec<(String, String)>,
}

/// The Ethernet interfaces by which the host reaches others without a default route: a second network's. In sole mode nobody but
/// netpath translates for what goes there or comes from there, as Docker's rules do for every interface; so these are uplinks too.
#[must_use]
pub fn beside(docker: &DockerModel, host: &HostModel) -> BTreeSet<IfIndex> {
    let addressed = host.addresses.iter().filter(|address| address.masquerades).map(|address| address.ifindex);
    addressed.filter(|ifindex| *ifindex != LOOPBACK && leads_out(*ifindex, docker, host)).collect()
}

/// Those of the uplinks so far that stay ones, whatever becomes of their routes and addresses: these may be back in a moment, as
/// when DHCP renews a lease or an interface is set up anew, and may have moved to another interface while connections go on by this
/// one. Docker's rules know no interface either of the connections that they carry.
#[must_use]
pub fn stay(docker: &DockerModel, host: &HostModel, present: impl Iterator<Item = IfIndex>) -> BTreeSet<IfIndex> {
    present.filter(|ifindex| leads_out(*ifindex, docker, host)).collect()
}

/// Whether it is an Ethernet interface of the host's own, and no port of another one, which has its packets then.
fn leads_out(ifindex: IfIndex, docker: &DockerModel, host: &HostModel) -> bool {
    let of_docker = |name: &str| docker.networks.values().any(|network| network.bridge == name);
    let link = host.links.get(&ifindex);
    link.is_some_and(|link| link.mac.is_some() && link.controller.is_none() && !of_docker(&link.name))
}

/// The interfaces with an address that aren't Ethernet (WireGuard, PPP, tun), and so can't be uplinks.
#[must_use]
pub fn uncovered(host: &HostModel) -> Vec<UncoveredInterface> {
    let can_not = host.links.iter().filter(|(ifindex, link)| **ifindex != LOOPBACK && link.mac.is_none());
    let because = "it isn't an Ethernet interface";
    let advice = "where containers must reach others by it, or be reached, let dockerd keep its rules (`netpath migrate --to takeover`)";
    let shown = can_not.map(|(ifindex, link)| not_covered(*ifindex, link, host, because, advice));
    shown.filter(|interface| !interface.addresses.is_empty()).collect()
}

/// In takeover mode, those of the interfaces that are bridges whose packets iptables' rules get before any program does: Docker's
/// have translated what is for a published port by then, and nf_conntrack must see the answers. All that goes by them takes the
/// kernel's way.
#[must_use]
pub fn left_to_rules(interfaces: &BTreeSet<IfIndex>, host: &HostModel) -> Vec<UncoveredInterface> {
    let asked = interfaces.iter().filter_map(|ifindex| {
        let link = host.links.get(ifindex).filter(|link| link.is_bridge && host.bridge_asks_rules)?;
        let because = "it is a bridge, and Docker's rules translate its packets before netpath sees them; they carry all that goes by it";
        let advice =
            "set net.bridge.bridge-nf-call-iptables to 0, or let netpath replace the rules (`netpath migrate --to sole`)";
        Some((*ifindex, link, because, advice))
    });
    asked.map(|(ifindex, link, because, advice)| not_covered(ifindex, link, host, because, advice)).collect()
}

fn not_covered(ifindex: IfIndex, link: &Link, host: &HostModel, because: &str, advice: &str) -> UncoveredInterface {
    let addresses = host.masquerade_addresses(ifindex);
    UncoveredInterface {
        name: link.name.clone(),
        ifindex,
        addresses: addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect(),
        because: because.to_owned(),
        advice: advice.to_owned(),
    }
}

/// The interfaces that are uplinks by name or by a default route, whatever they are.
#[must_use]
pub fn meant(choice: &UplinkChoice, host: &HostModel) -> BTreeSet<IfIndex> {
    match choice {
        UplinkChoice::Named(names) => {
            names.iter().filter_map(|name| host.link_named(name)).map(|(ifindex, _)| ifindex).collect()
        }
        UplinkChoice::DefaultRoutes => host.default_routes.iter().copied().collect(),
    }
}

/// Chooses the uplinks. `bridges` are the managed networks' and are never uplinks; `beside` are those that are uplinks
/// without a default route, if nobody has named any.
#[must_use]
pub fn choose(
    choice: &UplinkChoice,
    host: &HostModel,
    bridges: &BTreeSet<IfIndex>,
    beside: &BTreeSet<IfIndex>,
) -> Chosen {
    let mut chosen = Chosen::default();
    match choice {
        UplinkChoice::Named(names) => {
            for name in names {
                match host.link_named(name) {
                    Some((ifindex, _)) => chosen.add(ifindex, host, bridges),
                    None => chosen
                        .miss(&format!("uplink {name}"), "the interface doesn't exist; it is used once it appears"),
                }
            }
        }
        UplinkChoice::DefaultRoutes => {
            for ifindex in host.default_routes.iter().filter(|ifindex| !bridges.contains(ifindex)) {
                chosen.add(*ifindex, host, bridges);
            }
            chosen.beside = beside.difference(&chosen.interfaces).copied().collect();
            chosen.beside.retain(|ifindex| !bridges.contains(ifindex));
            chosen.interfaces.extend(&chosen.beside);
            if chosen.interfaces.is_empty() {
                chosen.miss(
                    "uplink",
                    "no IPv4 default route leads through an Ethernet interface; name one with --uplink",
                );
            }
        }
    }
    chosen
}

impl Chosen {
    /// Leaves out the bridges of [`left_to_rules`].
    pub fn leave_to_rules(&mut self, host: &HostModel) {
        for left in left_to_rules(&self.interfaces, host) {
            self.interfaces.remove(&left.ifindex);
            self.refused.push(format!("{}: {}; {}", left.name, left.because, left.advice));
        }
    }

    fn miss(&mut self, object: &str, reason: &str) {
        self.missing.push((object.to_owned(), reason.to_owned()));
    }

    fn add(&mut self, ifindex: IfIndex, host: &HostModel, bridges: &BTreeSet<IfIndex>) {
        let Some(link) = host.links.get(&ifindex) else { return };
        if bridges.contains(&ifindex) {
            self.refused.push(format!("{} is a bridge of Docker's and can't be an uplink", link.name));
        } else if link.mac.is_none() {
            self.refused.push(format!(
                "{} isn't an Ethernet interface and can't be an uplink; name another one with --uplink",
                link.name
            ));
        } else {
            self.interfaces.insert(ifindex);
        }
    }
}

/// What the dataplane needs to know of an uplink. Without an address it masquerades nothing, but flows that go by it live on:
/// those of published ports leave with the address that the client has asked, whoever has it now.
#[must_use]
pub fn uplink(ifindex: IfIndex, host: &HostModel) -> Option<Uplink> {
    let addresses = host.masquerade_addresses(ifindex);
    let link = host.links.get(&ifindex)?;
    let gateway = host.gateways.get(&ifindex).copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(Uplink { addresses, mtu: link.mtu, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::host::Address;

    #[test]
    fn what_has_an_address_and_is_no_ethernet_isnt_covered() {
        let link = |name: &str, mac| Link { name: name.to_owned(), mac, ..Link::default() };
        let address = |ifindex, last| {
            let address = Ipv4Addr::new(10, 9, 0, last);
            Address { ifindex, address, prefix_length: 32, masquerades: true }
        };
        let host = HostModel {
            links: [
                (1, link("lo", None)),
                (2, link("eth0", Some([2; 6]))),
                (3, link("wg0", None)),
                (4, link("tun0", None)),
            ]
            .into(),
            addresses: vec![address(1, 1), address(2, 2), address(3, 3)],
            ..HostModel::default()
        };
        let found = uncovered(&host);
        assert_eq!(found.iter().map(|found| (found.name.as_str(), found.ifindex)).collect::<Vec<_>>(), [("wg0", 3)]);
        assert_eq!(found[0].addresses, ["10.9.0.3/32"]);
    }
}
