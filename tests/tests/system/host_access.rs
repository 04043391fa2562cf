//! The host itself reaches published ports: at each of its own addresses, without docker-proxy and beside it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::case::Case;
use netpath_tests::container::IMAGE;
use netpath_tests::dockerd::Restart;
use netpath_tests::image::BUSYBOX;
use netpath_tests::lab::{GATEWAY, HOST, HOST_IPV6, HOST_SECOND, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::server::Server;
use netpath_tests::wait;
use socket2::{Domain, Socket, Type};

use super::reach::PUBLISH_DEADLINE;

mod disconnected;
mod lifetime;
mod loopback;

pub(crate) const CASES: &[Case] = &[
    Case::new("the host reaches a published TCP port at each of its own addresses and is shown what it asked for", tcp)
        .every_engine()
        .netpath(),
    Case::new("the host reaches a published UDP port, connected and with sendto, at each of its own addresses", udp)
        .netpath(),
    Case::new("without docker-proxy the host reaches published ports just so", without_proxy).takeover().own_netpath(),
    Case::new("a socket that is bound to an address of the host is seen under it", bound).netpath(),
    Case::new("sockets that can't talk to a container stay with docker-proxy", stay).takeover().netpath(),
    Case::new("a socket that is bound to 127.0.0.1 reaches published ports", loopback::bound_to_loopback).netpath(),
    Case::new(
        "a socket that is bound to 127.0.0.1 carries much, and learns what is refused or gone",
        loopback::loopback_ends,
    )
    .sole()
    .netpath(),
    Case::new("in sole mode a socket of IPv6 alone is refused at a published port, at once", ipv6_alone)
        .sole()
        .netpath(),
    Case::new("a connected UDP socket of the host reaches the next container or is told", replaced).netpath(),
    Case::new(
        "a connection of the host's ends when the container leaves the network that publishes the port",
        disconnected::reset,
    )
    .every_engine(),
    Case::new("a port published on 127.0.0.1 is the host's own, whatever route_localnet says", loopback::loopback_only)
        .netpath(),
    Case::new("a port published on one address doesn't answer the host on another", one_address).netpath(),
    Case::new("a container with the host's network reaches published ports as the host does", host_network).netpath(),
    Case::new("sockets of other network namespaces are left alone", other_namespaces).netpath(),
    Case::new("the host's connections outlive a killed daemon, and new ones work meanwhile", lifetime::survives)
        .own_netpath(),
    Case::new("status shows the host's way, and detach takes its programs out of the kernel", lifetime::detached)
        .own_netpath(),
];

/// An answer on this machine takes milliseconds.
const ANSWER: Duration = Duration::from_secs(2);

/// The port that tests publish.
const PORT: u16 = 8080;

/// Where the host finds a port that is published on all addresses.
const OWN: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)),
    IpAddr::V4(HOST),
    IpAddr::V4(HOST_SECOND),
    IpAddr::V4(GATEWAY),
    IpAddr::V6(HOST.to_ipv6_mapped()),
    IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
];

/// Those, and IPv6's.
fn own() -> impl Iterator<Item = IpAddr> {
    OWN.into_iter().chain([Ipv6Addr::LOCALHOST, HOST_IPV6].map(IpAddr::V6))
}

fn tcp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    ready(lab)?;
    for address in own() {
        let target = SocketAddr::new(address, PORT);
        let seen = connect(lab.host(), target).with_context(|| format!("at {target}"))?;
        ensure!(seen.ip() == GATEWAY, "at {target}: the container sees the host as {seen}");
    }
    // Straight, not by docker-proxy: the container's peer is the program's own socket.
    let stream = lab.host().enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?))?;
    ensure!(who(&stream)? == stream.local_addr()?, "the container sees another than {:?}", stream.local_addr());
    let direct = connect(lab.host(), SocketAddr::new(container.address()?.into(), 80))?;
    ensure!(direct.ip() == GATEWAY, "asked directly, the container sees {direct}");
    Ok(())
}

fn udp(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["udp:53", "tcp:80"]).publish("8080:53/udp").publish("8080:80"))?;
    ready(lab)?;
    for address in own() {
        let target = SocketAddr::new(address, PORT);
        let seen = ask_connected(lab.host(), target).with_context(|| format!("connected to {target}"))?;
        ensure!(seen.ip() == GATEWAY, "connected to {target}: the container sees {seen}");
        let seen = ask_unconnected(lab.host(), target).with_context(|| format!("sent to {target}"))?;
        ensure!(seen.ip() == GATEWAY, "sent to {target}: the container sees {seen}");
    }
    Ok(())
}

fn without_proxy(lab: &mut Lab) -> Result<()> {
    lab.restart_dockerd(Restart::WithoutProxy, |_| Ok(()))?;
    let result = lab.start_netpath(Options::default()).and_then(|()| tcp(lab)).and_then(|()| udp(lab));
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    remove_hiding_rule(lab.host())?;
    result
}

/// Without docker-proxy, dockerd hides the host's addresses from the containers, and leaves the rule for that behind when it
/// is started with it again.
fn remove_hiding_rule(host: &Place) -> Result<()> {
    let rules = host.run(&["iptables", "--table", "nat", "--list-rules", "POSTROUTING"])?;
    for rule in rules.lines().filter(|rule| rule.contains("--src-type LOCAL")) {
        let delete = rule.replacen("-A", "--delete", 1);
        let words: Vec<_> = ["iptables", "--table", "nat"].into_iter().chain(delete.split_whitespace()).collect();
        host.run(&words)?;
    }
    Ok(())
}

fn bound(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    ready(lab)?;
    let stream = lab.host().enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(HOST_SECOND.into(), 0).into())?;
        socket.connect(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT).into())?;
        Ok(TcpStream::from(socket))
    })?;
    let seen = who(&stream)?;
    ensure!(seen.ip() == HOST_SECOND && seen == stream.local_addr()?, "the container sees {seen}");
    Ok(())
}

fn stay(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    ready(lab)?;
    for (bound, only_ipv6) in [("127.0.0.1", false), ("::1", false), ("::", true)] {
        let bound = SocketAddr::new(bound.parse().context("parse an address")?, 0);
        let any = bound.ip().is_unspecified();
        let target = SocketAddr::new(if any { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { bound.ip() }, PORT);
        let socket = |kind| {
            lab.host().enter(|| {
                let socket = Socket::new(Domain::for_address(bound), kind, None)?;
                if only_ipv6 {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&bound.into())?;
                socket.set_read_timeout(Some(ANSWER))?;
                Ok(socket)
            })
        };
        let what = || format!("from a socket bound to {bound} to {target}");
        let tcp = socket(Type::STREAM)?;
        tcp.connect_timeout(&target.into(), ANSWER).with_context(what)?;
        let tcp = TcpStream::from(tcp);
        ensure!(tcp.peer_addr()? == target, "{}: the peer is {:?}", what(), tcp.peer_addr());
        who(&tcp).with_context(what)?;
        let udp = UdpSocket::from(socket(Type::DGRAM)?);
        udp.send_to(b"question", target).with_context(what)?;
        answer(&udp, target).with_context(what)?;
    }
    Ok(())
}

fn ipv6_alone(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    ready(lab)?;
    let target = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), PORT);
    for (bound, only_ipv6) in [(Ipv6Addr::LOCALHOST, false), (Ipv6Addr::UNSPECIFIED, true)] {
        for kind in [Type::STREAM, Type::DGRAM] {
            let socket = lab.host().enter(|| {
                let socket = Socket::new(Domain::IPV6, kind, None)?;
                socket.set_only_v6(only_ipv6)?;
                socket.bind(&SocketAddr::new(bound.into(), 0).into())?;
                socket.set_read_timeout(Some(ANSWER))?;
                Ok(socket)
            })?;
            let what = format!("a socket of type {kind:?} that is bound to {bound}");
            if kind == Type::DGRAM {
                let told = socket.send_to(b"question", &target.into()).err().map(|error| error.kind());
                ensure!(told == Some(ErrorKind::ConnectionRefused), "{what} sends and gets {told:?}");
            }
            let told = socket.connect(&target.into()).err().map(|error| error.kind());
            ensure!(told == Some(ErrorKind::ConnectionRefused), "{what} connects and gets {told:?}");
        }
    }
    // Where nothing is published, it is nobody's business.
    let own = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 8099);
    let _server = lab.host().enter(|| Ok(std::net::TcpListener::bind(own)?))?;
    lab.host().enter(|| Ok(TcpStream::connect_timeout(&own, ANSWER)?)).map(drop)
}

/// Asks until it is answered, with a new socket when the old one is told that there is nobody: what a client does.
fn ask_persistently(place: &Place, socket: &mut UdpSocket, target: SocketAddr) -> Result<SocketAddr> {
    let mut told = Vec::new();
    for _ in 0..20 {
        let asked = socket.send(b"question").and_then(|_| socket.recv(&mut [0; 128]));
        match asked {
            Ok(_) => {
                socket.send(b"question")?;
                return answer(socket, target);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                told.push("nothing".to_owned());
            }
            Err(error) => {
                told.push(error.to_string());
                *socket = udp_socket(place, target)?;
                socket.connect(target)?;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("after twenty questions to {target} there is no answer; it was told {told:?}")
}

fn replaced(lab: &mut Lab) -> Result<()> {
    let serving = |lab: &Lab| lab.docker().serving(&["udp:80", "tcp:80"]).publish("8080:80/udp").publish("8080:80");
    let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    let first = lab.start(serving(lab))?;
    ready(lab)?;
    let address = first.address()?;
    let mut socket = udp_socket(lab.host(), target)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(target)?;
    socket.send(b"question")?;
    answer(&socket, target).context("of the first container")?;
    first.restart()?;
    ready(lab)?;
    ask_persistently(lab.host(), &mut socket, target).context("after a restart")?;
    drop(first);
    // Somebody else, who answers nothing there, has the address now.
    let other = lab.start(lab.docker().idle())?;
    ensure!(other.address()? == address, "the next container has {}, not {address}", other.address()?);
    let next = lab.start(serving(lab))?;
    ensure!(next.address()? != address, "the next container has the address again");
    // Or nobody at all, whom nobody's answer tells of.
    drop(other);
    ready(lab)?;
    ask_persistently(lab.host(), &mut socket, target).context("of a container with another address")?;
    Ok(())
}

fn one_address(lab: &mut Lab) -> Result<()> {
    let container = lab.docker().serving(&["tcp:80"]).publish(&format!("{HOST_SECOND}:8080:80"));
    let _container = lab.start(container)?;
    let target = SocketAddr::new(HOST_SECOND.into(), PORT);
    wait::until("the new port", PUBLISH_DEADLINE, || connect(lab.host(), target))?;
    for elsewhere in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(HOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        expect_refused(lab.host(), SocketAddr::new(elsewhere, PORT))?;
    }
    Ok(())
}

fn host_network(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    ready(lab)?;
    for address in ["127.0.0.1", "::1", "192.0.2.2"] {
        let ask = format!("echo who | {BUSYBOX} nc {address} {PORT}");
        let seen = lab.docker().run(&["run", "--rm", "--network", "host", IMAGE, BUSYBOX, "sh", "-c", &ask])?;
        ensure!(seen.starts_with(&format!("{GATEWAY}:")), "at {address} the container is seen as {seen}");
    }
    Ok(())
}

fn other_namespaces(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    ready(lab)?;
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    for place in [&*container.place()?, lab.lan()] {
        expect_refused(place, local.into())?;
        let _servers = place.enter(|| Ok([Server::tcp(local)?, Server::udp(local)?]))?;
        let seen = [connect(place, local.into())?, ask_unconnected(place, local.into())?];
        ensure!(seen.iter().all(|seen| seen.ip() == Ipv4Addr::LOCALHOST), "in {}: {seen:?}", place.label());
    }
    Ok(())
}

/// Waits until the new port is there.
fn ready(lab: &Lab) -> Result<()> {
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    wait::until("the new port", PUBLISH_DEADLINE, || {
        let stream = lab.host().enter(|| Ok(TcpStream::connect_timeout(&local, ANSWER)?))?;
        // docker-proxy, which is there a moment before, connects to the container from a port of its own.
        let (own, seen) = (stream.local_addr()?, who(&stream)?);
        ensure!(own.port() == seen.port(), "the container sees {seen}, the socket is {own}");
        Ok(())
    })
}

/// Connects, checks the peer's name, and gives the address that the server sees.
fn connect(place: &Place, target: SocketAddr) -> Result<SocketAddr> {
    let stream = place.enter(|| Ok(TcpStream::connect_timeout(&target, ANSWER)?))?;
    let peer = stream.peer_addr().context("ask for the peer's name")?;
    ensure!(peer == target, "connected to {target}, the peer's name is {peer}");
    who(&stream)
}

fn who(stream: &TcpStream) -> Result<SocketAddr> {
    stream.set_read_timeout(Some(ANSWER))?;
    let mut writer = stream;
    writer.write_all(b"who\n").context("ask who I am")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("read who I am")?;
    line.trim_end().parse().with_context(|| format!("{line:?} is no address"))
}

fn ask_connected(place: &Place, target: SocketAddr) -> Result<SocketAddr> {
    let socket = udp_socket(place, target)?;
    socket.connect(target).context("connect")?;
    let peer = socket.peer_addr().context("ask for the peer's name")?;
    ensure!(peer == target, "connected to {target}, the peer's name is {peer}");
    socket.send(b"question").context("send")?;
    answer(&socket, target)
}

fn ask_unconnected(place: &Place, target: SocketAddr) -> Result<SocketAddr> {
    let socket = udp_socket(place, target)?;
    socket.send_to(b"question", target).context("send")?;
    answer(&socket, target)
}

/// Takes one answer, which must come from where the question went, and gives the address that the server saw.
fn answer(socket: &UdpSocket, target: SocketAddr) -> Result<SocketAddr> {
    let mut buffer = [0; 128];
    let (length, sender) = socket.recv_from(&mut buffer).context("no answer")?;
    ensure!(sender == target, "asked {target}, {sender} answered");
    let text = String::from_utf8_lossy(&buffer[..length]);
    let seen = text.strip_suffix(" question").with_context(|| format!("{text:?} is no answer"))?;
    seen.parse().with_context(|| format!("{seen:?} is no address"))
}

fn udp_socket(place: &Place, target: SocketAddr) -> Result<UdpSocket> {
    let any = if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = place.enter(|| Ok(UdpSocket::bind((any, 0))?))?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

fn expect_refused(place: &Place, target: SocketAddr) -> Result<()> {
    match place.enter(|| Ok(TcpStream::connect_timeout(&target, ANSWER)?)) {
        Ok(_) => bail!("{target} took a connection from {}", place.label()),
        Err(error) => {
            let refused = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
            let refused = refused.into_iter().any(|error| error.kind() == ErrorKind::ConnectionRefused);
            ensure!(refused, "{target} isn't refused in {}: {error:#}", place.label());
            Ok(())
        }
    }
}
