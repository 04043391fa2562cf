//! A network with as many containers as a Linux bridge has ports, and one more.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::container::Container;
use netpath_tests::lab::{GATEWAY, HOST, Lab};
use netpath_tests::netns::{Namespace, Place};
use netpath_tests::{run, shell, wait};

use super::reach::{connect, connect_from};

pub(crate) const CASES: &[Case] = &[
    Case::new("the 1,024th port of a bridge is refused to Docker, and everyone else goes on", full),
    Case::new("netpath needs no port of a bridge to carry a container's packets", portless).netpath(),
];

/// `BR_MAX_PORTS` of the kernel is 1024, and number 0 isn't given to a port.
const PORTS: usize = 1023;

/// How long the kernel may take to make or remove a thousand interfaces.
const DEADLINE: Duration = Duration::from_secs(60);

fn full(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let mut open = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let network = lab.docker().network(&[])?;
    let crowd = Crowd::fill(lab.host(), "docker0", PORTS - 2)?;
    let last = lab.start(lab.docker().idle()).context("the 1,023rd port")?;
    let (_server, lan) = lab.lan_tcp()?;
    connect_from(&*last.place()?, lan)?.echo("the last one")?;
    let target = SocketAddrV4::new(server.address()?, 80);
    connect_from(&*last.place()?, target)?.echo("to its neighbour")?;
    let refused = lab.docker().idle().start();
    let said = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains("exchange full"), "Docker's 1,024th port: {said:?}");
    lab.docker().run(&["container", "prune", "--force"])?;
    in_step(lab).context("after Docker's failure")?;
    open.echo("an open connection")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("a new one")?;
    let elsewhere = lab.start(lab.docker().serving(&["tcp:80"]).network(network.name()).publish("8081:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8081))?.echo("on another bridge")?;
    drop((elsewhere, crowd));
    wait::until("the crowd to go", DEADLINE, || {
        let ports = ports(lab.host(), "docker0")?;
        ensure!(ports == 2, "docker0 has {ports} ports");
        Ok(())
    })?;
    let again = lab.start(lab.docker().serving(&["tcp:80"]).publish("8082:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8082))?.echo("there is room again")?;
    drop(again);
    in_step(lab)
}

/// What the bridge does for a container whose packets netpath carries: it answers for the gateway's Ethernet address,
/// and nothing else. With that in the neighbour table, a container that isn't a port of it lacks nothing.
fn portless(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let neighbour = lab.start(lab.docker().serving(&["tcp:80"]))?;
    let target = SocketAddrV4::new(HOST, 8080);
    connect(lab, target)?;
    let place = server.place()?;
    remember(&place, &GATEWAY.to_string(), &mac(lab.host(), "docker0")?)?;
    remember(&place, &neighbour.address()?.to_string(), &mac(&*neighbour.place()?, "eth0")?)?;
    remember(&*neighbour.place()?, &server.address()?.to_string(), &mac(&place, "eth0")?)?;
    lab.host().run(&["ip", "link", "set", "dev", &veth(lab, &server)?, "nomaster"])?;
    ensure!(ports(lab.host(), "docker0")? == 1, "it is still a port");
    let mut client = connect(lab, target).context("from the wire")?;
    ensure!(client.who()? == client.local(), "the client is seen otherwise");
    let (_server, lan) = lab.lan_tcp()?;
    let seen = TcpClient::connect(&place, lan).context("to the wire")?.who()?;
    ensure!(seen.ip() == &HOST, "out it goes as {seen}");
    let there = SocketAddrV4::new(neighbour.address()?, 80);
    TcpClient::connect(&place, there).context("to a neighbour")?.echo("past the bridge")?;
    let back = SocketAddrV4::new(server.address()?, 80);
    TcpClient::connect(&*neighbour.place()?, back).context("from a neighbour")?.echo("past the bridge")
}

/// Ports of a bridge with nobody behind them. They go with the namespace that holds their other ends.
struct Crowd {
    _ends: Namespace,
}

impl Crowd {
    fn fill(host: &Place, bridge: &str, count: usize) -> Result<Self> {
        let ends = Namespace::create(&format!("{}-crowd", run::name()), "crowd")?;
        let mut batch = String::new();
        for number in 0..count {
            writeln!(
                batch,
                "link add crowd{number} master {bridge} type veth peer name end{number} netns {}",
                ends.name()
            )?;
        }
        let mut command = host.command("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut ip = command.spawn().context("start ip")?;
        ip.stdin.take().context("ip takes no input")?.write_all(batch.as_bytes()).context("write to ip")?;
        let status = shell::wait_for_exit(&mut ip, DEADLINE)?;
        ensure!(status.success(), "ip ended with {status}");
        Ok(Self { _ends: ends })
    }
}

fn ports(host: &Place, bridge: &str) -> Result<usize> {
    Ok(host.run(&["ip", "-brief", "link", "show", "master", bridge])?.lines().count())
}

/// The host's end of a container's veth.
fn veth(lab: &Lab, container: &Container) -> Result<String> {
    let index = container.place()?.run(&["ip", "-oneline", "link", "show", "eth0"])?;
    // "2: eth0@if9: <BROADCAST,..."
    let index = index.split("@if").nth(1).and_then(|rest| rest.split(':').next()).context("find the peer's index")?;
    let links = lab.host().run(&["ip", "-oneline", "link", "show"])?;
    let line = links.lines().find(|line| line.starts_with(&format!("{index}: "))).context("find the peer")?;
    let name = line.split(": ").nth(1).and_then(|name| name.split('@').next()).context("read the peer's name")?;
    Ok(name.to_owned())
}

fn mac(place: &Place, interface: &str) -> Result<String> {
    let shown = place.run(&["ip", "-oneline", "link", "show", interface])?;
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    mac.map(str::to_owned).with_context(|| format!("read the Ethernet address in {shown:?}"))
}

fn remember(place: &Place, address: &str, mac: &str) -> Result<()> {
    place.run(&["ip", "neighbour", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent"]).map(drop)
}

fn in_step(lab: &mut Lab) -> Result<()> {
    if lab.tests_netpath() { lab.netpath()?.wait_in_step() } else { Ok(()) }
}
