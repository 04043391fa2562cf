//! Datagrams to ports of the host that nobody listens on: dropped early, which nobody must notice but by the load. Whoever
//! sends gets the same answers as from the plain kernel, and what somebody waits for without a socket gets through.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::UdpClient;
use netpath_tests::flood::{Flood, Kind};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::wait;
use tempfile::NamedTempFile;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "closed ports: in a flood the kernel answers as often as ever, and others are answered and served",
        |lab| flooded(lab, "native"),
    )
    .own_netpath(),
    Case::new("closed ports: the same at tc", |lab| flooded(lab, "off")).own_netpath(),
    Case::new("closed ports: a stream that an operator's rule leads elsewhere isn't touched", |lab| {
        led_elsewhere(lab).map(drop)
    })
    .own_netpath(),
    // In sole mode no rule that translates is left then, and the kernel doesn't go on with what it has begun either.
    Case::new("closed ports: nor is it when the rule is gone and nf_conntrack goes on", rule_gone)
        .own_netpath()
        .takeover(),
    Case::new("closed ports: the configuration leaves them to the kernel", off).own_netpath(),
];

const CLOSED: SocketAddrV4 = SocketAddrV4::new(HOST, 9999);
/// Where the flood goes.
const FLOODED: SocketAddrV4 = SocketAddrV4::new(HOST, 9998);
/// How long answers are counted.
const COUNTED: Duration = Duration::from_secs(4);
/// How soon the daemon sees a rule that came or went, and what follows from it shows.
const NOTICE_DEADLINE: Duration = Duration::from_secs(20);

fn flooded(lab: &mut Lab, xdp: &str) -> Result<()> {
    // To another port: what nf_conntrack knows already is left to the kernel.
    let (plain, _) = answers_in_a_flood(lab, SocketAddrV4::new(HOST, 9996))?;
    lab.start_netpath(Options::new(&["--xdp", xdp]))?;
    expect(lab, true)?;
    refused(lab.lan()).context("before the flood")?;
    let before = lab.netpath()?.drops("port_closed")?;
    let (answered, sent) = answers_in_a_flood(lab, FLOODED)?;
    let dropped = lab.netpath()?.drops("port_closed")? - before;
    println!("{plain} answers from the kernel alone, {answered} with netpath, which dropped {dropped} of {sent}");
    ensure!(answered * 10 >= plain * 8, "the kernel alone gave {plain} answers, with netpath {answered}");
    ensure!(dropped * 10 >= sent * 5, "only {dropped} of {sent} datagrams were dropped early");

    // One sender's flood is nobody else's business.
    let _flood = Flood::start(lab.lan(), Kind::Datagram, FLOODED, Some(20_000))?;
    wait::until("the flood", NOTICE_DEADLINE, || {
        ensure!(lab.netpath()?.drops("port_closed")? > before + dropped + 10_000, "nothing is dropped any more");
        Ok(())
    })?;
    refused(lab.far()).context("in the flood")?;
    let server = lab.host().enter(|| Ok(UdpSocket::bind(CLOSED)?))?;
    server.set_read_timeout(Some(Duration::from_secs(2)))?;
    for place in [lab.far(), lab.lan()] {
        UdpClient::connect(place, CLOSED)?.socket().send(b"now open")?;
        let (length, _) = server.recv_from(&mut [0; 16]).context("what is sent to the new socket")?;
        ensure!(length == 8, "{length} bytes came");
    }
    Ok(())
}

/// The port is closed, as whoever sends to it is told.
fn refused(place: &Place) -> Result<()> {
    let error = UdpClient::connect(place, CLOSED)?.ask_in_vain("anybody there?")?;
    ensure!(error == ErrorKind::ConnectionRefused, "the sender was told {error:?}");
    Ok(())
}

/// How many ICMP errors the host sends in a flood whose datagrams each come from another address; and how many came.
fn answers_in_a_flood(lab: &Lab, target: SocketAddrV4) -> Result<(u64, u64)> {
    let flood = Flood::start(lab.lan(), Kind::Scattered, target, None)?;
    // Until what may be sent at once is gone.
    thread::sleep(Duration::from_secs(1));
    let (before, sent) = (answers(lab.host())?, flood.sent());
    thread::sleep(COUNTED);
    let counts = (answers(lab.host())? - before, flood.sent() - sent);
    flood.end()?;
    Ok(counts)
}

/// ICMP errors "unreachable" that a namespace has sent.
fn answers(place: &Place) -> Result<u64> {
    let counters = place.run(&["cat", "/proc/net/snmp"])?;
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(str::split_whitespace);
    let (Some(mut names), Some(mut values)) = (lines.next(), lines.next()) else { bail!("no counters of ICMP") };
    let place = names.position(|name| name == "OutDestUnreachs").context("no counter of them")?;
    values.nth(place).context("no count of them")?.parse().context("read the count of them")
}

/// Waits until datagrams to closed ports are dropped early, or are not.
fn expect(lab: &mut Lab, dropped: bool) -> Result<()> {
    wait::until(&format!("closed ports to be dropped: {dropped}"), NOTICE_DEADLINE, || {
        let closed = lab.netpath()?.status()?.closed_ports;
        ensure!(closed.dropped == dropped, "status says {closed:?}");
        Ok(())
    })
}

/// Gives both ends of a stream that a rule led, which is gone again.
fn led_elsewhere(lab: &mut Lab) -> Result<(UdpClient, UdpSocket)> {
    const RULE: &[&str] = &["PREROUTING", "-p", "udp", "--dport", "9999", "-j", "REDIRECT", "--to-ports", "9997"];
    let host = Place::open("host", Path::new(&lab.host().path()))?;
    let rule = |verb| host.run(&[&["iptables", "-t", "nat", verb], RULE].concat());
    let server = host.enter(|| {
        let socket = UdpSocket::bind((HOST, 9997)).context("bind on the host")?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })?;
    lab.start_netpath(Options::new(&["--xdp", "native"]))?;
    expect(lab, true)?;
    rule("-A")?;
    expect(lab, false)?;
    let because = lab.netpath()?.status()?.closed_ports.because;
    ensure!(because.iter().any(|reason| reason.contains("REDIRECT")), "status says {because:?}");
    let client = UdpClient::connect(lab.lan(), CLOSED)?;
    stream(&client, &server).context("with the rule")?;
    expect_none_dropped(lab)?;
    rule("-D")?;
    expect(lab, true)?;
    Ok((client, server))
}

fn rule_gone(lab: &mut Lab) -> Result<()> {
    let (client, server) = led_elsewhere(lab)?;
    stream(&client, &server).context("what nf_conntrack goes on to translate without the rule")?;
    expect_none_dropped(lab)
}

fn expect_none_dropped(lab: &mut Lab) -> Result<()> {
    ensure!(lab.netpath()?.drops("port_closed")? == 0, "something was dropped as if nobody waited for it");
    Ok(())
}

/// Sends more than passes of one sender, and fails unless all of it arrives.
fn stream(client: &UdpClient, server: &UdpSocket) -> Result<()> {
    const COUNT: u32 = 4_000;
    for number in 0..COUNT {
        client.socket().send(&number.to_be_bytes())?;
    }
    for number in 0..COUNT {
        let mut datagram = [0; 4];
        server.recv_from(&mut datagram).with_context(|| format!("receive {number} of {COUNT}"))?;
        ensure!(u32::from_be_bytes(datagram) == number, "{datagram:?} came in the place of {number}");
    }
    Ok(())
}

fn off(lab: &mut Lab) -> Result<()> {
    let mut file = NamedTempFile::new().context("make a file")?;
    write!(file, "[edge]\ndrop_closed_ports = \"off\"\n").context("write the file")?;
    lab.start_netpath(Options::new(&["--config", &file.path().to_string_lossy()]))?;
    expect(lab, false)?;
    let flood = Flood::start(lab.lan(), Kind::Datagram, FLOODED, None)?;
    wait::until("a flood", NOTICE_DEADLINE, || {
        ensure!(flood.sent() > 10_000, "{} packets were sent", flood.sent());
        Ok(())
    })?;
    flood.end()?;
    ensure!(lab.netpath()?.drops("port_closed")? == 0, "datagrams were dropped early");
    refused(lab.far())
}
