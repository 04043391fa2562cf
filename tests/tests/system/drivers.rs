//! Containers that aren't simply on a bridge network, beside those that are: what Docker does for them goes on as
//! before.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::icmp::ping;
use netpath_tests::lab::{GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::traffic::UdpStream;
use netpath_tests::wait;

use super::reach::{PUBLISH_DEADLINE, ask, connect, connect_from, expect_refused, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("a container with the host's network serves the wire and containers as the host does", host)
        .every_engine(),
    Case::new("a container without a network stays without one", none),
    Case::new("a container in another one's network is published and masqueraded with it", shared).every_engine(),
    Case::new("a macvlan container talks to the wire under its own addresses, beside others", macvlan).every_engine(),
    Case::new("a published port moves with the networks that a running container joins and leaves", moves)
        .every_engine(),
    Case::new("a paused container keeps its connections and its ports", paused),
];

/// The port of containers that serve without being published.
const PORT: u16 = 8070;

fn host(lab: &mut Lab) -> Result<()> {
    let serving = lab.docker().serving(&["tcp:8070", "udp:8070"]).network("host");
    let container = serving.start()?;
    let target = SocketAddrV4::new(HOST, PORT);
    let mut client = connect(lab, target)?;
    ensure!(client.who()? == client.local(), "the wire's client is seen otherwise");
    ask(lab, target)?;
    let inside = lab.start(lab.docker().idle())?;
    for address in [HOST, GATEWAY] {
        let target = SocketAddrV4::new(address, PORT);
        let mut client = connect_from(&*inside.place()?, target)?;
        ensure!(client.who()? == client.local(), "a container that asks at {address} is seen otherwise");
    }
    let (_server, lan) = lab.lan_tcp()?;
    let seen = TcpClient::connect(lab.host(), lan)?.who()?;
    ensure!(seen.ip() == &HOST, "out it goes as {seen}");
    drop(container);
    expect_refused(lab, target)
}

fn none(lab: &mut Lab) -> Result<()> {
    let container = lab.docker().serving(&["tcp:8070"]).network("none").start()?;
    let links = container.place()?.run(&["ip", "-brief", "link", "show"])?;
    ensure!(links.lines().count() == 1 && links.starts_with("lo"), "it has {links}");
    in_step(lab)
}

fn shared(lab: &mut Lab) -> Result<()> {
    let owner = lab.start(lab.docker().serving(&["tcp:80"]).publish("8071:81").publish("8071:81/udp"))?;
    let guest = lab.docker().serving(&["tcp:81", "udp:81"]).network(&format!("container:{}", owner.id())).start()?;
    let target = SocketAddrV4::new(HOST, 8071);
    let mut client = connect(lab, target)?;
    ensure!(client.who()? == client.local(), "the client is seen otherwise");
    ask(lab, target)?.ask("and by UDP")?;
    let (_server, lan) = lab.lan_tcp()?;
    let seen = connect_from(&*guest.place()?, lan)?.who()?;
    ensure!(seen.ip() == &HOST, "out it goes as {seen}");
    drop(guest);
    let refused = |lab: &Lab| expect_refused(lab, target);
    wait::until("the owner to refuse what its guest served", PUBLISH_DEADLINE, || refused(lab))?;
    in_step(lab)
}

/// The macvlan container's address, of the wire's own network.
const MACVLAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

fn macvlan(lab: &mut Lab) -> Result<()> {
    let words = ["--driver", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--opt", "parent=eth0"];
    let network = lab.docker().network(&words)?;
    let bridged = lab.start(lab.docker().serving(&["tcp:80"]).publish("8072:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8072))?;
    let request = lab.docker().serving(&["tcp:8070", "udp:8070"]).network(network.name());
    let container = request.option("--ip", &MACVLAN.to_string()).start()?;
    ensure!(container.address()? == MACVLAN, "it has another address");
    let target = SocketAddrV4::new(MACVLAN, PORT);
    let mut client = connect(lab, target).context("from the wire")?;
    ensure!(client.who()? == client.local(), "the wire's client is seen otherwise");
    ask(lab, target).context("from the wire")?;
    let place = container.place()?;
    let (_server, lan) = lab.lan_tcp()?;
    let seen = TcpClient::connect(&place, lan).context("to the wire")?.who()?;
    ensure!(seen.ip() == &MACVLAN, "out it goes as {seen}");
    ping(&place, LAN)?;
    // A bridged container meets it as any other machine of the wire: through the host, masqueraded.
    in_step(lab)?;
    let mut again = connect(lab, SocketAddrV4::new(HOST, 8072))?;
    ensure!(again.who()? == again.local(), "the bridged container sees the client otherwise");
    drop(container);
    expect_gone(lab.lan(), target)?;
    TcpClient::connect(&*bridged.place()?, lan)?.echo("the bridged one goes on")
}

fn expect_gone(place: &Place, target: SocketAddrV4) -> Result<()> {
    let cannot = TcpClient::connect_within(place, 0, target, Duration::from_millis(500));
    ensure!(cannot.is_err(), "{target} still answers");
    Ok(())
}

fn moves(lab: &mut Lab) -> Result<()> {
    let networks = [lab.docker().network(&[])?, lab.docker().network(&[])?];
    let [first, second] = networks.each_ref().map(|network| network.name().to_owned());
    let container = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).network(&first).publish("8073:80"))?;
    let target = SocketAddrV4::new(HOST, 8073);
    connect(lab, target)?.echo("on the first network")?;
    docker(lab, &["network", "connect", &second, container.id()])?;
    container.forget();
    let neighbour = lab.start(lab.docker().idle().network(&second))?;
    let there = SocketAddrV4::new(container.address_on(&second)?, 80);
    connect_from(&*neighbour.place()?, there).context("on the network that it joined")?;
    connect(lab, target)?.echo("on both")?;
    docker(lab, &["network", "disconnect", &first, container.id()])?;
    container.forget();
    let mut client = connect(lab, target).context("after it has left the first network")?;
    ensure!(client.who()? == client.local(), "the client is seen otherwise");
    let (_server, lan) = lab.lan_tcp()?;
    let seen = connect_from(&*container.place()?, lan)?.who()?;
    ensure!(seen.ip() == &HOST, "out it goes as {seen}");
    docker(lab, &["network", "connect", &first, container.id()])?;
    connect(lab, target)?.echo("on both again")?;
    docker(lab, &["network", "disconnect", &second, container.id()])?;
    connect(lab, target)?.echo("on the first again")?;
    docker(lab, &["network", "disconnect", &first, container.id()])?;
    let closed = |lab: &Lab| expect_refused(lab, target).or_else(|_| expect_silence(lab.lan(), target));
    wait::until("the port of a container without a network to be closed", PUBLISH_DEADLINE, || closed(lab))?;
    in_step(lab)
}

/// How long nothing comes of a paused container.
const PAUSE: Duration = Duration::from_secs(1);

fn paused(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8074:80").publish("8074:80/udp"))?;
    let other = lab.start(lab.docker().serving(&["udp:80"]).publish("8075:80/udp"))?;
    let target = SocketAddrV4::new(HOST, 8074);
    let mut open = connect(lab, target)?;
    let stream = UdpStream::start(ask(lab, SocketAddrV4::new(HOST, 8075))?);
    docker(lab, &["pause", container.id()])?;
    open.give_up_after(PAUSE)?;
    ensure!(open.echo("paused?").is_err(), "a paused container has answered");
    in_step(lab)?;
    // Its kernel takes connections, and waits with it.
    let waiting = TcpClient::connect(lab.lan(), target).context("to the paused container")?;
    docker(lab, &["unpause", container.id()])?;
    waiting.be_patient()?;
    let mut waiting = waiting;
    waiting.echo("opened while it was paused")?;
    connect(lab, target)?.echo("and a new one")?;
    stream.finish().context("another container meanwhile")?;
    drop(other);
    Ok(())
}

fn docker(lab: &Lab, words: &[&str]) -> Result<()> {
    lab.docker().run(words).map(drop)
}

/// netpath, if it runs, makes no complaint about what it doesn't carry.
fn in_step(lab: &mut Lab) -> Result<()> {
    if lab.tests_netpath() { lab.netpath()?.wait_in_step() } else { Ok(()) }
}
