//! Containers reach the world, which sees the host's address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::{EchoSocket, ping};
use netpath_tests::lab::{FAR, HOST, LAN, Lab};
use netpath_tests::netpath::Options;
use netpath_tests::server::{Server, any};

pub(crate) const CASES: &[Case] = &[
    Case::new("a container's TCP connection comes from the host's address", tcp).every_engine(),
    Case::new("a container's datagrams come from the host's address", udp).every_engine(),
    Case::new("a container's pings come from the host's address", icmp).every_engine(),
    Case::new("a container reaches a machine behind the gateway", behind_the_gateway),
    Case::new("a container's source port is kept when it is free", port_is_kept),
    Case::new("two containers use one source port to one TCP server at the same time", tcp_port_clash),
    Case::new("two containers use one source port to one UDP server at the same time", udp_port_clash),
    Case::new("two containers ping one machine with one identifier at the same time", icmp_clash),
    Case::new("a clashing source port is replaced by one of --port-range", port_range).own_netpath(),
    Case::new("a container on a network of its own reaches the world", own_network).every_engine(),
];

fn tcp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_tcp()?;
    let mut client = TcpClient::connect(&*container.place()?, target)?;
    expect_host(*client.who()?.ip())?;
    client.echo("and back")
}

fn udp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_udp()?;
    let client = UdpClient::connect(&*container.place()?, target)?;
    expect_host(*client.ask("who am I")?.ip())
}

fn icmp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let witness = EchoSocket::open(lab.lan())?;
    let socket = EchoSocket::open(&*container.place()?)?;
    socket.request(LAN, 77, 1, b"seen from the lan")?;
    expect_host(witness.requested(b"seen from the lan")?.from)?;
    let answer = socket.answer(77)?;
    ensure!(answer.from == LAN && answer.payload == b"seen from the lan", "got {answer:?}");
    Ok(())
}

fn behind_the_gateway(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let server = lab.far().enter(|| Server::tcp(any(0)))?;
    let target = std::net::SocketAddrV4::new(FAR, server.port());
    expect_host(*TcpClient::connect(&*container.place()?, target)?.who()?.ip())?;
    ping(&*container.place()?, FAR)
}

fn port_is_kept(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let ((_tcp, tcp), (_udp, udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
    let seen = TcpClient::connect_from(&*container.place()?, 34_567, tcp)?.who()?;
    ensure!(seen.port() == 34_567, "TCP port 34567 became {}", seen.port());
    let seen = UdpClient::connect_from(&*container.place()?, 34_568, udp)?.ask("which port")?;
    ensure!(seen.port() == 34_568, "UDP port 34568 became {}", seen.port());
    Ok(())
}

fn tcp_port_clash(lab: &mut Lab) -> Result<()> {
    let containers = [lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?];
    let (_server, target) = lab.lan_tcp()?;
    let mut clients = Vec::new();
    for container in &containers {
        clients.push(TcpClient::connect_from(&*container.place()?, 40_000, target)?);
    }
    let mut seen = BTreeSet::new();
    for client in &mut clients {
        seen.insert(client.who()?);
    }
    ensure!(seen.len() == 2, "the server can't tell them apart: {seen:?}");
    // Both still work now that both are open.
    clients.iter_mut().try_for_each(|client| client.echo("still here"))
}

fn udp_port_clash(lab: &mut Lab) -> Result<()> {
    let containers = [lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?];
    let (_server, target) = lab.lan_udp()?;
    let mut clients = Vec::new();
    for container in &containers {
        clients.push(UdpClient::connect_from(&*container.place()?, 40_001, target)?);
    }
    let first: Vec<_> = clients.iter().map(|client| client.ask("once")).collect::<Result<_>>()?;
    let second: Vec<_> = clients.iter().map(|client| client.ask("twice")).collect::<Result<_>>()?;
    ensure!(first[0] != first[1], "the server can't tell them apart: {first:?}");
    ensure!(first == second, "a mapping has changed: {first:?}, then {second:?}");
    Ok(())
}

fn icmp_clash(lab: &mut Lab) -> Result<()> {
    let containers = [lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?];
    let sockets = [EchoSocket::open(&*containers[0].place()?)?, EchoSocket::open(&*containers[1].place()?)?];
    let payloads: [&[u8]; 2] = [b"from the one", b"from the other"];
    for (socket, payload) in sockets.iter().zip(payloads) {
        socket.request(LAN, 78, 1, payload)?;
    }
    for (socket, payload) in sockets.iter().zip(payloads) {
        let answer = socket.answer(78)?;
        ensure!(answer.payload == payload, "got the other's answer: {answer:?}");
    }
    Ok(())
}

fn port_range(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::new(&["--port-range", "61000-61009"]))?;
    let containers = [lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?];
    let (_server, target) = lab.lan_udp()?;
    let first = UdpClient::connect_from(&*containers[0].place()?, 40_002, target)?.ask("first")?;
    let second = UdpClient::connect_from(&*containers[1].place()?, 40_002, target)?.ask("second")?;
    ensure!(first.port() == 40_002, "the first one's port became {}", first.port());
    ensure!((61_000..=61_009).contains(&second.port()), "the second one's port became {}", second.port());
    Ok(())
}

fn own_network(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&[])?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    let (_server, target) = lab.lan_tcp()?;
    expect_host(*TcpClient::connect(&*container.place()?, target)?.who()?.ip())
}

fn expect_host(seen: Ipv4Addr) -> Result<()> {
    ensure!(seen == HOST, "the other side sees {seen}, not the host's address {HOST}");
    Ok(())
}
