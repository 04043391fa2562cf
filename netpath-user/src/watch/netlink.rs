//! The host's links, addresses and default routes, followed through rtnetlink multicast.
//!
//! A notification only says "read again": the whole tables are read after each burst of them. So an overrun of the
//! socket is nothing special, and a message can't be misunderstood.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
    sys::protocols::NETLINK_ROUTE,
};
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::{
    News,
    notifications::Notifications,
    rtnl::{self, Tables},
};
use crate::desired::{
    host::{Address, HostModel, Link},
    model::IfIndex,
};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: [u32; 4] = [1, 5, 7, 9];
/// A container's start is a burst of about ten notifications; waiting this long makes one round of them.
const SETTLE: Duration = Duration::from_millis(3);
/// Between attempts to read tables that couldn't be read.
const RETRY: Duration = Duration::from_millis(500);

/// A subscription to the host's network.
pub struct HostWatch {
    changes: Notifications,
}

impl HostWatch {
    /// Subscribes. Changes from now on are not missed, so subscribe before the first [`read`].
    ///
    /// # Errors
    ///
    /// When the kernel gives no socket.
    pub fn subscribe() -> anyhow::Result<Self> {
        let changes = Notifications::subscribe(NETLINK_ROUTE, &GROUPS, is_relevant);
        Ok(Self { changes: changes.context("subscribing to changes of the host's network")? })
    }

    /// Sends the host's model each time it differs from the last one, until nobody listens.
    pub async fn run(self, mut last: Arc<HostModel>, news: mpsc::Sender<News>) {
        while !news.is_closed() {
            if let Err(error) = self.changes.next(SETTLE).await {
                warn!(%error, "waiting for changes of the host's network failed; its tables are read anyway");
                sleep(RETRY).await;
            }
            let Some(model) = read_in_background().await else {
                sleep(RETRY).await;
                continue;
            };
            if model != *last {
                last = Arc::new(model);
                if news.send(News::Host(Arc::clone(&last))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Routers of cluster networks change routes all the time; only default routes matter here.
fn is_relevant(message: &[u8]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else { return true };
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
            route.header.destination_prefix_length == 0
        }
        _ => true,
    }
}

async fn read_in_background() -> Option<HostModel> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(model)) => Some(model),
        Ok(Err(error)) => {
            warn!(error = format!("{error:#}"), "reading the host's network failed; trying again");
            None
        }
        Err(_) => None,
    }
}

/// Reads the host's network. Blocks for a few milliseconds.
///
/// # Errors
///
/// When the kernel refuses to give a table.
pub fn read() -> anyhow::Result<HostModel> {
    let tables = Tables::open()?;
    let routes = tables.routes()?;
    Ok(HostModel {
        links: tables.links()?.iter().map(|message| (message.header.index, link(message))).collect::<BTreeMap<_, _>>(),
        addresses: tables.addresses()?.iter().filter_map(address).collect(),
        ipv6_addresses: tables.ipv6_addresses()?.iter().filter_map(ipv6_address).collect(),
        default_routes: default_routes(&routes),
        gateways: gateways(&routes),
        bridge_asks_rules: bridge_asks_rules(),
    })
}

/// Without the module br_netfilter there is no such file.
fn bridge_asks_rules() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.trim() == "1")
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link::default();
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(controller) => link.controller = Some(*controller),
            LinkAttribute::LinkInfo(infos) => {
                link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    if message.header.link_layer_type == LinkLayerType::Ether {
        link.mac = rtnl::ethernet_address(message);
    }
    link
}

fn address(message: &AddressMessage) -> Option<Address> {
    let secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
    Some(Address {
        ifindex: message.header.index,
        address: rtnl::own_address(message)?,
        prefix_length: message.header.prefix_len,
        masquerades: !secondary && message.header.scope == AddressScope::Universe,
    })
}

fn ipv6_address(message: &AddressMessage) -> Option<Ipv6Addr> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
        _ => None,
    });
    address.filter(|address| !address.is_unicast_link_local() && !address.is_loopback())
}

fn default_routes(routes: &[RouteMessage]) -> Vec<IfIndex> {
    let mut interfaces = Vec::new();
    for route in routes.iter().filter(|route| is_default(route)) {
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => interfaces.push(*ifindex),
                RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
                _ => {}
            }
        }
    }
    let mut seen = BTreeSet::new();
    interfaces.retain(|ifindex| seen.insert(*ifindex));
    interfaces
}

/// A route over several hops has none here: which one a packet takes is the kernel's choice. Tables besides the main one
/// come second: rules (`ip rule`) lead containers' packets there by what translation changes, so that the kernel wouldn't
/// find them again.
fn gateways(routes: &[RouteMessage]) -> BTreeMap<IfIndex, Ipv4Addr> {
    let mut gateways = BTreeMap::new();
    let others = routes.iter().filter(|route| !is_default(route) && is_default_of_a_table(route));
    for route in routes.iter().filter(|route| is_default(route)).chain(others) {
        let (mut interface, mut gateway) = (None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => interface = Some(*ifindex),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                _ => {}
            }
        }
        if let (Some(interface), Some(gateway)) = (interface, gateway) {
            gateways.entry(interface).or_insert(gateway);
        }
    }
    gateways
}

fn is_default(route: &RouteMessage) -> bool {
    is_default_of_a_table(route) && route.header.table == RouteHeader::RT_TABLE_MAIN
}

fn is_default_of_a_table(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    fn route(change: impl Fn(&mut RouteMessage)) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.attributes.push(RouteAttribute::Oif(2));
        change(&mut route);
        route
    }

    #[test]
    fn an_uplinks_gateway_is_that_of_its_first_default_route() {
        let via = |interface, last| {
            route(|route| {
                let gateway = RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, last));
                route.attributes = vec![RouteAttribute::Oif(interface), RouteAttribute::Gateway(gateway)];
            })
        };
        let to_a_subnet = route(|route| {
            route.header.destination_prefix_length = 24;
            route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 9))));
        });
        let of_table = |interface, last| {
            let mut route = via(interface, last);
            route.header.table = 100;
            route
        };
        let routes = [of_table(2, 9), of_table(6, 7), to_a_subnet, route(|_| ()), via(2, 1), via(2, 3), via(4, 5)];
        let gateway = |last| Ipv4Addr::new(192, 0, 2, last);
        let expected = [(2, gateway(1)), (4, gateway(5)), (6, gateway(7))];
        assert_eq!(gateways(&routes), expected.into());
    }

    #[test]
    fn default_routes_of_the_main_table_lead_to_uplinks() {
        let rows: [(&str, RouteMessage, &[IfIndex]); 5] = [
            ("a default route", route(|_| ()), &[2]),
            ("a subnet", route(|route| route.header.destination_prefix_length = 24), &[]),
            ("another table", route(|route| route.header.table = 100), &[]),
            ("an unreachable default", route(|route| route.header.kind = RouteType::Unreachable), &[]),
            (
                "several next hops",
                route(|route| {
                    let hop = |interface_index| {
                        let mut hop = RouteNextHop::default();
                        hop.interface_index = interface_index;
                        hop
                    };
                    route.attributes = vec![RouteAttribute::MultiPath(vec![hop(4), hop(5), hop(4)])];
                }),
                &[4, 5],
            ),
        ];
        for (description, route, expected) in rows {
            assert_eq!(default_routes(&[route]), expected, "{description}");
        }
    }

    #[test]
    fn this_namespace_can_be_read() {
        let model = read().unwrap();
        assert!(model.links.contains_key(&1), "there is always a loopback interface");
        assert_eq!(model.links[&1].mac, None, "loopback isn't Ethernet");
    }
}
