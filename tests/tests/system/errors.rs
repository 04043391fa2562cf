//! ICMP errors find the socket whose packet they are about, through the translation.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::UdpClient;
use netpath_tests::icmp::{IcmpError, PORT_UNREACHABLE, TIME_EXCEEDED, queue_errors, queued_error};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::proof::NatCounters;

pub(crate) const CASES: &[Case] = &[
    Case::new("a container learns that a UDP port of the world is closed", closed_outside),
    Case::new("a client learns that nothing listens behind a published UDP port", closed_inside),
    Case::new("a container's packet with a time to live of 1 ends at the gateway, which says so", first_hop),
    Case::new("a container's packet with a time to live of 2 ends at the next router, which says so", second_hop),
    Case::new("a client's packet that ends at the host on its way to a published port is reported", last_hop)
        .takeover(),
    Case::new("ICMP errors are translated by netpath, not by netfilter", by_netpath).netpath().takeover(),
];

/// A port at which nothing listens.
const CLOSED: u16 = 9;

fn closed_outside(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    expect_port_unreachable(&*container.place()?, SocketAddrV4::new(LAN, CLOSED), LAN)
}

fn closed_inside(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp").publish("8081:81/udp"))?;
    super::reach::ask(lab, SocketAddrV4::new(HOST, 8080))?;
    // The error must come from the address that was asked, else the client's kernel doesn't believe it.
    expect_port_unreachable(lab.lan(), SocketAddrV4::new(HOST, 8081), HOST)
}

fn first_hop(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    expect_time_exceeded(&*container.place()?, SocketAddrV4::new(FAR, CLOSED), 1, GATEWAY)
}

fn second_hop(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    expect_time_exceeded(&*container.place()?, SocketAddrV4::new(FAR, CLOSED), 2, LAN)
}

fn last_hop(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    super::reach::ask(lab, SocketAddrV4::new(HOST, 8080))?;
    expect_time_exceeded(lab.lan(), SocketAddrV4::new(HOST, 8080), 1, HOST)
}

fn by_netpath(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let counters = NatCounters::read(lab.host())?;
    let before = lab.netpath()?.traffic("icmp_error")?;
    expect_port_unreachable(&*container.place()?, SocketAddrV4::new(LAN, CLOSED), LAN)?;
    let after = lab.netpath()?.traffic("icmp_error")?;
    ensure!(after.packets > before.packets, "netpath counted no ICMP error");
    counters.expect_unmoved(lab.host())
}

fn expect_port_unreachable(place: &Place, target: SocketAddrV4, from: Ipv4Addr) -> Result<()> {
    let client = UdpClient::connect(place, target)?;
    let error = client.ask_in_vain("anybody there?")?;
    ensure!(error == ErrorKind::ConnectionRefused, "the socket's error is {error}");
    // Once more, to see who says so.
    let client = UdpClient::connect(place, target)?;
    queue_errors(client.socket())?;
    client.socket().send(b"anybody there?").context("send")?;
    let error = queued_error(client.socket().as_raw_fd())?;
    ensure!(error == IcmpError { kind: PORT_UNREACHABLE, from, mtu: 0 }, "expected {from} to answer, got {error:?}");
    Ok(())
}

fn expect_time_exceeded(place: &Place, target: SocketAddrV4, ttl: u32, from: Ipv4Addr) -> Result<()> {
    let client = UdpClient::connect(place, target)?;
    queue_errors(client.socket())?;
    client.socket().set_ttl(ttl).context("set the time to live")?;
    client.socket().send(b"how far?").context("send")?;
    let error = queued_error(client.socket().as_raw_fd())?;
    ensure!(error == IcmpError { kind: TIME_EXCEEDED, from, mtu: 0 }, "expected {from} to answer, got {error:?}");
    Ok(())
}
