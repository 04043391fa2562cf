//! 256 MiB in each direction, checked by SHA-256: checksums, segmentation and the order of packets hold under load.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::traffic::{Direction, TRANSFER, transfer};

use super::reach::{ask, connect};

pub(crate) const CASES: &[Case] = &[
    Case::new("256 MiB go from a container to the world unchanged", |lab| masqueraded(lab, Direction::Upload)),
    Case::new("256 MiB come from the world to a container unchanged", |lab| masqueraded(lab, Direction::Download)),
    Case::new("256 MiB come in through a published port unchanged", |lab| published(lab, Direction::Upload)),
    Case::new("256 MiB go out through a published port unchanged", |lab| published(lab, Direction::Download)),
    Case::new("large datagrams go through whole, in fragments where they must", large_datagrams),
];

fn masqueraded(lab: &mut Lab, direction: Direction) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_tcp()?;
    transfer(TcpClient::connect(&*container.place()?, target)?, direction, TRANSFER)
}

fn published(lab: &mut Lab, direction: Direction) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let client = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    transfer(client, direction, TRANSFER)
}

fn large_datagrams(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let container = lab.start(lab.docker().idle())?;
    let (_lan_server, lan) = lab.lan_udp()?;
    let clients = [UdpClient::connect(&*container.place()?, lan)?, ask(lab, SocketAddrV4::new(HOST, 8080))?];
    for client in clients {
        for length in [1400, 1473, 4000, 20_000] {
            let what = || format!("{length} bytes from {} to {}", client.local(), client.remote());
            client.ask(&"x".repeat(length)).with_context(what)?;
        }
    }
    Ok(())
}
