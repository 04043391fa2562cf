//! The ways to attach: each does the same work, and status says which one it is.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netpath::Options;
use netpath_tests::proof::attached;
use netpath_tests::traffic::{Direction, transfer};

use super::own::{tcp_clash, udp_clash};
use super::reach::{ask, connect};

pub(crate) const CASES: &[Case] = &[
    Case::new("--xdp native runs XDP in the driver and carries everything", |lab| {
        carries(lab, &["--xdp", "native"], "tcx", Some("native"))
    })
    .own_netpath(),
    Case::new("--xdp generic runs XDP behind the driver and carries everything", |lab| {
        carries(lab, &["--xdp", "generic"], "tcx", Some("generic"))
    })
    .own_netpath(),
    Case::new("--xdp off runs no XDP and carries everything", |lab| carries(lab, &["--xdp", "off"], "tcx", None))
        .own_netpath(),
    Case::new("--xdp auto leaves XDP off on a veth", |lab| carries(lab, &["--xdp", "auto"], "tcx", None)).own_netpath(),
    Case::new("--tc clsact carries everything", |lab| carries(lab, &["--tc", "clsact"], "clsact", None)).own_netpath(),
    Case::new("the mode is told from dockerd, and status shows it", mode_is_detected).netpath(),
];

fn carries(lab: &mut Lab, options: &[&str], hook: &str, xdp: Option<&str>) -> Result<()> {
    lab.start_netpath(Options::new(options))?;
    let server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    let client = lab.start(lab.docker().idle())?;
    let ((_tcp, tcp), (_udp, udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
    let published = SocketAddrV4::new(HOST, 8080);

    let mut inbound = connect(lab, published)?;
    ensure!(inbound.who()? == inbound.local(), "the container doesn't see the client's address");
    ask(lab, published)?;
    let place = client.place()?;
    ensure!(TcpClient::connect(&place, tcp)?.who()?.ip() == &HOST, "the lan doesn't see the host's address");
    ensure!(UdpClient::connect(&place, udp)?.ask("hello")?.ip() == &HOST, "the lan doesn't see the host's address");
    TcpClient::connect(&place, SocketAddrV4::new(server.address()?, 80))?.echo("neighbour")?;
    TcpClient::connect(lab.host(), SocketAddrV4::new(server.address()?, 80))?.echo("from the host")?;
    udp_clash(lab, &place, 40_016, udp)?;
    tcp_clash(lab, &place, 40_017, tcp)?;
    for direction in [Direction::Download, Direction::Upload] {
        transfer(TcpClient::connect(&place, tcp)?, direction, 16 * 1024 * 1024).context("masqueraded")?;
        transfer(connect(lab, published)?, direction, 16 * 1024 * 1024).context("published")?;
    }
    expect_attached(lab, hook, xdp)
}

/// Compares what status says with what the kernel says.
fn expect_attached(lab: &mut Lab, hook: &str, xdp: Option<&str>) -> Result<()> {
    let status = lab.netpath()?.status()?;
    let [uplink] = status.uplinks.as_slice() else { anyhow::bail!("expected one uplink: {:?}", status.uplinks) };
    ensure!(uplink.name == "eth0", "the uplink is {uplink:?}");
    ensure!(uplink.hook.as_deref() == Some(hook), "status shows {uplink:?}, expected {hook}");
    ensure!(uplink.xdp_mode.as_deref() == xdp, "status shows {uplink:?}, expected XDP {xdp:?}");
    let programs = attached(lab.host())?;
    let at = |hook: &str| programs.iter().any(|one| one.interface == "eth0" && one.hook == hook);
    ensure!(uplink.egress.as_deref() == Some(hook), "status shows {uplink:?}, expected {hook} at egress");
    for direction in ["ingress", "egress"] {
        ensure!(at(&format!("{hook} {direction}")), "the kernel shows {programs:?}, expected {hook} at {direction}");
    }
    ensure!(at("xdp") == xdp.is_some(), "the kernel shows {programs:?}, expected XDP {xdp:?}");
    if let Some(mode) = xdp {
        let shown = lab.host().run(&["ip", "link", "show", "eth0"])?;
        ensure!(shown.contains("xdpgeneric") == (mode == "generic"), "the kernel runs XDP otherwise: {shown}");
    }
    Ok(())
}

fn mode_is_detected(lab: &mut Lab) -> Result<()> {
    let (mode, status) = (lab.mode().name(), lab.netpath()?.status()?);
    ensure!(status.mode == mode, "dockerd runs for {mode}, status says {}", status.mode);
    Ok(())
}
