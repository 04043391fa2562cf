//! What must hold between networks and across restarts, whatever the engine: each keeps its networks apart with rules
//! of its own, which takeover has to live beside, and without which sole has to do.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::dockerd::Restart;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netns::Place;

use super::reach::{connect, connect_from};

pub(crate) const CASES: &[Case] = &[
    Case::new("containers of different networks can't reach each other's addresses", apart).every_engine(),
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
