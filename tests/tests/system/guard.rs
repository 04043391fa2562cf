//! What must not get through: frames from the wire that address a container directly.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::lab::{CONTAINERS, HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;

use super::reach::{connect, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("an unpublished port can't be reached from the wire by the container's address", unpublished),
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

fn unpublished(lab: &mut Lab) -> Result<()> {
    let container = lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80").start()?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let _route = DirectRoute::add(lab.lan())?;
    expect_silence(lab.lan(), SocketAddrV4::new(container.address()?, 81))
}

fn counted(lab: &mut Lab, xdp: &str) -> Result<()> {
    lab.start_netpath(Options::new(&["--xdp", xdp]))?;
    let container = lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80").start()?;
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
