//! Links with a smaller MTU, here and further on: senders learn of them, whichever way their packets go.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::{EchoSocket, FRAGMENTATION_NEEDED};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::server::{Server, any};
use netpath_tests::traffic::{Direction, transfer};
use netpath_tests::wait;

use super::reach::{ask, connect, connect_from};

pub(crate) const CASES: &[Case] = &[
    Case::new("a container learns of an uplink with a smaller MTU by ping", uplink_ping),
    Case::new("a container's upload gets through an uplink with a smaller MTU", uplink_upload),
    Case::new("a published server's data gets out of an uplink with a smaller MTU", uplink_published),
    Case::new(
        "datagrams of 4,000 bytes get out of an uplink with a smaller MTU, soon after it has become so",
        datagrams,
    ),
    Case::new("a container learns of a router's smaller MTU by ping", router_ping),
    Case::new("a container's upload gets through a router's smaller MTU", router_upload),
    Case::new("a published server's data gets through a router's smaller MTU", router_published),
];

/// Enough to fill every buffer on the way, so that large packets must get through.
const BYTES: u64 = 32 * 1024 * 1024;

/// An MTU of 1500 less the headers of IPv4 and ICMP.
const FULL_PING: usize = 1472;

/// The sender's end of a link with another MTU. The other end keeps its own, so that TCP isn't warned by its MSS.
struct SmallMtu<'a> {
    place: &'a Place,
    interface: &'static str,
}

impl<'a> SmallMtu<'a> {
    fn set(place: &'a Place, interface: &'static str, mtu: &str) -> Result<Self> {
        place.run(&["ip", "link", "set", interface, "mtu", mtu])?;
        Ok(Self { place, interface })
    }
}

impl Drop for SmallMtu<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.place.run(&["ip", "link", "set", self.interface, "mtu", "1500"]) {
            eprintln!("an MTU stays changed: {error:#}");
        }
    }
}

fn uplink_ping(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let _small = SmallMtu::set(lab.host(), "eth0", "1400")?;
    // netpath hears of the MTU through the kernel's notification, a moment later.
    wait::until("the uplink's MTU to count", Duration::from_secs(5), || {
        expect_fragmentation_needed(&*container.place()?, LAN, GATEWAY, 1400)
    })
}

fn uplink_upload(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, lan) = lab.lan_tcp()?;
    let _small = SmallMtu::set(lab.host(), "eth0", "1400")?;
    transfer(TcpClient::connect(&*container.place()?, lan)?, Direction::Upload, BYTES)
}

fn uplink_published(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let client = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let _small = SmallMtu::set(lab.host(), "eth0", "1400")?;
    transfer(client, Direction::Download, BYTES)
}

/// Their senders let them be fragmented. What they send first may be lost to tell them.
fn datagrams(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let container = lab.start(lab.docker().idle())?;
    let (_world, lan) = lab.lan_udp()?;
    let clients = [ask(lab, SocketAddrV4::new(HOST, 8080))?, UdpClient::connect(&*container.place()?, lan)?];
    let _here = SmallMtu::set(lab.host(), "eth0", "1280")?;
    let _there = SmallMtu::set(lab.lan(), "eth0", "1280")?;
    let text = "x".repeat(4000);
    for client in clients {
        client.give_up_after(Duration::from_millis(500))?;
        wait::until("an answer of 4,000 bytes", Duration::from_secs(5), || client.ask(&text).map(drop))?;
        client.ask(&text).context("the next one")?;
    }
    Ok(())
}

fn router_ping(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let _small = SmallMtu::set(lab.lan(), "far0", "1300")?;
    expect_fragmentation_needed(&*container.place()?, FAR, LAN, 1300)
}

fn router_upload(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let server = lab.far().enter(|| Server::tcp(any(0)))?;
    let _small = SmallMtu::set(lab.lan(), "far0", "1300")?;
    let client = TcpClient::connect(&*container.place()?, SocketAddrV4::new(FAR, server.port()))?;
    transfer(client, Direction::Upload, BYTES)
}

fn router_published(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let client = connect_from(lab.far(), SocketAddrV4::new(HOST, 8080))?;
    let _small = SmallMtu::set(lab.lan(), "far0", "1300")?;
    transfer(client, Direction::Download, BYTES)
}

/// Sends a ping that fills an MTU of 1500 with DF set, and expects to be told which MTU it may have.
fn expect_fragmentation_needed(
    place: &Place,
    target: std::net::Ipv4Addr,
    router: std::net::Ipv4Addr,
    mtu: u32,
) -> Result<()> {
    let socket = EchoSocket::open(place)?;
    socket.never_fragment()?;
    socket.request(target, 79, 1, &[0x55; FULL_PING])?;
    let error = socket.error().with_context(|| format!("after a ping of 1500 bytes to {target}"))?;
    ensure!(error.kind == FRAGMENTATION_NEEDED, "got {error:?}");
    ensure!(error.mtu == mtu && error.from == router, "expected MTU {mtu} from {router}, got {error:?}");
    // What fits is answered.
    let payload = vec![0x55; usize::try_from(mtu)? - 28];
    socket.request(target, 80, 2, &payload)?;
    let answer = socket.answer(80)?;
    ensure!(answer.payload == payload, "the answer differs");
    Ok(())
}
