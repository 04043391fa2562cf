//! ICMP errors find the socket whose packet they are about, through the translation.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::UdpClient;
use netpath_tests::icmp::{IcmpError, PORT_UNREACHABLE, TIME_EXCEEDED, queue_errors, queued_error};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::proof::NatCounters;
use netpath_tests::wait;

pub(crate) const CASES: &[Case] = &[
    Case::new("a container learns that a UDP port of the world is closed", closed_outside),
    Case::new("a client learns that nothing listens behind a published UDP port", closed_inside),
    Case::new("a container's packet with a time to live of 1 ends at the gateway, which says so", first_hop),
    Case::new("a container's packet with a time to live of 2 ends at the next router, which says so", second_hop),
    Case::new("a client's packet that ends at the host on its way to a published port is reported", last_hop),
    Case::new("a server's answer that ends at the host is reported", answer_ends),
    Case::new(
        "a container's packet to a published port ends at the gateway, which says so, or is Docker's in takeover",
        hairpin_ends,
    )
    .netpath(),
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

fn answer_ends(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let server = lab.lan().enter(|| Ok(UdpSocket::bind(SocketAddrV4::new(LAN, 0))?))?;
    let SocketAddr::V4(address) = server.local_addr()? else { bail!("not an IPv4 address") };
    let client = UdpClient::connect(&*container.place()?, address)?;
    client.socket().send(b"how far?").context("send")?;
    let (_, seen) = server.recv_from(&mut [0; 64]).context("receive the question")?;
    server.connect(seen)?;
    queue_errors(&server)?;
    server.set_ttl(1).context("set the time to live")?;
    server.send(b"too far").context("answer")?;
    let error = queued_error(server.as_raw_fd())?;
    ensure!(
        error == IcmpError { kind: TIME_EXCEEDED, from: HOST, mtu: 0 },
        "expected the host to answer, got {error:?}"
    );
    // The flow has not ended by it.
    server.set_ttl(64).context("set the time to live")?;
    server.send(b"not too far").context("answer")?;
    let mut buffer = [0; 64];
    let length = client.socket().recv(&mut buffer).context("receive the answer")?;
    ensure!(&buffer[..length] == b"not too far", "another answer came");
    Ok(())
}

fn hairpin_ends(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let client = lab.start(lab.docker().idle())?;
    let (place, target) = (client.place()?, SocketAddrV4::new(HOST, 8080));
    let before = lab.netpath()?.traffic("kernel_answers")?.packets;
    if lab.mode() == Mode::Sole {
        return expect_time_exceeded(&place, target, 1, GATEWAY);
    }
    // What becomes of it is for Docker's rules and docker-proxy to say.
    let client = UdpClient::connect(&place, target)?;
    client.socket().set_ttl(1).context("set the time to live")?;
    client.socket().send(b"how far?").context("send")?;
    wait::until("the kernel to be given the packet", Duration::from_secs(2), || {
        ensure!(lab.netpath()?.traffic("kernel_answers")?.packets > before, "it isn't counted");
        Ok(())
    })
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
