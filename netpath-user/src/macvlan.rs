//! The host's own macvlan interfaces, by which it reaches its macvlan containers: made, routed and removed over rtnetlink.
//!
//! Which there should be is decided in [`crate::desired::macvlan`]. Here every step begins with what the kernel has, so a
//! restart adopts what is there, and whatever somebody else changes is put right.

use std::{collections::BTreeSet, fs, io, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, bail};
use rtnetlink::{
    Handle, LinkMacVlan, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope},
    },
};
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use crate::{
    desired::{
        macvlan::{Beside, Wanted, is_ours, name},
        model::IfIndex,
    },
    subnet::Subnet,
    watch::rtnl::Tables,
};

/// Between looks whether all is still as it should be, and attempts after a failure.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Keeps the host's interfaces as they are wanted, until nobody wants anything any more. They stay then. What it can't do it
/// says in `trouble`.
pub async fn keep(mut wanted: watch::Receiver<Option<Wanted>>, trouble: watch::Sender<Option<String>>) {
    loop {
        let now = wanted.borrow_and_update().clone();
        if let Some(now) = now {
            let outcome = bring(&now).await;
            let now = outcome.err().map(|error| format!("{error:#}"));
            if let Some(error) = now.as_ref().filter(|_| now != *trouble.borrow()) {
                warn!(error, "the host doesn't reach all of its macvlan containers; trying again");
            }
            trouble.send_replace(now);
        }
        if let Ok(Err(_)) = timeout(LOOK_AGAIN, wanted.changed()).await {
            return;
        }
    }
}

/// Removes all of them; gives their names.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove() -> anyhow::Result<Vec<String>> {
    let links = Tables::open()?.links()?;
    let handle = connect()?;
    let mut removed = Vec::new();
    for link in ours(&links) {
        delete(&handle, &link).await?;
        removed.push(link.name);
    }
    Ok(removed)
}

/// An interface that is the host's own.
struct Own {
    ifindex: IfIndex,
    name: String,
    parent: IfIndex,
}

fn ours(links: &[LinkMessage]) -> Vec<Own> {
    links.iter().filter_map(own).collect()
}

/// Ours by its name, and a macvlan that bridges: what else bears such a name is somebody else's.
fn own(link: &LinkMessage) -> Option<Own> {
    let (mut name, mut parent, mut bridges) = (None, None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()).filter(|name| is_ours(name)),
            LinkAttribute::Link(ifindex) => parent = Some(*ifindex),
            LinkAttribute::LinkInfo(infos) => bridges = infos.iter().any(is_bridging),
            _ => {}
        }
    }
    Some(Own { ifindex: link.header.index, name: name?, parent: parent? }).filter(|_| bridges)
}

fn is_bridging(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Data(InfoData::MacVlan(data)) if data.contains(&InfoMacVlan::Mode(MacVlanMode::Bridge)))
}

async fn bring(wanted: &Wanted) -> anyhow::Result<()> {
    let links = Tables::open()?.links()?;
    let handle = connect()?;
    for link in ours(&links) {
        if !wanted.contains_key(&link.parent) || link.name != name(link.parent) {
            delete(&handle, &link).await?;
            info!(
                interface = link.name,
                "the host's own macvlan interface is removed: it has no macvlan containers there"
            );
        }
    }
    for (parent, beside) in wanted {
        let name = name(*parent);
        let there = ours(&links).into_iter().find(|link| link.name == name && link.parent == *parent);
        let ifindex = match there {
            Some(link) => link.ifindex,
            None => create(&handle, *parent, &name).await?,
        };
        route(&handle, *parent, ifindex, beside).await.with_context(|| format!("setting routes to {name}"))?;
    }
    Ok(())
}

fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening an rtnetlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn delete(handle: &Handle, link: &Own) -> anyhow::Result<()> {
    handle.link().del(link.ifindex).execute().await.with_context(|| format!("removing the interface {}", link.name))
}

/// What it must not do: it hears the wire's broadcasts as the parent does, and would answer them a second time.
fn settle(name: &str) -> io::Result<()> {
    let set = |path: &str, value| fs::write(format!("/proc/sys/net/{path}").replace("NAME", name), value);
    // Only who is reached by it is told its Ethernet address: the wire is to have the parent's.
    set("ipv4/conf/NAME/arp_filter", "1")?;
    set("ipv4/conf/NAME/rp_filter", "1")?;
    // It would take addresses and default routes from the wire's routers.
    match set("ipv6/conf/NAME/disable_ipv6", "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn create(handle: &Handle, parent: IfIndex, name: &str) -> anyhow::Result<IfIndex> {
    let message = LinkMacVlan::new(name, parent, MacVlanMode::Bridge).build();
    handle.link().add(message).execute().await.with_context(|| format!("making the interface {name}"))?;
    let links = Tables::open()?.links()?;
    let Some(link) = ours(&links).into_iter().find(|link| link.name == name) else {
        bail!("the interface {name} has gone again");
    };
    settle(name).with_context(|| format!("setting up the interface {name}"))?;
    let up = LinkUnspec::new_with_index(link.ifindex).up().build();
    handle.link().set(up).execute().await.with_context(|| format!("setting the interface {name} up"))?;
    info!(interface = name, parent, "the host has an interface of its own to reach its macvlan containers");
    Ok(link.ifindex)
}

/// Gives the interface a route to each container and no others. A container that has another way already keeps it.
async fn route(handle: &Handle, parent: IfIndex, ifindex: IfIndex, beside: &Beside) -> anyhow::Result<()> {
    let table = Tables::open()?.routes()?;
    let is_of_main = |route: &&RouteMessage| route.header.table == RouteHeader::RT_TABLE_MAIN;
    let mut there = BTreeSet::new();
    for route in table.iter().filter(is_of_main) {
        let Some((destination, source)) = host_route(route, ifindex) else { continue };
        if source.is_some() && beside.containers.get(&destination) == source.as_ref() {
            there.insert(destination);
        } else {
            handle
                .route()
                .del(route.clone())
                .execute()
                .await
                .with_context(|| format!("removing that to {destination}"))?;
        }
    }
    for (container, source) in beside.containers.iter().filter(|(container, _)| !there.contains(container)) {
        if let Some(other) =
            way(table.iter().filter(is_of_main), *container).filter(|way| ![parent, ifindex].contains(way))
        {
            info!(%container, interface = other, "the host has another route to this macvlan container; it stays");
            continue;
        }
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(*container, 32)
            .output_interface(ifindex)
            .scope(RouteScope::Link)
            .pref_source(*source)
            .protocol(RouteProtocol::Static)
            .build();
        handle.route().add(route).execute().await.with_context(|| format!("adding that to {container}"))?;
    }
    Ok(())
}

/// The interface of the most specific route to an address.
fn way<'a>(routes: impl Iterator<Item = &'a RouteMessage>, address: Ipv4Addr) -> Option<IfIndex> {
    let leads = |route: &&RouteMessage| {
        route.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(subnet)) => {
                Subnet::new(*subnet, route.header.destination_prefix_length).contains(address)
            }
            _ => false,
        })
    };
    let best = routes.filter(leads).max_by_key(|route| route.header.destination_prefix_length)?;
    best.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

/// A route to a single machine by an interface: to whom, and from which address.
fn host_route(route: &RouteMessage, ifindex: IfIndex) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
    let (mut destination, mut source, mut is_here) = (None, None, false);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Oif(interface) => is_here = *interface == ifindex,
            _ => {}
        }
    }
    (is_here && route.header.destination_prefix_length == 32).then_some((destination?, source))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    fn link(name: &str, mode: MacVlanMode) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 9;
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(2),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
            ]),
        ];
        link
    }

    #[test]
    fn only_a_bridging_macvlan_with_our_name_is_ours() {
        let found = own(&link("np-macvlan2", MacVlanMode::Bridge)).unwrap();
        assert_eq!((found.ifindex, found.parent), (9, 2));
        assert!(own(&link("np-macvlan2", MacVlanMode::Vepa)).is_none());
        assert!(own(&link("macvlan2", MacVlanMode::Bridge)).is_none());
    }

    #[test]
    fn a_route_is_ours_by_its_interface() {
        let (container, source) = (Ipv4Addr::new(192, 0, 2, 50), Ipv4Addr::new(192, 0, 2, 2));
        let to = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(container, 32).output_interface(9);
        let route = to.pref_source(source).build();
        assert_eq!(host_route(&route, 9), Some((container, Some(source))));
        assert_eq!(host_route(&route, 8), None);
    }

    #[test]
    fn the_most_specific_route_is_the_way() {
        let route = |last, length, ifindex| {
            let subnet = Ipv4Addr::new(192, 0, 2, last);
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(subnet, length).output_interface(ifindex).build()
        };
        let table = [route(0, 24, 2), route(48, 28, 7), route(51, 32, 8)];
        let way_to = |last| way(table.iter(), Ipv4Addr::new(192, 0, 2, last));
        assert_eq!([way_to(9), way_to(50), way_to(51)], [Some(2), Some(7), Some(8)]);
        assert_eq!(way(table.iter(), Ipv4Addr::LOCALHOST), None);
    }
}
