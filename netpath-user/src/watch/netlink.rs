//! The host's links, addresses and default routes, followed through rtnetlink multicast.
//!
//! A notification only says "read again": the whole tables are read after each burst of them. So an overrun of the
//! socket is nothing special, and a message can't be misunderstood.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv6Addr},
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
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::sleep,
};
use tracing::warn;

use super::{
    News,
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
const RECEIVE_BYTES: usize = 64 * 1024;

/// A subscription to the host's network.
pub struct HostWatch {
    socket: AsyncFd<Socket>,
}

impl HostWatch {
    /// Subscribes. Changes from now on are not missed, so subscribe before the first [`read`].
    ///
    /// # Errors
    ///
    /// When the kernel gives no socket.
    pub fn subscribe() -> anyhow::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("opening an rtnetlink socket")?;
        socket.bind(&SocketAddr::new(0, 0)).context("binding an rtnetlink socket")?;
        socket.set_non_blocking(true).context("making an rtnetlink socket non-blocking")?;
        for group in GROUPS {
            socket.add_membership(group).with_context(|| format!("joining rtnetlink group {group}"))?;
        }
        // SAFETY: `Socket` owns its descriptor, closes it only when dropped and always gives the same one; it is dropped
        // together with the registration, which takes it by value.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = registered.map_err(io::Error::from).context("watching an rtnetlink socket")?;
        Ok(Self { socket })
    }

    /// Sends the host's model each time it differs from the last one, until nobody listens.
    pub async fn run(self, mut last: Arc<HostModel>, news: mpsc::Sender<News>) {
        while !news.is_closed() {
            if let Err(error) = self.changed().await {
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

    /// Returns after a burst of relevant notifications.
    async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            ready.clear_ready();
            if self.drain()? == Seen::Change {
                sleep(SETTLE).await;
                self.drain()?;
                return Ok(());
            }
        }
    }

    /// Takes all that the socket holds.
    fn drain(&self) -> io::Result<Seen> {
        let mut seen = Seen::Nothing;
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.socket.get_ref().recv(&mut buffer, 0) {
                Ok(_) if rtnl::messages(&buffer).any(is_relevant) => seen = Seen::Change,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An overrun: something was missed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => seen = Seen::Change,
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Seen {
    Nothing,
    Change,
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
    Ok(HostModel {
        links: tables.links()?.iter().map(|message| (message.header.index, link(message))).collect::<BTreeMap<_, _>>(),
        addresses: tables.addresses()?.iter().filter_map(address).collect(),
        ipv6_addresses: tables.ipv6_addresses()?.iter().filter_map(ipv6_address).collect(),
        default_routes: default_routes(&tables.routes()?),
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
            LinkAttribute::LinkInfo(infos) => link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
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

fn is_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN
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
