//! Ranges of published ports: each port leads to its own, those beside them nowhere, and the map has few entries for them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::UdpClient;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::wait;

use super::churn::Maps;
use super::reach::{PUBLISH_DEADLINE, ask, connect, connect_from, expect_refused};

pub(crate) const CASES: &[Case] = &[
    Case::new("each port of a range leads to its own, and those beside it are closed", edges).netpath().minutes(5),
    Case::new("a range of 2,000 UDP ports works a second after docker run, and goes as soon", thousands)
        .netpath()
        .sole(),
];

/// How long it may take until the kernel says that a UDP port is closed.
const REFUSAL: Duration = Duration::from_secs(5);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(500);

fn edges(lab: &mut Lab) -> Result<()> {
    let maps = Maps::of(lab.netpath()?);
    let before = entries(&maps)?;
    // 9001 becomes 101, and so on; only these listen, so an answer comes from the right one.
    let ports = ["101", "120", "140", "146", "160"].map(|port| [format!("tcp:{port}"), format!("udp:{port}")]).concat();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let mut wide = lab.docker().patient().serving(&ports);
    for protocol in ["tcp", "udp"] {
        let (one, other) = (format!("9001-9040:101-140/{protocol}"), format!("9046-9060:146-160/{protocol}"));
        wide = wide.publish(&one).publish(&other);
    }
    let wide = lab.start(wide)?;
    for port in [9060, 9001, 9020, 9040, 9046] {
        expect_open(lab, port)?;
    }
    for port in [9000, 9041, 9045, 9061] {
        expect_closed(lab, port)?;
    }
    let with_wide = entries(&maps)?;
    let there = with_wide.difference(&before).count();
    ensure!(there == 20, "110 ports are {there} entries");

    let narrow = lab.docker().serving(&["tcp:201", "udp:201", "tcp:205", "udp:205"]);
    let narrow = lab.start(narrow.publish("9041-9045:201-205").publish("9041-9045:201-205/udp"))?;
    for port in [9045, 9041, 9040, 9046] {
        expect_open(lab, port)?;
    }
    let with_both = entries(&maps)?;
    ensure!(with_both.is_superset(&with_wide), "another container changed the entries of the first");
    connect_from(&*narrow.place()?, SocketAddrV4::new(HOST, 9020)).context("from a container")?;
    connect_from(lab.host(), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9040)).context("from the host")?;

    let mut open = connect(lab, SocketAddrV4::new(HOST, 9046))?;
    drop(narrow);
    expect_entries(&maps, &with_wide)?;
    expect_closed(lab, 9041)?;
    expect_closed(lab, 9045)?;
    open.echo("still there")?;
    drop(wide);
    expect_entries(&maps, &before)?;
    expect_closed(lab, 9001)?;
    expect_closed(lab, 9060)
}

fn thousands(lab: &mut Lab) -> Result<()> {
    const PORTS: usize = 2000;
    let maps = Maps::of(lab.netpath()?);
    let (shown, before) = (lab.netpath()?.ports()?.len(), entries(&maps)?);
    let request = lab.docker().patient().serving(&["udp:20000", "udp:20999", "udp:21999"]);
    let container = request.publish("20000-21999:20000-21999/udp").start()?;
    for port in [21_999, 20_000, 20_999] {
        let client = ask(lab, SocketAddrV4::new(HOST, port))?;
        ensure!(client.ask("who")? == client.local(), "the client is seen otherwise");
    }
    expect_closed(lab, 19_999)?;
    expect_closed(lab, 22_000)?;
    let there = lab.netpath()?.ports()?.len() - shown;
    ensure!(there == PORTS, "netpath shows {there} ports");
    let there = entries(&maps)?.difference(&before).count();
    ensure!(there == 10, "they are {there} entries");
    drop(container);
    expect_entries(&maps, &before)?;
    let left = lab.netpath()?.ports()?.len();
    ensure!(left == shown, "{left} ports are there");
    expect_closed(lab, 20_000)
}

/// The entries of the map of published ports.
fn entries(maps: &Maps) -> Result<BTreeSet<String>> {
    Ok(maps.dump("PUBLISHED")?.iter().map(|entry| format!("{}{}", entry["key"], entry["value"])).collect())
}

fn expect_entries(maps: &Maps, expected: &BTreeSet<String>) -> Result<()> {
    wait::until("the ports to go", PUBLISH_DEADLINE, || {
        let now = entries(maps)?;
        ensure!(now == *expected, "{} entries instead of {}", now.len(), expected.len());
        Ok(())
    })
}

fn expect_open(lab: &Lab, port: u16) -> Result<()> {
    let target = SocketAddrV4::new(HOST, port);
    let mut client = connect(lab, target)?;
    ensure!(client.who()? == client.local(), "at {target} the client is seen otherwise");
    ask(lab, target).map(drop)
}

fn expect_closed(lab: &Lab, port: u16) -> Result<()> {
    let target = SocketAddrV4::new(HOST, port);
    expect_refused(lab, target)?;
    // The kernel tells one sender no more than once a second, but for a few at first.
    wait::until(&format!("UDP {target} to be closed"), REFUSAL, || {
        let client = UdpClient::connect(lab.lan(), target)?;
        client.give_up_after(ATTEMPT)?;
        let error = client.ask_in_vain("anybody there?")?;
        ensure!(error == ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    })
}
