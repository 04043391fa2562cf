//! Containers as gateways of their neighbours: what a container sends by a neighbour is the neighbour's to route.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{CONTAINERS, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::wait;

use super::networks::configure;
use super::reach::{connect, connect_from};

pub(crate) const CASES: &[Case] = &[
    Case::new("what a container sends by a neighbour goes there and not to the world", by_neighbour)
        .netpath()
        .every_engine(),
    Case::new("without icc a container has no neighbour for its gateway", icc_off).netpath(),
    Case::new("a container that may send with foreign addresses is its neighbours' gateway", gateway)
        .own_netpath()
        .every_engine(),
];

/// An address behind the gateway.
const BEHIND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// How long it takes to believe that no answer comes.
const PATIENCE: Duration = Duration::from_millis(300);

/// How soon open flows follow a changed route.
const FOLLOWS: Duration = Duration::from_millis(1500);

fn lead(place: &Place, destination: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    place.run(&["ip", "route", "replace", &format!("{destination}/32"), "via", &gateway.to_string()]).map(drop)
}

/// A container that forwards or doesn't, and never tells its neighbours of a shorter way.
fn forwards(place: &Place, forwards: bool) -> Result<()> {
    for interface in ["all", "eth0"] {
        place.sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    place.sysctl("net/ipv4/ip_forward", if forwards { "1" } else { "0" })
}

fn by_neighbour(lab: &mut Lab) -> Result<()> {
    let neighbour = lab.start(lab.docker().idle())?;
    let client = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    forwards(&*neighbour.place()?, false)?;
    let place = client.place()?;
    let (_lan, on_lan) = lab.lan_udp()?;
    let open = UdpClient::connect(&place, on_lan)?;
    ensure!(open.ask("by the host")?.ip() == &HOST, "not masqueraded");

    lead(&place, LAN, neighbour.address()?)?;
    let unheard = UdpClient::connect(&place, on_lan)?;
    unheard.give_up_after(PATIENCE)?;
    ensure!(unheard.ask("by the neighbour").is_err(), "it went to the world all the same");
    open.give_up_after(PATIENCE)?;
    wait::until("an open flow to follow the route", FOLLOWS, || {
        ensure!(open.ask("by whom?").is_err(), "it still goes by the host");
        Ok(())
    })?;
    // What answers a published port leaves as it came, wherever the container's own connections go.
    let mut served = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    ensure!(served.who()? == served.local(), "the client is seen otherwise");

    place.run(&["ip", "route", "del", &format!("{LAN}/32")])?;
    ensure!(UdpClient::connect(&place, on_lan)?.ask("by the host again")?.ip() == &HOST, "not masqueraded");
    Ok(())
}

fn icc_off(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&["--opt", "com.docker.network.bridge.enable_icc=false"])?;
    let neighbour = lab.start(lab.docker().serving(&["udp:80"]).network(network.name()))?;
    let client = lab.start(lab.docker().idle().network(network.name()))?;
    let place = client.place()?;
    neighbour.place()?.run(&["ip", "address", "add", &format!("{BEHIND}/32"), "dev", "lo"])?;
    lead(&place, BEHIND, neighbour.address()?)?;
    let before = lab.netpath()?.drops("icc_off")?;
    let server = neighbour.place()?;
    let arrived = || received(&server);
    let seen = arrived()?;
    let behind = UdpClient::connect(&place, SocketAddrV4::new(BEHIND, 80))?;
    behind.give_up_after(PATIENCE)?;
    ensure!(behind.ask("anybody?").is_err(), "it got an answer");
    ensure!(arrived()? == seen, "the datagram has come to the neighbour");
    if lab.mode() == Mode::Sole {
        ensure!(lab.netpath()?.drops("icc_off")? > before, "nothing was counted");
    }
    Ok(())
}

/// Datagrams that a namespace has taken in.
fn received(place: &Place) -> Result<String> {
    let counters = place.run(&["cat", "/proc/self/net/snmp"])?;
    let line = counters.lines().rfind(|line| line.starts_with("Udp:")).context("no counters of UDP")?;
    line.split(' ').nth(1).map(str::to_owned).context("no counter of datagrams")
}

fn gateway(lab: &mut Lab) -> Result<()> {
    let _file = configure(lab, "[networks.bridge]\nallow_foreign_sources = true\n")?;
    let neighbour = lab.start(lab.docker().serving(&["tcp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    let (gateway, place) = (neighbour.place()?, client.place()?);
    forwards(&gateway, true)?;
    gateway.run(&["ip", "address", "add", &format!("{BEHIND}/32"), "dev", "lo"])?;
    lead(&place, BEHIND, neighbour.address()?)?;
    let mut behind = connect_from(&place, SocketAddrV4::new(BEHIND, 80)).context("behind the neighbour")?;
    ensure!(behind.who()?.ip() == &client.address()?, "it is seen otherwise");
    ping(&place, BEHIND)?;

    // On to the world under the neighbour's address, as a VPN's container does it.
    let masquerade = ["-t", "nat", "-A", "POSTROUTING", "!", "-d", CONTAINERS, "-j", "MASQUERADE"];
    gateway.run(&[&["iptables"], masquerade.as_slice()].concat())?;
    lead(&place, LAN, neighbour.address()?)?;
    let (_lan, on_lan) = lab.lan_tcp()?;
    let mut world = TcpClient::connect(&place, on_lan).context("by the neighbour to the world")?;
    ensure!(world.who()?.ip() == &HOST, "not masqueraded");
    forwards(&gateway, false)?;
    world.give_up_after(PATIENCE)?;
    ensure!(world.echo("past the neighbour?").is_err(), "it doesn't go by the neighbour");
    Ok(())
}
