//! 127.0.0.1: sockets of the host that are bound to it, and ports that are published on it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::client::TcpClient;
use netpath_tests::lab::{GATEWAY, HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::protocol::Progress;
use netpath_tests::traffic::Direction;
use socket2::{Domain, Socket, Type};

use super::{ANSWER, PORT, answer, ask_unconnected, connect, expect_refused, ready, who};
use crate::system::reach::expect_silence;

/// A socket that is bound to 127.0.0.1 and a port.
fn loopback_socket(lab: &Lab, kind: Type, port: u16) -> Result<Socket> {
    lab.host().enter(|| {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).into()).context("bind to 127.0.0.1")?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(socket)
    })
}

pub(super) fn bound_to_loopback(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    ready(lab)?;
    // docker-proxy answers datagrams with the address that its route has, whatever the question's destination was.
    let others = [Ipv4Addr::new(127, 0, 0, 9), HOST, GATEWAY];
    let others = if lab.mode() == Mode::Sole { &others[..] } else { &[] };
    for address in [Ipv4Addr::LOCALHOST].iter().chain(others) {
        let target = SocketAddr::new((*address).into(), PORT);
        let what = || format!("from 127.0.0.1 to {target}");
        let socket = loopback_socket(lab, Type::STREAM, 0)?;
        socket.connect_timeout(&target.into(), ANSWER).with_context(what)?;
        let tcp = TcpStream::from(socket);
        ensure!(tcp.peer_addr()? == target, "{}: the peer is {:?}", what(), tcp.peer_addr());
        let seen = who(&tcp).with_context(what)?;
        ensure!(seen.ip() == GATEWAY, "{}: the container sees {seen}", what());
        let udp = UdpSocket::from(loopback_socket(lab, Type::DGRAM, 0)?);
        udp.send_to(b"question", target).with_context(what)?;
        let seen = answer(&udp, target).with_context(what)?;
        ensure!(seen.ip() == GATEWAY, "{}: the container sees {seen}", what());
        udp.connect(target).with_context(what)?;
        udp.send(b"question").with_context(what)?;
        answer(&udp, target).with_context(what)?;
    }
    Ok(())
}

pub(super) fn loopback_ends(lab: &mut Lab) -> Result<()> {
    const BULK: u64 = 32 << 20;
    let request = lab.docker().serving(&["tcp:80"]).publish("8080:80").publish("8080:81/udp").publish("8081:82");
    let container = lab.start(request)?;
    ready(lab)?;
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    // One port is another's of the host too: the container sees two clients.
    let bound = loopback_socket(lab, Type::STREAM, 40_310)?;
    let led = lab.host().enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(GATEWAY, 40_310).into())?;
        Ok(socket)
    })?;
    led.connect_timeout(&local.into(), ANSWER)?;
    bound.connect_timeout(&local.into(), ANSWER)?;
    let (led, bound) = (TcpStream::from(led), TcpStream::from(bound));
    let (first, second) = (who(&led)?, who(&bound)?);
    ensure!(first == SocketAddrV4::new(GATEWAY, 40_310).into() && first != second, "seen are {first} and {second}");

    for direction in [Direction::Download, Direction::Upload] {
        let socket = loopback_socket(lab, Type::STREAM, 0)?;
        socket.connect_timeout(&local.into(), ANSWER)?;
        let mut client = TcpClient::over(TcpStream::from(socket))?;
        match direction {
            Direction::Download => client.download(BULK, &Progress::default())?,
            Direction::Upload => client.upload(BULK, &Progress::default())?,
        }
    }

    let udp = UdpSocket::from(loopback_socket(lab, Type::DGRAM, 0)?);
    udp.connect(local)?;
    udp.send(b"question")?;
    let told = udp.recv(&mut [0; 16]).err().context("a port where nobody listens answered")?.kind();
    ensure!(told == ErrorKind::ConnectionRefused, "of a port where nobody listens it learns: {told}");
    let nobody = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8081);
    let refused = loopback_socket(lab, Type::STREAM, 0)?.connect_timeout(&nobody.into(), ANSWER);
    let told = refused.err().context("a port where nobody listens took a connection")?.kind();
    ensure!(told == ErrorKind::ConnectionRefused, "of a port where nobody listens it learns: {told}");

    container.stop()?;
    bound.set_read_timeout(Some(ANSWER))?;
    let ended = std::io::Read::read(&mut &bound, &mut [0; 16]);
    ensure!(
        matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "when its container has gone, the connection gives {ended:?}"
    );
    Ok(())
}

pub(super) fn loopback_only(lab: &mut Lab) -> Result<()> {
    let request = lab.docker().serving(&["tcp:80", "udp:80"]);
    let _container = lab.start(request.publish("127.0.0.1:8080:80").publish("127.0.0.1:8080:80/udp"))?;
    ready(lab)?;
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    connect(lab.host(), local)?;
    ask_unconnected(lab.host(), local)?;
    for elsewhere in [IpAddr::V4(HOST), IpAddr::V4(GATEWAY), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        expect_refused(lab.host(), SocketAddr::new(elsewhere, PORT))?;
    }

    let before = lab.netpath()?.drops("loopback_from_wire")?;
    {
        let _routes = LoopbackRoutes::add(lab.host(), lab.lan())?;
        expect_silence(lab.lan(), SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT))?;
        let error = ask_unconnected(lab.lan(), local).err().context("a datagram from the wire was answered")?;
        ensure!(error.to_string().contains("no answer"), "the lan couldn't send: {error:#}");
    }
    let dropped = lab.netpath()?.drops("loopback_from_wire")? - before;
    ensure!(dropped >= 2, "{dropped} frames were counted as dropped");
    connect(lab.host(), local).map(drop)
}

/// Lets the lan send to 127.0.0.1 over the wire, and lets the host take it: the state that moby#41872 is about.
struct LoopbackRoutes<'a> {
    host: &'a Place,
    lan: &'a Place,
}

impl<'a> LoopbackRoutes<'a> {
    fn add(host: &'a Place, lan: &'a Place) -> Result<Self> {
        let routes = Self { host, lan };
        for place in [host, lan] {
            place.sysctl("net/ipv4/conf/all/route_localnet", "1")?;
        }
        lan.run(&["ip", "address", "delete", "127.0.0.1/8", "dev", "lo"])?;
        lan.run(&["ip", "route", "add", "127.0.0.0/8", "via", &HOST.to_string()])?;
        Ok(routes)
    }

    fn remove(&self) -> Result<()> {
        self.lan.run(&["ip", "route", "delete", "127.0.0.0/8"])?;
        self.lan.run(&["ip", "address", "add", "127.0.0.1/8", "dev", "lo"])?;
        for place in [self.host, self.lan] {
            place.sysctl("net/ipv4/conf/all/route_localnet", "0")?;
        }
        Ok(())
    }
}

impl Drop for LoopbackRoutes<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("routes of 127.0.0.0/8 stay: {error:#}");
        }
    }
}
