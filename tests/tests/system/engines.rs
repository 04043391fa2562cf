//! What must hold between networks and across restarts, whatever the engine: each keeps its networks apart with rules
//! of its own, which takeover has to live beside, and without which sole has to do.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::dockerd::Restart;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netns::Place;

use super::reach::{connect, connect_from, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("containers of different networks can't reach each other's addresses", apart).every_engine(),
    Case::new("a container on an internal network gets neither in nor out, whatever routes it makes", internal)
        .every_engine(),
    Case::new("a published port works again after dockerd has been restarted", dockerd_restart).every_engine(),
];

/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(500);

fn apart(lab: &mut Lab) -> Result<()> {
    let networks = [lab.docker().network(&[])?, lab.docker().network(&[])?];
    let server = |lab: &mut Lab, network: &str| {
        let request = lab.docker().serving(&["tcp:80", "tcp:81", "udp:53"]).network(network);
        lab.start(request)
    };
    let (one, other) = (server(lab, networks[0].name())?, server(lab, networks[1].name())?);
    let default = lab.start(lab.docker().serving(&["tcp:80", "udp:53"]))?;
    for (from, to) in [(&one, &other), (&other, &one), (&one, &default), (&default, &one)] {
        expect_unreachable(&*from.place()?, to)?;
    }
    // What they shall be able to do.
    let neighbour = lab.start(lab.docker().idle().network(networks[0].name()))?;
    connect_from(&*neighbour.place()?, SocketAddrV4::new(one.address()?, 81))?.echo("within a network")
}

fn internal(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&["--internal", "--subnet", "172.31.77.0/24"])?;
    let inside = lab.start(lab.docker().serving(&["tcp:80", "udp:53"]).network(network.name()))?;
    let neighbour = lab.start(lab.docker().idle().network(network.name()))?;
    let outside = lab.start(lab.docker().serving(&["tcp:80", "udp:53"]))?;
    connect_from(&*neighbour.place()?, SocketAddrV4::new(inside.address()?, 80))?.echo("among themselves")?;
    let ((_tcp, tcp), (_udp, udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
    let place = inside.place()?;
    let cannot = TcpClient::connect_within(&place, 0, tcp, SILENCE);
    ensure!(cannot.is_err(), "without a route it reached {LAN}");
    // As a container with NET_ADMIN could.
    place.run(&["ip", "route", "replace", "default", "via", "172.31.77.1"])?;
    expect_silence(&place, tcp).context("with a route of its own, towards the wire")?;
    let question = UdpClient::connect(&place, udp)?;
    question.give_up_after(SILENCE)?;
    ensure!(question.ask("out").is_err(), "a datagram of an internal network reached {LAN}");
    expect_unreachable(&place, &outside)?;
    expect_unreachable(&*outside.place()?, &inside)
}

/// Neither by TCP nor by UDP.
fn expect_unreachable(from: &Place, to: &Container) -> Result<()> {
    let address = to.address()?;
    let connected = TcpClient::connect_within(from, 0, SocketAddrV4::new(address, 80), SILENCE);
    ensure!(connected.is_err(), "{} reached TCP port 80 of {address}", from.label());
    let question = UdpClient::connect(from, SocketAddrV4::new(address, 53))?;
    question.give_up_after(SILENCE)?;
    ensure!(question.ask("in").is_err(), "{} reached UDP port 53 of {address}", from.label());
    Ok(())
}

fn dockerd_restart(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8088:80"))?;
    let target = SocketAddrV4::new(HOST, 8088);
    connect(lab, target)?.echo("before")?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    if lab.tests_netpath() {
        lab.netpath()?.wait_in_step()?;
    }
    container.start()?;
    connect(lab, target)?.echo("after")?;
    let (_server, lan) = lab.lan_tcp()?;
    connect_from(&*container.place()?, lan)?.echo("and out")
}
