//! macvlan containers and their own host, which the kernel keeps apart: netpath gives the host an interface beside them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, Network};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netpath::Options;
use netpath_tests::server::{Server, any};
use netpath_tests::wait;
use serde_json::{Value, json};

use super::networks::configure;
use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("the host and its macvlan containers reach each other, until the containers go", both_ways)
        .netpath()
        .every_engine(),
    Case::new("the host's way to macvlan containers outlives the daemon, and goes with detach", lifetime).own_netpath(),
    Case::new("with host_access off the host gets no macvlan interface", off).own_netpath(),
];

const MACVLAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 60);
const TARGET: SocketAddrV4 = SocketAddrV4::new(MACVLAN, 8070);

/// How soon the host's way comes and goes.
const SOON: Duration = Duration::from_secs(2);

/// How soon `netpath status` shows it: the daemon looks every two seconds at what nobody tells it of.
const SHOWN: Duration = Duration::from_secs(5);

/// How long it takes to believe that none comes.
const PATIENCE: Duration = Duration::from_millis(700);

/// The network comes first, so that it is dropped last.
fn start(lab: &Lab) -> Result<(Network, Container)> {
    let words = ["--driver", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--opt", "parent=eth0"];
    let network = lab.docker().network(&words)?;
    let serving = lab.docker().serving(&["tcp:8070", "udp:8070"]).network(network.name());
    let container = serving.option("--ip", &MACVLAN.to_string()).start()?;
    Ok((network, container))
}

/// What `netpath status` says of the host's way, as soon as `is_so`.
fn shown(lab: &mut Lab, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let netpath = lab.netpath()?;
    wait::until(what, SHOWN, || {
        let status: Value = serde_json::from_str(&netpath.output(&["status", "--output", "json"])?.stdout)?;
        let macvlan = &status["macvlan"];
        ensure!(is_so(macvlan), "status shows {macvlan}");
        Ok(())
    })
}

/// Whether it is the one way to the one container.
fn is_the_way(macvlan: &Value) -> bool {
    let parent = &macvlan["parents"][0];
    let container = json!([{"address": MACVLAN, "host_address": HOST}]);
    let is_up = parent["interface"].as_str().is_some_and(|name| name.starts_with("np-macvlan"));
    macvlan["host_access"] == true
        && macvlan["error"].is_null()
        && parent["parent"] == "eth0"
        && is_up
        && parent["containers"] == container
}

/// The name and the Ethernet address of the host's macvlan interface; empty: there is none.
fn interface(lab: &Lab) -> Result<String> {
    let links = lab.host().run(&["ip", "-brief", "link", "show", "type", "macvlan"])?;
    let line = links.lines().find(|line| line.starts_with("np-macvlan")).unwrap_or_default();
    let mut words = line.split_whitespace();
    Ok([words.next(), words.nth(1)].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn expect_interface(lab: &Lab, is_there: bool) -> Result<()> {
    wait::until_true("the host's macvlan interface to come or go", SOON, || Ok(interface(lab)?.is_empty() != is_there))
}

fn reach(lab: &Lab) -> Result<()> {
    let mut client = wait::until("the host's way to its macvlan container", SOON, || {
        TcpClient::connect_within(lab.host(), 0, TARGET, PATIENCE)
    })?;
    let seen = client.who()?;
    ensure!(seen.ip() == &HOST && seen == client.local(), "the host is seen as {seen}");
    Ok(())
}

fn both_ways(lab: &mut Lab) -> Result<()> {
    let (_network, container) = start(lab)?;
    let place = container.place()?;
    let of_host = lab.host().enter(|| Server::tcp(any(0)))?;
    expect_interface(lab, true)?;
    let mut first = TcpClient::connect(&place, SocketAddrV4::new(HOST, of_host.port())).context("to the host")?;
    ensure!(first.who()?.ip() == &MACVLAN, "the host sees another address");
    ping(&place, HOST).context("the container pings the host")?;
    reach(lab)?;
    UdpClient::connect(lab.host(), TARGET)?.ask("by UDP")?;
    ping(lab.host(), MACVLAN).context("the host pings the container")?;

    let mut wire = connect(lab, TARGET).context("from the wire")?;
    ensure!(wire.who()? == wire.local(), "the wire's client is seen otherwise");
    let (_lan, on_lan) = lab.lan_tcp()?;
    ensure!(TcpClient::connect(&place, on_lan)?.who()?.ip() == &MACVLAN, "out it goes under another address");
    ensure!(TcpClient::connect(lab.host(), on_lan)?.who()?.ip() == &HOST, "the host goes out under another address");
    ensure!(lab.netpath()?.status()?.in_sync, "netpath isn't in step");
    expect_one_answer(lab)?;
    shown(lab, "status to show the way", is_the_way)?;
    let table = lab.netpath()?.expect_code(&["status"], 0)?.stdout;
    ensure!(table.contains("macvlan: the host reaches its macvlan containers"), "{table}");
    ensure!(table.contains("MACVLAN PARENT") && table.contains(&MACVLAN.to_string()), "{table}");

    drop(container);
    expect_interface(lab, false)?;
    shown(lab, "status to forget the way", |macvlan| macvlan["parents"] == json!([]))?;
    let routes = lab.host().run(&["ip", "route", "show", &MACVLAN.to_string()])?;
    ensure!(routes.is_empty(), "a route is left: {routes}");
    Ok(())
}

/// The wire's question for the host's Ethernet address is the uplink's to answer, and nobody else's.
fn expect_one_answer(lab: &Lab) -> Result<()> {
    let name = interface(lab)?.split('@').next().context("there is no interface")?.to_owned();
    let sent = || {
        let shown = lab.host().run(&["ip", "-s", "-o", "link", "show", &name])?;
        shown.split_once("TX:").map(|(_, sent)| sent.to_owned()).context("no counter of sent packets")
    };
    let before = sent()?;
    lab.lan().run(&["ip", "neighbour", "flush", "dev", "eth0"])?;
    ping(lab.lan(), HOST)?;
    // A second answer would come from a queue of the kernel's.
    thread::sleep(PATIENCE);
    let now = sent()?;
    ensure!(now == before, "it has answered the wire: it had sent {before}, and now {now}");
    Ok(())
}

fn lifetime(lab: &mut Lab) -> Result<()> {
    let (_network, _container) = start(lab)?;
    lab.start_netpath(Options::default())?;
    reach(lab)?;
    let before = interface(lab)?;
    lab.netpath()?.kill()?;
    reach(lab).context("without a daemon")?;
    let is_there = |macvlan: &Value| macvlan["parents"][0]["interface"].is_string();
    shown(lab, "status to show the interface without a daemon", is_there)?;
    lab.netpath()?.start_again()?;
    lab.netpath()?.wait_in_step()?;
    reach(lab)?;
    ensure!(interface(lab)? == before, "it was {before}, now it is {}", interface(lab)?);
    // Put right what somebody else took away.
    lab.host().run(&["ip", "link", "del", before.split('@').next().context("it has a name")?])?;
    reach(lab).context("after the interface was removed")?;
    lab.netpath()?.detach()?;
    ensure!(interface(lab)?.is_empty(), "it has outlived detach: {}", interface(lab)?);
    Ok(())
}

fn off(lab: &mut Lab) -> Result<()> {
    let (_network, _container) = start(lab)?;
    let _file = configure(lab, "[macvlan]\nhost_access = false\n")?;
    connect(lab, TARGET).context("from the wire")?;
    let never = TcpClient::connect_within(lab.host(), 0, TARGET, PATIENCE);
    ensure!(never.is_err(), "the host reaches its macvlan container");
    ensure!(interface(lab)?.is_empty(), "it has {}", interface(lab)?);
    let is_off = |macvlan: &Value| macvlan["host_access"] == false && macvlan["parents"][0]["interface"].is_null();
    shown(lab, "status to say that it is off", |macvlan| is_off(macvlan) && macvlan["parents"][0]["parent"] == "eth0")
}
