//! What a network's gateway does: translate, or not, and what it lets in by the containers' own addresses.
//!
//! dockerd 20.10 keeps every option and knows none of the gateway modes: in takeover they have no effect, as with Docker
//! alone, and in sole mode netpath gives them theirs.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::container::{Container, Network};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netns::Place;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::reach::{connect, connect_from, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("a routed network's published ports are open by its containers' addresses", routed).netpath(),
    Case::new("an unprotected network's containers are open, and masqueraded", unprotected).netpath(),
    Case::new("without masquerading a container has its own address, and only its answers come in", untranslated)
        .netpath(),
    Case::new("a trusted interface reaches what is published, by containers' addresses", trusted).netpath(),
    Case::new("an isolated network has no way out, not even to the host", isolated).netpath(),
    Case::new("the wire can't send with a container's address, nor with the host's", spoofed).netpath(),
];

const SUBNET: &str = "10.77.0.0/24";

/// A network with one more option, a container in it that publishes port 80 and not 81, and the lan's route to it.
struct Site {
    server: Container,
    _network: Network,
}

impl Site {
    fn create(lab: &mut Lab, option: &str) -> Result<Self> {
        let network = lab.docker().network(&["--subnet", SUBNET, "--opt", option])?;
        let server = lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80").network(network.name());
        let server = lab.start(server)?;
        lab.lan().run(&["ip", "route", "replace", SUBNET, "via", &HOST.to_string()])?;
        Ok(Self { server, _network: network })
    }

    fn at(&self, port: u16) -> Result<SocketAddrV4> {
        Ok(SocketAddrV4::new(self.server.address()?, port))
    }

    /// The address under which the lan sees it.
    fn seen(&self, lab: &Lab) -> Result<Ipv4Addr> {
        let (_server, target) = lab.lan_tcp()?;
        Ok(*TcpClient::connect(&*self.server.place()?, target)?.who()?.ip())
    }
}

fn is_alone(lab: &Lab) -> bool {
    lab.mode() == Mode::Sole
}

fn routed(lab: &mut Lab) -> Result<()> {
    let site = Site::create(lab, "com.docker.network.bridge.gateway_mode_ipv4=routed")?;
    if !is_alone(lab) {
        connect(lab, SocketAddrV4::new(HOST, 8080))?;
        expect_silence(lab.lan(), site.at(80)?)?;
        ensure!(site.seen(lab)? == HOST, "it isn't masqueraded");
        return Ok(());
    }
    let mut client = connect(lab, site.at(80)?)?;
    ensure!(client.who()?.ip() == &LAN, "the container sees {}", client.who()?);
    ping(lab.lan(), site.server.address()?)?;
    expect_silence(lab.lan(), site.at(81)?)?;
    ensure!(site.seen(lab)? == site.server.address()?, "it is masqueraded");
    // Other networks are no closer than the lan.
    let neighbour = lab.start(lab.docker().idle())?;
    let mut client = connect_from(&*neighbour.place()?, site.at(80)?)?;
    ensure!(client.who()?.ip() == &neighbour.address()?, "the container sees {}", client.who()?);
    expect_silence(&*neighbour.place()?, site.at(81)?)
}

fn unprotected(lab: &mut Lab) -> Result<()> {
    let site = Site::create(lab, "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    ensure!(site.seen(lab)? == HOST, "it isn't masqueraded");
    if !is_alone(lab) {
        return expect_silence(lab.lan(), site.at(81)?);
    }
    connect(lab, site.at(80)?)?;
    connect(lab, site.at(81)?)?;
    ping(lab.lan(), site.server.address()?)
}

fn untranslated(lab: &mut Lab) -> Result<()> {
    let site = Site::create(lab, "com.docker.network.bridge.enable_ip_masquerade=false")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let own = site.server.address()?;
    ensure!(site.seen(lab)? == own, "it is masqueraded");
    ping(&*site.server.place()?, LAN)?;
    if !is_alone(lab) {
        return Ok(());
    }
    let before = lab.netpath()?.drops("direct_to_container")?;
    expect_silence(lab.lan(), site.at(80)?)?;
    expect_silence(lab.lan(), site.at(81)?)?;
    ensure!(ping(lab.lan(), own).is_err(), "it answers a ping");
    ensure!(lab.netpath()?.drops("direct_to_container")? >= before + 3, "not everything was counted");
    Ok(())
}

fn trusted(lab: &mut Lab) -> Result<()> {
    let site = Site::create(lab, "com.docker.network.bridge.trusted_host_interfaces=eth0")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    ensure!(site.seen(lab)? == HOST, "it isn't masqueraded");
    if is_alone(lab) {
        connect(lab, site.at(80)?)?;
        expect_silence(lab.lan(), site.at(81)?)?;
    }
    Ok(())
}

fn isolated(lab: &mut Lab) -> Result<()> {
    let site = Site::create(lab, "com.docker.network.bridge.gateway_mode_ipv4=isolated")?;
    if !is_alone(lab) {
        ensure!(site.seen(lab)? == HOST, "it isn't masqueraded");
        return Ok(());
    }
    expect_silence(lab.lan(), site.at(80)?)?;
    let place = site.server.place()?;
    let (_server, target) = lab.lan_tcp()?;
    expect_silence(&place, target)?;
    ensure!(ping(&place, Ipv4Addr::new(10, 77, 0, 1)).is_err(), "the gateway answers");
    Ok(())
}

fn spoofed(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let before = lab.netpath()?.drops("spoofed_source")?;
    for source in [container.address()?, HOST] {
        send_as(lab.lan(), source, SocketAddrV4::new(HOST, 8080))?;
    }
    let dropped = lab.netpath()?.drops("spoofed_source")? - before;
    ensure!(dropped == 2, "{dropped} of 2 were counted");
    Ok(())
}

/// Sends a datagram with an address that isn't the sender's.
fn send_as(place: &Place, source: Ipv4Addr, target: SocketAddrV4) -> Result<()> {
    let socket = place.enter(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?))?;
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(source.octets(), target.ip().octets(), 64).udp(5000, target.port());
    builder.write(&mut packet, b"spoofed").context("build a packet")?;
    socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(*target.ip(), 0))).context("send a packet").map(drop)
}
