//! Nothing is left of a container that went: whoever takes its place, its port or its address gets the packets that are
//! meant for it from then on, and no others, even when a client never stops sending.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, Network, Request};
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::traffic::Persistent;
use netpath_tests::wait;

use super::reach::{PUBLISH_DEADLINE, connect};

pub(crate) const CASES: &[Case] = &[
    Case::new("a client that never stops sending reaches the container again after docker stop and start", |lab| {
        returns(lab, |_, container| container.stop())
    })
    .netpath(),
    Case::new("a client that never stops sending reaches the container again after docker kill and start", |lab| {
        returns(lab, |lab, container| lab.docker().run(&["kill", container.id()]).map(drop))
    })
    .netpath(),
    Case::new("a client that never stops sending follows the container through docker restart", restarts).netpath(),
    Case::new("a client that never stops sending follows the container to another address", moves).netpath(),
    Case::new("a container that is disconnected from its network loses its connections at once", disconnects).netpath(),
    Case::new("another container with the same port or the same address takes over within a second", replaced)
        .netpath(),
    Case::new(
        "another container at the same address gets no packets of the earlier one's connections",
        inherits_nothing,
    )
    .netpath(),
    Case::new("a removed container's masqueraded connections don't come to the next one at its address", masqueraded)
        .netpath(),
];

const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);
const OTHER_PORT: SocketAddrV4 = SocketAddrV4::new(HOST, 8081);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);

/// How long nothing must come where nothing may come.
const SILENCE: Duration = Duration::from_millis(500);

/// A server at TCP and UDP port 8080 of the host.
fn server(lab: &Lab) -> Request {
    lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp")
}

/// A network in which containers choose their addresses.
fn network(lab: &Lab) -> Result<Network> {
    lab.docker().network(&["--subnet", "10.77.0.0/24"])
}

/// Clients of the published port: one that sends without an end, by UDP from one port, and an open TCP connection.
struct Clients {
    udp: Persistent,
    tcp: Option<TcpClient>,
}

impl Clients {
    fn start(lab: &Lab) -> Result<Self> {
        let tcp = connect(lab, PUBLISHED)?;
        let udp = Persistent::start(lab.lan(), PUBLISHED)?;
        udp.expect_answers(PUBLISH_DEADLINE).context("before anything happens")?;
        Ok(Self { udp, tcp: Some(tcp) })
    }

    /// Fails unless both are served within a second from now on, TCP anew from the port that it had.
    fn expect_service(&mut self, lab: &Lab) -> Result<()> {
        self.udp.expect_answers(PUBLISH_DEADLINE)?;
        let earlier = self.tcp.take().context("there was a connection")?;
        let port = earlier.local().port();
        // Otherwise the port would be in use for as long as the client believes in the connection.
        earlier.forget()?;
        let again = wait::until("a connection from the old port", PUBLISH_DEADLINE, || {
            let mut client = TcpClient::connect_within(lab.lan(), port, PUBLISHED, SILENCE / 2)?;
            client.give_up_after(SILENCE / 2)?;
            client.echo("hello")?;
            Ok(client)
        })?;
        self.tcp = Some(again);
        Ok(())
    }
}

/// Fails unless all flows of an address are gone at once: well before the collector's next sweep of a full table.
fn expect_no_flows(lab: &mut Lab, address: Ipv4Addr) -> Result<()> {
    let netpath = lab.netpath()?;
    wait::until(&format!("the flows of {address} to go"), PUBLISH_DEADLINE, || {
        let ends = |flow: &netpath_tests::report::Flow| [flow.original.source, flow.reply.source].contains(&address);
        let left: Vec<_> = netpath.flows()?.into_iter().filter(ends).collect();
        ensure!(left.is_empty(), "these are left: {left:?}");
        Ok(())
    })
}

fn returns(lab: &mut Lab, end: fn(&Lab, &Container) -> Result<()>) -> Result<()> {
    let container = lab.start(server(lab))?;
    let address = container.address()?;
    let mut clients = Clients::start(lab)?;
    end(lab, &container)?;
    expect_no_flows(lab, address)?;
    clients.udp.expect_silence(SILENCE)?;
    container.start()?;
    clients.expect_service(lab)
}

fn restarts(lab: &mut Lab) -> Result<()> {
    let container = lab.start(server(lab))?;
    let mut clients = Clients::start(lab)?;
    for _ in 0..3 {
        container.restart()?;
        clients.expect_service(lab)?;
    }
    Ok(())
}

fn moves(lab: &mut Lab) -> Result<()> {
    let network = network(lab)?;
    let container = lab.start(server(lab).network(network.name()).option("--ip", &FIRST.to_string()))?;
    let mut clients = Clients::start(lab)?;
    lab.docker().run(&["network", "disconnect", network.name(), container.id()])?;
    lab.docker().run(&["network", "connect", "--ip", &SECOND.to_string(), network.name(), container.id()])?;
    clients.expect_service(lab)?;
    expect_no_flows(lab, FIRST)
}

fn disconnects(lab: &mut Lab) -> Result<()> {
    let network = network(lab)?;
    let container = lab.start(server(lab).network(network.name()).option("--ip", &FIRST.to_string()))?;
    let clients = Clients::start(lab)?;
    let (_server, lan) = lab.lan_udp()?;
    UdpClient::connect(&*container.place()?, lan)?.ask("hello")?;
    lab.docker().run(&["network", "disconnect", network.name(), container.id()])?;
    expect_no_flows(lab, FIRST)?;
    clients.udp.expect_silence(SILENCE)
}

fn replaced(lab: &mut Lab) -> Result<()> {
    let network = network(lab)?;
    let at = |address: Ipv4Addr| server(lab).network(network.name()).option("--ip", &address.to_string());
    let (first, second, third) = (at(FIRST), at(SECOND), at(SECOND));
    let first = lab.start(first)?;
    let mut clients = Clients::start(lab)?;
    drop(first);
    let another_address = second.start()?;
    clients.expect_service(lab).context("by a container with another address")?;
    drop(another_address);
    let _same_address = third.start()?;
    clients.expect_service(lab).context("by a container with the same address")?;
    expect_no_flows(lab, FIRST)
}

fn inherits_nothing(lab: &mut Lab) -> Result<()> {
    let network = network(lab)?;
    let request = server(lab).network(network.name()).option("--ip", &FIRST.to_string());
    let container = lab.start(request)?;
    let mut clients = Clients::start(lab)?;
    drop(container);
    // The same container port, but reached by another port of the host.
    let heir = lab.docker().serving(&["tcp:80", "udp:80"]).publish("8081:80").publish("8081:80/udp");
    let _heir = lab.start(heir.network(network.name()).option("--ip", &FIRST.to_string()))?;
    wait::until("the new port", PUBLISH_DEADLINE, || {
        let client = UdpClient::connect(lab.lan(), OTHER_PORT)?;
        client.give_up_after(SILENCE / 5)?;
        client.ask("hello").map(drop)
    })?;
    clients.udp.expect_silence(SILENCE)?;
    let tcp = clients.tcp.as_mut().context("there was a connection")?;
    tcp.give_up_after(SILENCE)?;
    ensure!(tcp.echo("hello").is_err(), "the earlier container's connection was answered");
    Ok(())
}

fn masqueraded(lab: &mut Lab) -> Result<()> {
    const PORT: u16 = 40_300;
    let network = network(lab)?;
    let request = |lab: &Lab| lab.docker().idle().network(network.name()).option("--ip", &FIRST.to_string());
    let first = lab.start(request(lab))?;
    let (_server, target) = lab.lan_udp()?;
    let seen = UdpClient::connect_from(&*first.place()?, PORT, target)?.ask("hello")?;
    drop(first);
    expect_no_flows(lab, FIRST)?;
    let second = lab.start(request(lab))?;
    let inside = second.place()?.enter(|| Ok(UdpSocket::bind((FIRST, PORT))?))?;
    inside.set_read_timeout(Some(SILENCE)).context("set a read timeout")?;
    // From the very address that the earlier container talked with.
    let outside = lab.lan().enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(libc::IPPROTO_RAW.into()))?;
        Ok(socket)
    })?;
    let begun = Instant::now();
    while begun.elapsed() < SILENCE {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4(LAN.octets(), seen.ip().octets(), 64);
        builder.udp(target.port(), seen.port()).write(&mut packet, b"late").context("build a datagram")?;
        outside.send_to(&packet, &SocketAddrV4::new(*seen.ip(), 0).into()).context("send late")?;
    }
    ensure!(inside.recv(&mut [0; 64]).is_err(), "the next container got a packet of the earlier one's connection");
    Ok(())
}
