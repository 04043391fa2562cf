//! The world reaches published ports, and the container sees who asks.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::{FAR, HOST, HOST_SECOND, LAN, Lab};
use netpath_tests::wait;

use super::reach::{PUBLISH_DEADLINE, ask, connect, connect_from, expect_refused};

pub(crate) const CASES: &[Case] = &[
    Case::new("a published TCP port works, and the container sees the client's address", tcp).every_engine(),
    Case::new("a published UDP port works, and the container sees the client's address", udp).every_engine(),
    Case::new("a client behind the gateway is seen under its address", behind_the_gateway),
    Case::new("a range of 100 TCP and 100 UDP ports works", range),
    Case::new("a port published on one of the host's addresses works there and nowhere else", one_address)
        .every_engine(),
    Case::new("one port number serves TCP and UDP with different containers", one_number),
    Case::new("within a second of docker run a new container is reached and reaches the world", within_a_second)
        .every_engine(),
    Case::new("after docker restart the port works again and old connections have ended", container_restart)
        .every_engine(),
    Case::new("after a container has gone, its port is refused and another can take it", port_moves).every_engine(),
    Case::new("a port published by a container on a network of its own works", own_network).every_engine(),
    Case::new("one client port talks to two published ports with the same container port", one_client_port),
];

fn tcp(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let mut client = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    expect_client(client.who()?, client.local(), LAN)
}

fn udp(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["udp:53"]).publish("8053:53/udp"))?;
    let client = ask(lab, SocketAddrV4::new(HOST, 8053))?;
    expect_client(client.ask("who am I")?, client.local(), LAN)
}

fn behind_the_gateway(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let mut client = TcpClient::connect(lab.far(), SocketAddrV4::new(HOST, 8080))?;
    expect_client(client.who()?, client.local(), FAR)
}

fn range(lab: &mut Lab) -> Result<()> {
    let request = lab.docker().serving(&["tcp:5000-5099", "udp:5000-5099"]);
    let _container = lab.start(request.publish("5000-5099:5000-5099").publish("5000-5099:5000-5099/udp"))?;
    // The last of them first: then all are there.
    connect(lab, SocketAddrV4::new(HOST, 5099))?;
    ask(lab, SocketAddrV4::new(HOST, 5099))?;
    for port in 5000..5100 {
        let target = SocketAddrV4::new(HOST, port);
        let mut client = TcpClient::connect(lab.lan(), target)?;
        expect_client(client.who()?, client.local(), LAN).with_context(|| format!("TCP {port}"))?;
        let client = UdpClient::connect(lab.lan(), target)?;
        expect_client(client.ask("who am I")?, client.local(), LAN).with_context(|| format!("UDP {port}"))?;
    }
    Ok(())
}

fn one_address(lab: &mut Lab) -> Result<()> {
    let request = lab.docker().serving(&["tcp:80", "udp:80"]);
    let (tcp, udp) = (format!("{HOST_SECOND}:8081:80"), format!("{HOST_SECOND}:8081:80/udp"));
    let _container = lab.start(request.publish(&tcp).publish(&udp))?;
    let mut client = connect(lab, SocketAddrV4::new(HOST_SECOND, 8081))?;
    expect_client(client.who()?, client.local(), LAN)?;
    let client = ask(lab, SocketAddrV4::new(HOST_SECOND, 8081))?;
    expect_client(client.ask("who am I")?, client.local(), LAN)?;
    expect_refused(lab, SocketAddrV4::new(HOST, 8081))?;
    let elsewhere = UdpClient::connect(lab.lan(), SocketAddrV4::new(HOST, 8081))?;
    let error = elsewhere.ask_in_vain("anybody there?")?;
    ensure!(error == std::io::ErrorKind::ConnectionRefused, "UDP at the other address: {error}");
    Ok(())
}

fn one_number(lab: &mut Lab) -> Result<()> {
    let tcp = lab.start(lab.docker().serving(&["tcp:80"]).publish("8082:80/tcp"))?;
    let udp = lab.start(lab.docker().serving(&["udp:80"]).publish("8082:80/udp"))?;
    ensure!(tcp.address()? != udp.address()?, "two containers have one address");
    let target = SocketAddrV4::new(HOST, 8082);
    connect(lab, target)?.echo("over TCP")?;
    ask(lab, target)?.ask("over UDP")?;
    Ok(())
}

fn within_a_second(lab: &mut Lab) -> Result<()> {
    let (_server, lan) = lab.lan_tcp()?;
    for round in 0..3 {
        let port = 8090 + round;
        let request = lab.docker().serving(&["tcp:80", "udp:80"]);
        let container = request.publish(&format!("{port}:80")).publish(&format!("{port}:80/udp")).start()?;
        let start = Instant::now();
        let target = SocketAddrV4::new(HOST, port);
        connect(lab, target)?.echo("already there")?;
        ask(lab, target)?.ask("already there")?;
        connect_from(&*container.place()?, lan)?.echo("and out")?;
        ensure!(start.elapsed() < PUBLISH_DEADLINE, "in round {round} it took {:?}", start.elapsed());
    }
    Ok(())
}

fn container_restart(lab: &mut Lab) -> Result<()> {
    // On a network where addresses can be asked for.
    let network = lab.docker().network(&["--subnet", "172.30.0.0/24"])?;
    let request = lab.docker().serving(&["tcp:80", "udp:80"]).network(network.name());
    let container = lab.start(request.publish("8083:80").publish("8083:80/udp"))?;
    let target = SocketAddrV4::new(HOST, 8083);
    let mut old = connect(lab, target)?;
    let old_questions = ask(lab, target)?;
    old_questions.ask("before")?;
    let before = container.address()?;
    // Another takes the address while it is away, so that it comes back under a new one.
    container.stop()?;
    let _heir = lab.start(lab.docker().idle().network(network.name()).option("--ip", &before.to_string()))?;
    container.start()?;
    ensure!(container.address()? != before, "the container came back under its old address");
    let mut client = connect(lab, target)?;
    expect_client(client.who()?, client.local(), LAN)?;
    // The same client socket, whose flow led to the old address, reaches the new one.
    old_questions.give_up_after(Duration::from_millis(100))?;
    wait::until("the old UDP flow to be gone", PUBLISH_DEADLINE, || old_questions.ask("after"))?;
    old.give_up_after(Duration::from_secs(1))?;
    ensure!(old.echo("still there?").is_err(), "a connection has outlived its container");
    container.restart()?;
    connect(lab, target)?.echo("and once more")
}

fn port_moves(lab: &mut Lab) -> Result<()> {
    let target = SocketAddrV4::new(HOST, 8084);
    let first = lab.start(lab.docker().serving(&["tcp:80"]).publish("8084:80"))?;
    connect(lab, target)?;
    drop(first);
    wait::until("the port to be refused", PUBLISH_DEADLINE, || expect_refused(lab, target))?;
    let _second = lab.start(lab.docker().serving(&["tcp:81"]).publish("8084:81"))?;
    let mut client = connect(lab, target)?;
    expect_client(client.who()?, client.local(), LAN)
}

fn own_network(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&[])?;
    let request = lab.docker().serving(&["tcp:80", "udp:80"]).network(network.name());
    let _container = lab.start(request.publish("8085:80").publish("8085:80/udp"))?;
    let target = SocketAddrV4::new(HOST, 8085);
    let mut client = connect(lab, target)?;
    expect_client(client.who()?, client.local(), LAN)?;
    let client = ask(lab, target)?;
    expect_client(client.ask("who am I")?, client.local(), LAN)
}

fn one_client_port(lab: &mut Lab) -> Result<()> {
    let _containers = [
        lab.start(lab.docker().serving(&["tcp:80"]).publish("8086:80"))?,
        lab.start(lab.docker().serving(&["tcp:80"]).publish("8087:80"))?,
    ];
    connect(lab, SocketAddrV4::new(HOST, 8086))?;
    connect(lab, SocketAddrV4::new(HOST, 8087))?;
    // One source port of one client to two published ports with one and the same container port behind them.
    let mut one = TcpClient::connect_from(lab.lan(), 45_000, SocketAddrV4::new(HOST, 8086))?;
    let mut other = TcpClient::connect_from(lab.lan(), 45_000, SocketAddrV4::new(HOST, 8087))?;
    one.echo("to the one")?;
    other.echo("to the other")?;
    ensure!(one.who()? == one.local() && other.who()? == other.local(), "a client's port was changed");
    Ok(())
}

fn expect_client(seen: SocketAddrV4, local: SocketAddrV4, address: Ipv4Addr) -> Result<()> {
    ensure!(local.ip() == &address, "the client has the address {local}, not {address}");
    ensure!(seen == local, "the container sees {seen}, not the client's {local}");
    Ok(())
}
