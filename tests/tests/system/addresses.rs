//! What published ports follow at run time: the host's addresses, and the ports that Docker chooses.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::container::Container;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::wait;

use super::reach::{PUBLISH_DEADLINE, ask, connect, expect_refused};

pub(crate) const CASES: &[Case] = &[
    Case::new("a published port follows the host's addresses as they come and go", comes_and_goes).every_engine(),
    Case::new("with docker run -P the ports that Docker chose work, after a restart the new ones", chosen)
        .every_engine(),
];

/// An address that the host has for a while.
const PASSING: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(200);

fn comes_and_goes(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8076:80").publish("8076:80/udp"))?;
    connect(lab, SocketAddrV4::new(HOST, 8076))?;
    let target = SocketAddrV4::new(PASSING, 8076);
    for _ in 0..2 {
        lab.host().run(&["ip", "address", "add", &format!("{PASSING}/24"), "dev", "eth0"])?;
        let outcome = follows(lab, target);
        lab.host().run(&["ip", "address", "del", &format!("{PASSING}/24"), "dev", "eth0"])?;
        outcome?;
        wait::until("the port to end with its address", PUBLISH_DEADLINE, || {
            ensure!(TcpClient::connect_within(lab.lan(), 0, target, ATTEMPT).is_err(), "{target} still answers");
            Ok(())
        })?;
    }
    connect(lab, SocketAddrV4::new(HOST, 8076))?.echo("at the address that stayed")
}

fn follows(lab: &Lab, target: SocketAddrV4) -> Result<()> {
    let mut client = connect(lab, target)?;
    ensure!(client.who()? == client.local(), "the client is seen otherwise");
    ask(lab, target).map(drop)
}

fn chosen(lab: &mut Lab) -> Result<()> {
    let request = lab.docker().serving(&["tcp:80", "udp:80"]).option("--expose", "80/tcp").option("--expose", "80/udp");
    let container = lab.start(request.flag("--publish-all"))?;
    let first = [port(lab, &container, "tcp")?, port(lab, &container, "udp")?];
    connect(lab, SocketAddrV4::new(HOST, first[0]))?.echo("by TCP")?;
    ask(lab, SocketAddrV4::new(HOST, first[1]))?;
    container.restart()?;
    let second = [port(lab, &container, "tcp")?, port(lab, &container, "udp")?];
    connect(lab, SocketAddrV4::new(HOST, second[0]))?.echo("by TCP after the restart")?;
    ask(lab, SocketAddrV4::new(HOST, second[1]))?;
    if second[0] != first[0] {
        expect_refused(lab, SocketAddrV4::new(HOST, first[0]))?;
    }
    Ok(())
}

/// The port that Docker chose for the container's port 80.
fn port(lab: &Lab, container: &Container, protocol: &str) -> Result<u16> {
    let shown = lab.docker().run(&["port", container.id(), &format!("80/{protocol}")])?;
    let first = shown.lines().next().unwrap_or_default();
    let (_, port) = first.rsplit_once(':').with_context(|| format!("docker port shows {shown:?}"))?;
    port.parse().with_context(|| format!("{port:?} is no port"))
}
