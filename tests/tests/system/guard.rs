//! What must not get through: frames from the wire that address a container directly.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::lab::{CONTAINERS, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;

use super::reach::{connect, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("the very first packets of a container never leave under its own address", first_packets).every_engine(),
    Case::new("an unpublished port can't be reached from the wire by the container's address", unpublished)
        .every_engine(),
    Case::new("with --xdp off, frames to a container's address are dropped and counted", |lab| counted(lab, "off"))
        .own_netpath(),
    Case::new("with --xdp generic, frames to a container's address are dropped and counted", |lab| {
        counted(lab, "generic")
    })
    .own_netpath(),
    Case::new("with --xdp native, frames to a container's address are dropped and counted", |lab| {
        counted(lab, "native")
    })
    .own_netpath(),
];

/// Of the thousand datagrams that a container sends in its first second: those that pass after it is carried.
const ENOUGH_PACKETS: usize = 300;

/// The lan's route to the containers, through the host.
struct DirectRoute<'a>(&'a Place);

impl<'a> DirectRoute<'a> {
    fn add(lan: &'a Place) -> Result<Self> {
        lan.run(&["ip", "route", "add", CONTAINERS, "via", &HOST.to_string()])?;
        Ok(Self(lan))
    }
}

impl Drop for DirectRoute<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.run(&["ip", "route", "delete", CONTAINERS]) {
            eprintln!("a route stays: {error:#}");
        }
    }
}

fn first_packets(lab: &mut Lab) -> Result<()> {
    let witness = lab.lan().enter(|| Ok(UdpSocket::bind(SocketAddrV4::new(LAN, 0))?))?;
    witness.set_read_timeout(Some(Duration::from_secs(3)))?;
    let call = format!("call:{}", witness.local_addr()?);
    for _ in 0..3 {
        let _container = lab.docker().serving(&["tcp:80", &call]).start()?;
        for _ in 0..ENOUGH_PACKETS {
            let (_, source) = witness.recv_from(&mut [0; 64]).context("wait for the container's datagrams")?;
            ensure!(source.ip() == HOST, "a datagram left as {source}, not under the host's address {HOST}");
        }
    }
    Ok(())
}

fn unpublished(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let _route = DirectRoute::add(lab.lan())?;
    expect_silence(lab.lan(), SocketAddrV4::new(container.address()?, 81))
}

fn counted(lab: &mut Lab, xdp: &str) -> Result<()> {
    lab.start_netpath(Options::new(&["--xdp", xdp]))?;
    let container = lab.start(lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let before = lab.netpath()?.drops("direct_to_container")?;
    {
        let _route = DirectRoute::add(lab.lan())?;
        // The published one too: it is published at the host's address, not at the container's.
        expect_silence(lab.lan(), SocketAddrV4::new(container.address()?, 80))?;
        expect_silence(lab.lan(), SocketAddrV4::new(container.address()?, 81))?;
    }
    let dropped = lab.netpath()?.drops("direct_to_container")? - before;
    ensure!(dropped >= 2, "{dropped} frames were counted as dropped");
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("the proper way works")
}
