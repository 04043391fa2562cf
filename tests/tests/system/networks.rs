//! Networks among themselves: who of different networks, or of one that keeps its containers apart, reaches whom; and whose
//! address a container may send with.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, Network};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{HOST, HOST_SECOND, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::server::{Server, any};
use netpath_tests::wait;
use tempfile::NamedTempFile;

use super::reach::{connect, connect_from, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("without icc neighbours don't reach each other, but published ports and the world", icc_off)
        .every_engine(),
    Case::new("an internal network reaches its neighbours and the host at its gateway, and nothing else", internal)
        .every_engine(),
    Case::new("containers of other networks are closed by their addresses", other_networks),
    Case::new("a container on two networks is reached at its published port from both", published_on_several),
    Case::new("containers reach ports that other networks publish, by the host's address", published_of_others)
        .netpath()
        .every_engine(),
    Case::new("a fixed address, a bridge's own name, an MTU and a binding address of a network all count", own_options)
        .every_engine(),
    Case::new("a published port moves with its container from network to network", moves),
    Case::new("a container on two networks is reached on both and reaches the world", two_networks).every_engine(),
    Case::new("a container's foreign source is dropped and counted", foreign_source).netpath().every_engine(),
    Case::new("without icc, frames that the bridge asks nobody about are netpath's to drop", unguarded)
        .own_netpath()
        .takeover(),
    Case::new("with reach_published_of_others off, other networks' ports are closed", keeps_to_itself).own_netpath(),
    Case::new("with allow_foreign_sources a container sends with any address that nobody has", router).own_netpath(),
];

const ICC_OFF: &[&str] = &["--opt", "com.docker.network.bridge.enable_icc=false"];

/// A published port of the host.
const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);

/// How long it takes to believe that no answer comes.
const PATIENCE: Duration = Duration::from_millis(300);

fn at(container: &Container, port: u16) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(container.address()?, port))
}

/// Fails when a container is reached by TCP, UDP or ping.
fn expect_closed(from: &Place, to: &Container) -> Result<()> {
    expect_silence(from, at(to, 80)?)?;
    let client = UdpClient::connect(from, at(to, 80)?)?;
    client.give_up_after(PATIENCE)?;
    ensure!(client.ask("anybody?").is_err(), "{} got an answer over UDP", from.label());
    ensure!(ping(from, to.address()?).is_err(), "{} got an answer to a ping", from.label());
    Ok(())
}

fn serving(lab: &mut Lab, network: &Network) -> Result<Container> {
    lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).network(network.name()))
}

/// Drops for a reason, where netpath runs.
fn drops(lab: &mut Lab, reason: &str) -> Result<u64> {
    if lab.tests_netpath() { lab.netpath()?.drops(reason) } else { Ok(0) }
}

fn icc_off(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(ICC_OFF)?;
    let server = lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").network(network.name());
    let server = lab.start(server)?;
    let client = lab.start(lab.docker().idle().network(network.name()))?;
    let before = drops(lab, "icc_off")?;
    expect_closed(&*client.place()?, &server)?;
    if lab.mode() == Mode::Sole {
        ensure!(drops(lab, "icc_off")? >= before + 3, "nothing was counted");
    }
    connect_from(&*client.place()?, PUBLISHED)?;
    connect(lab, PUBLISHED)?;
    TcpClient::connect(lab.host(), at(&server, 80)?)?.echo("from the host")?;
    let (_lan, target) = lab.lan_tcp()?;
    ensure!(TcpClient::connect(&*client.place()?, target)?.who()?.ip() == &HOST, "not masqueraded");
    // No answer may have opened what was closed.
    expect_silence(&*client.place()?, at(&server, 80)?)
}

fn unguarded(lab: &mut Lab) -> Result<()> {
    const SWITCH: &str = "net/bridge/bridge-nf-call-iptables";
    let network = lab.docker().network(ICC_OFF)?;
    lab.host().sysctl(SWITCH, "0")?;
    let outcome = expect_unguarded_closed(lab, &network);
    lab.host().sysctl(SWITCH, "1")?;
    outcome
}

fn expect_unguarded_closed(lab: &mut Lab, network: &Network) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let server = serving(lab, network)?;
    let client = lab.start(lab.docker().idle().network(network.name()))?;
    expect_closed(&*client.place()?, &server)?;
    ensure!(lab.netpath()?.drops("icc_off")? >= 3, "nothing was counted");
    Ok(())
}

fn internal(lab: &mut Lab) -> Result<()> {
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
    let network = lab.docker().network(&["--internal", "--subnet", "10.78.0.0/24", "--gateway", "10.78.0.1"])?;
    let (server, client) = (serving(lab, &network)?, lab.start(lab.docker().idle().network(network.name()))?);
    let outside = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80"))?;
    connect(lab, PUBLISHED)?;
    let place = client.place()?;
    // What a container with NET_ADMIN may do: a missing route must not be what keeps it in.
    place.run(&["ip", "route", "replace", "default", "via", &GATEWAY.to_string()])?;

    TcpClient::connect(&place, at(&server, 80)?)?.echo("neighbour")?;
    ping(&place, server.address()?)?;
    TcpClient::connect(lab.host(), at(&server, 80)?)?.echo("from the host")?;
    let of_host = lab.host().enter(|| Server::tcp(any(0)))?;
    TcpClient::connect(&place, SocketAddrV4::new(GATEWAY, of_host.port()))?.echo("gateway")?;

    let before = drops(lab, "internal_network")?;
    let (_lan, on_lan) = lab.lan_tcp()?;
    expect_silence(&place, on_lan)?;
    expect_silence(&place, PUBLISHED)?;
    expect_silence(&place, SocketAddrV4::new(GATEWAY, 8080))?;
    expect_closed(&place, &outside)?;
    expect_closed(&*outside.place()?, &server)?;
    if lab.mode() == Mode::Sole {
        expect_silence(&place, SocketAddrV4::new(HOST, of_host.port()))?;
        ensure!(drops(lab, "internal_network")? >= before + 4, "nothing was counted");
    }
    Ok(())
}

fn other_networks(lab: &mut Lab) -> Result<()> {
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let (server, client) = (serving(lab, &one)?, lab.start(lab.docker().idle().network(other.name()))?);
    let of_default = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]))?;
    let before = drops(lab, "other_network")?;
    for (from, to) in [(&client, &server), (&client, &of_default), (&of_default, &server)] {
        expect_closed(&*from.place()?, to)?;
    }
    if lab.mode() == Mode::Sole {
        ensure!(drops(lab, "other_network")? >= before + 9, "not everything was counted");
    }
    Ok(())
}

fn published_of_others(lab: &mut Lab) -> Result<()> {
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let server = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(one.name());
    let _server = lab.start(server)?;
    let client = lab.start(lab.docker().idle().network(other.name()))?;
    let seen = connect_from(&*client.place()?, PUBLISHED)?.who()?;
    ensure!(seen.ip() == &client.address()?, "the server sees {seen}");
    Ok(())
}

/// It answers what it is asked from its second network by that network, as its routes say; so it must be asked by the gateway.
fn published_on_several(lab: &mut Lab) -> Result<()> {
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let server = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(one.name());
    let server = lab.start(server)?;
    lab.docker().run(&["network", "connect", other.name(), server.id()])?;
    for network in [&one, &other] {
        let client = lab.start(lab.docker().idle().network(network.name()))?;
        connect_from(&*client.place()?, PUBLISHED)
            .with_context(|| format!("from {}", network.name()))?
            .echo("hello")?;
    }
    connect(lab, PUBLISHED)?.echo("from the wire")
}

fn keeps_to_itself(lab: &mut Lab) -> Result<()> {
    let _file = configure(lab, "[isolation]\nreach_published_of_others = false\n")?;
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let server = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(one.name());
    let _server = lab.start(server)?;
    let neighbour = lab.start(lab.docker().idle().network(one.name()))?;
    let client = lab.start(lab.docker().idle().network(other.name()))?;
    connect(lab, PUBLISHED)?;
    connect_from(&*neighbour.place()?, PUBLISHED)?;
    expect_silence(&*client.place()?, PUBLISHED)?;
    ensure!(lab.netpath()?.drops("other_network")? > 0, "nothing was counted");
    Ok(())
}

fn own_options(lab: &mut Lab) -> Result<()> {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 77);
    let network = lab.docker().network(&[
        "--subnet",
        "10.79.0.0/24",
        "--opt",
        "com.docker.network.bridge.name=np-own",
        "--opt",
        "com.docker.network.driver.mtu=1400",
        "--opt",
        "com.docker.network.bridge.host_binding_ipv4=192.0.2.3",
    ])?;
    let server = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(network.name());
    let server = lab.start(server.option("--ip", &ADDRESS.to_string()))?;
    ensure!(server.address()? == ADDRESS, "it got {}", server.address()?);
    connect(lab, SocketAddrV4::new(HOST_SECOND, 8080))?;
    ensure!(
        TcpClient::connect_within(lab.lan(), 0, PUBLISHED, PATIENCE).is_err(),
        "the port is bound to an address that wasn't asked for"
    );
    let (_lan, target) = lab.lan_tcp()?;
    ensure!(TcpClient::connect(&*server.place()?, target)?.who()?.ip() == &HOST, "not masqueraded");
    let link = lab.host().run(&["ip", "link", "show", "np-own"])?;
    ensure!(link.contains("mtu 1400"), "the bridge is {link}");
    Ok(())
}

fn moves(lab: &mut Lab) -> Result<()> {
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let server = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(one.name()).start()?;
    let docker = lab.docker().clone();
    connect(lab, PUBLISHED)?;
    docker.run(&["network", "connect", other.name(), server.id()])?;
    connect(lab, PUBLISHED)?;
    docker.run(&["network", "disconnect", one.name(), server.id()])?;
    connect(lab, PUBLISHED)?;
    docker.run(&["network", "connect", one.name(), server.id()])?;
    docker.run(&["network", "disconnect", other.name(), server.id()])?;
    connect(lab, PUBLISHED)?.echo("still there").map(drop)
}

fn two_networks(lab: &mut Lab) -> Result<()> {
    let (one, other) = (lab.docker().network(&[])?, lab.docker().network(&[])?);
    let server = lab.docker().serving(&["tcp:80"]).network(one.name()).start()?;
    lab.docker().run(&["network", "connect", other.name(), server.id()])?;
    for network in [&one, &other] {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", network.name());
        let address: Ipv4Addr = lab.docker().run(&["inspect", "--format", &format, server.id()])?.parse()?;
        let client = lab.start(lab.docker().idle().network(network.name()))?;
        connect_from(&*client.place()?, SocketAddrV4::new(address, 80))?;
        // By its address on either network, whichever its default route leads through.
        let pid = lab.docker().run(&["inspect", "--format", "{{.State.Pid}}", server.id()])?;
        let place = Place::open("a container on two networks", format!("/proc/{pid}/ns/net").as_ref())?;
        let (_lan, target) = lab.lan_udp()?;
        let seen = wait::until("the way out", Duration::from_secs(1), || ask_as(&place, address, target))?;
        ensure!(seen.ip() == &HOST, "{address} is seen as {seen}");
    }
    Ok(())
}

/// The address of nobody, on the default network.
const NOBODY: Ipv4Addr = Ipv4Addr::new(172, 17, 200, 9);

fn foreign_source(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["udp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    let place = client.place()?;
    place.run(&["ip", "address", "add", "172.17.200.9/16", "dev", "eth0"])?;
    let (_lan, on_lan) = lab.lan_udp()?;
    ask_as(&place, client.address()?, at(&server, 80)?)?;
    let before = lab.netpath()?.drops("foreign_source")?;
    for target in [at(&server, 80)?, on_lan] {
        ensure!(ask_as(&place, NOBODY, target).is_err(), "{target} answered a foreign address");
    }
    let dropped = lab.netpath()?.drops("foreign_source")? - before;
    ensure!(dropped >= 2, "{dropped} were counted");
    Ok(())
}

fn router(lab: &mut Lab) -> Result<()> {
    let _file = configure(lab, "[networks.bridge]\nallow_foreign_sources = true\n")?;
    let server = lab.start(lab.docker().serving(&["udp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    let place = client.place()?;
    place.run(&["ip", "address", "add", "172.17.200.9/16", "dev", "eth0"])?;
    let seen = ask_as(&place, NOBODY, at(&server, 80)?)?;
    ensure!(seen.ip() == &NOBODY, "the server sees {seen}");
    // A neighbour's address stays the neighbour's.
    place.run(&["ip", "address", "add", &format!("{}/32", server.address()?), "dev", "lo"])?;
    let (_lan, on_lan) = lab.lan_udp()?;
    let before = lab.netpath()?.drops("foreign_source")?;
    ensure!(ask_as(&place, server.address()?, on_lan).is_err(), "a neighbour's address got an answer");
    ensure!(lab.netpath()?.drops("foreign_source")? > before, "nothing was counted");
    Ok(())
}

/// Asks over UDP from an address of the asker's choice; gives the address that the server saw.
fn ask_as(place: &Place, source: Ipv4Addr, target: SocketAddrV4) -> Result<SocketAddrV4> {
    let socket = place.enter(|| {
        let socket = UdpSocket::bind(SocketAddrV4::new(source, 0))?;
        socket.connect(target)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    let (seen, _) = answer.split_once(' ').with_context(|| format!("{answer:?} is no answer"))?;
    seen.parse().with_context(|| format!("{seen:?} is no address"))
}

/// Starts netpath with a configuration file, which must outlive it.
pub(crate) fn configure(lab: &mut Lab, text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("make a file")?;
    file.write_all(text.as_bytes()).context("write the file")?;
    lab.start_netpath(Options::new(&["--config", &file.path().to_string_lossy()]))?;
    Ok(file)
}
