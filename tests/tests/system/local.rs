//! Containers reach each other, the host reaches containers, and containers reach the host.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::icmp::ping;
use netpath_tests::lab::{GATEWAY, HOST, Lab};
use netpath_tests::server::{Server, any};
use netpath_tests::traffic::{Direction, TRANSFER, transfer};

pub(crate) const CASES: &[Case] = &[
    Case::new("containers reach each other by TCP, UDP and ping, each under its own address", containers)
        .every_engine(),
    Case::new("containers on a network of their own reach each other", own_network),
    Case::new("256 MiB go from container to container and back unchanged", bulk),
    Case::new("the host reaches a container by TCP, UDP and ping", host_to_container),
    Case::new("a container reaches the host by TCP, UDP and ping at the gateway's address", container_to_gateway),
    Case::new("a container reaches the host at its address on the wire", container_to_host),
];

fn containers(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    expect_neighbours(&client, &server)
}

fn own_network(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&[])?;
    let server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).network(network.name()))?;
    let client = lab.start(lab.docker().idle().network(network.name()))?;
    expect_neighbours(&client, &server)
}

fn bulk(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    let target = SocketAddrV4::new(server.address()?, 80);
    transfer(TcpClient::connect(&*client.place()?, target)?, Direction::Upload, TRANSFER)?;
    transfer(TcpClient::connect(&*client.place()?, target)?, Direction::Download, TRANSFER)
}

fn host_to_container(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]))?;
    let target = SocketAddrV4::new(container.address()?, 80);
    let seen = TcpClient::connect(lab.host(), target)?.who()?;
    ensure!(seen.ip() == &GATEWAY, "the container sees the host as {seen}");
    let seen = UdpClient::connect(lab.host(), target)?.ask("who am I")?;
    ensure!(seen.ip() == &GATEWAY, "the container sees the host as {seen}");
    ping(lab.host(), container.address()?)
}

fn container_to_gateway(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let place = container.place()?;
    let tcp = lab.host().enter(|| Server::tcp(SocketAddrV4::new(GATEWAY, 0)))?;
    let udp = lab.host().enter(|| Server::udp(SocketAddrV4::new(GATEWAY, 0)))?;
    let seen = TcpClient::connect(&place, tcp.address())?.who()?;
    ensure!(seen.ip() == &container.address()?, "the host sees the container as {seen}");
    let seen = UdpClient::connect(&place, udp.address())?.ask("who am I")?;
    ensure!(seen.ip() == &container.address()?, "the host sees the container as {seen}");
    ping(&place, GATEWAY)
}

fn container_to_host(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let server = lab.host().enter(|| Server::tcp(any(0)))?;
    let seen = TcpClient::connect(&*container.place()?, SocketAddrV4::new(HOST, server.port()))?.who()?;
    ensure!(seen.ip() == &container.address()?, "the host sees the container as {seen}");
    ping(&*container.place()?, HOST)
}

fn expect_neighbours(client: &Container, server: &Container) -> Result<()> {
    let (place, target) = (client.place()?, SocketAddrV4::new(server.address()?, 80));
    let seen = TcpClient::connect(&place, target)?.who()?;
    ensure!(seen.ip() == &client.address()?, "over TCP the one is seen as {seen}");
    let seen = UdpClient::connect(&place, target)?.ask("who am I")?;
    ensure!(seen.ip() == &client.address()?, "over UDP the one is seen as {seen}");
    ping(&place, server.address()?)?;
    ping(&*server.place()?, client.address()?)
}
