//! The host side of containers' veths, found from inside the containers' network namespaces.
//!
//! Docker's API doesn't say it. Inside the namespace the interface with the container's address names its peer by
//! `IFLA_LINK`, and knows its own Ethernet address and MTU, which the API fills in late or not at all. Only from there can
//! the interface be made to take frames, too.

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use tokio::sync::oneshot;

use super::rtnl::{self, Tables};
use crate::{desired::docker::Peer, ethtool};

/// One container's namespace and what to find there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Names of the same network namespace; the first one that can be opened is used.
    pub namespaces: Vec<PathBuf>,
    /// Interfaces to find.
    pub interfaces: Vec<Sought>,
}

/// An interface to find: by its address, else by its Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    /// The container's address.
    pub address: Ipv4Addr,
    /// The Ethernet address that Docker gave it, if it says so.
    pub mac: Option<[u8; 6]>,
}

/// What to do with an interface that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Nothing.
    #[default]
    Nothing,
    /// Make it take frames that XDP sends on the host's side: with generic receive offload a veth has a NAPI (kernel
    /// 5.13), and only then `veth_xdp_xmit` delivers (drivers/net/veth.c).
    TakeFrames,
}

/// What a search found, for each interface that was sought; an error when the namespace couldn't be read at all.
pub type Found = anyhow::Result<Vec<Option<Peer>>>;

/// Searches several containers' namespaces.
///
/// # Errors
///
/// When no thread can be started.
pub async fn search(searches: Vec<Search>, wish: Wish) -> anyhow::Result<Vec<Found>> {
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let (send, receive) = oneshot::channel();
    // A thread of its own that ends with the search: a pooled one would stay in the last container's namespace, keep
    // that alive and run other tasks in it.
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            // Nobody waits any more when the daemon stops.
            drop(send.send(searches.iter().map(|search| search_one(search, wish)).collect()));
        })
        .context("starting a thread that looks into containers' network namespaces")?;
    receive.await.map_err(|_| anyhow!("the thread that looks into containers' network namespaces ended early"))
}

fn search_one(search: &Search, wish: Wish) -> Found {
    enter(&search.namespaces)?;
    let tables = Tables::open()?;
    let links: BTreeMap<u32, LinkMessage> = tables.links()?.into_iter().map(|link| (link.header.index, link)).collect();
    let holders: BTreeMap<Ipv4Addr, u32> = tables
        .addresses()?
        .iter()
        .filter_map(|message| Some((rtnl::own_address(message)?, message.header.index)))
        .collect();
    let find = |sought: &Sought| {
        let by_address = holders.get(&sought.address).and_then(|index| links.get(index));
        let by_mac = || links.values().find(|link| sought.mac.is_some() && rtnl::ethernet_address(link) == sought.mac);
        let link = by_address.or_else(by_mac)?;
        let takes_frames = wish == Wish::TakeFrames && takes_frames(link);
        peer(link).map(|peer| Peer { takes_frames, ..peer })
    };
    Ok(search.interfaces.iter().map(find).collect())
}

fn enter(namespaces: &[PathBuf]) -> anyhow::Result<()> {
    let mut failure = None;
    for path in namespaces {
        match open_namespace(path) {
            Ok(()) => return Ok(()),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => bail!("Docker names no network namespace"),
    }
}

fn open_namespace(path: &Path) -> anyhow::Result<()> {
    let namespace = File::open(path).with_context(|| format!("opening the network namespace {}", path.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("entering the network namespace {}; netpath needs CAP_SYS_ADMIN", path.display()))
}

/// Makes an interface take frames; false: it doesn't.
fn takes_frames(link: &LinkMessage) -> bool {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    let result = ethtool::switch_gro_on(name.unwrap_or_default());
    result.unwrap_or_else(|error| {
        tracing::info!(name, %error, "generic receive offload can't be switched on in a container; its UDP goes by tc");
        false
    })
}

/// What a veth says of itself and of its other end; none for interfaces of other kinds.
fn peer(link: &LinkMessage) -> Option<Peer> {
    let mut host_ifindex = None;
    let mut mtu = None;
    let mut is_veth = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => host_ifindex = Some(*index),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::LinkInfo(infos) => is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            _ => {}
        }
    }
    let mac = rtnl::ethernet_address(link)?;
    let peer = Peer { host_ifindex: host_ifindex?, mac, mtu: mtu?, takes_frames: false };
    is_veth.then_some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth(change: impl Fn(&mut Vec<LinkAttribute>)) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::Link(17),
            LinkAttribute::Mtu(1450),
            LinkAttribute::Address(vec![2, 66, 172, 17, 0, 2]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        ];
        change(&mut link.attributes);
        link
    }

    #[test]
    fn a_veth_names_its_other_end() {
        let expected = Peer { host_ifindex: 17, mac: [2, 66, 172, 17, 0, 2], mtu: 1450, takes_frames: false };
        assert_eq!(peer(&veth(|_| ())), Some(expected));
    }

    #[test]
    fn interfaces_of_other_kinds_have_no_other_end_on_the_host() {
        let macvlan =
            veth(|attributes| attributes[3] = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)]));
        assert_eq!(peer(&macvlan), None);
    }

    #[tokio::test]
    async fn a_namespace_that_is_gone_is_an_error_of_its_own_search_only() {
        let gone = Search { namespaces: vec!["/proc/0/ns/net".into()], interfaces: vec![] };
        let nameless = Search { namespaces: vec![], interfaces: vec![] };
        let found = search(vec![gone, nameless], Wish::Nothing).await.unwrap();
        assert!(found.iter().all(Result::is_err));
    }
}
