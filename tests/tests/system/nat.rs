//! What connection tracking and translation do beyond the plain ways: hairpin, resets out of window, scarcity, other
//! protocols, addresses and ports that an operator sets.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::{GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::wait;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tempfile::NamedTempFile;

use super::reach::{PUBLISH_DEADLINE, ask, connect};

pub(crate) const CASES: &[Case] = &[
    Case::new("a container reaches a neighbour's published port and is seen under its own address", hairpin).netpath(),
    Case::new("a container reaches its own published port and sees the gateway", hairpin_to_itself).netpath(),
    Case::new("a container of another network reaches a published port", hairpin_across_networks).netpath(),
    Case::new("a reset out of window ends no connection", resets).netpath(),
    Case::new("fragments that overtake their first arrive, overlapping ones don't", fragments).netpath(),
    Case::new("a container's fragments that overtake their first arrive", container_fragments),
    Case::new("another protocol is masqueraded by address", other_protocol).netpath(),
    Case::new("a container that finds no port is told at once", no_port).own_netpath(),
    Case::new("timeouts and reserved ports come from the configuration file", configuration).own_netpath(),
    Case::new("a wrong configuration file is refused with the place", wrong_configuration).own_netpath(),
    Case::new("flows of a network leave with the address that it asks for", masquerade_address).netpath(),
];

fn hairpin(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    let client = lab.start(lab.docker().idle())?;
    expect_own_address(lab, &*client.place()?, client.address()?)
}

fn hairpin_across_networks(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    let network = lab.docker().network(&[])?;
    let client = lab.start(lab.docker().idle().network(network.name()))?;
    expect_own_address(lab, &*client.place()?, client.address()?)
}

fn expect_own_address(lab: &Lab, place: &Place, address: Ipv4Addr) -> Result<()> {
    let published = SocketAddrV4::new(HOST, 8080);
    connect(lab, published)?;
    ask(lab, published)?;
    let mut stream = TcpClient::connect(place, published)?;
    let seen = stream.who()?;
    ensure!(seen == SocketAddrV4::new(address, stream.local().port()), "by TCP it is seen as {seen}");
    let seen = UdpClient::connect(place, published)?.ask("hello")?;
    ensure!(seen.ip() == &address, "by UDP it is seen as {seen}");
    Ok(())
}

fn hairpin_to_itself(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let published = SocketAddrV4::new(HOST, 8080);
    connect(lab, published)?;
    let seen = TcpClient::connect(&*server.place()?, published)?.who()?;
    ensure!(seen.ip() == &GATEWAY, "it sees {seen}");
    Ok(())
}

/// Sends a packet with its IPv4 header from a namespace.
fn send_raw(place: &Place, packet: &[u8], destination: Ipv4Addr) -> Result<()> {
    place.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.send_to(packet, &SockAddr::from(SocketAddrV4::new(destination, 0)))?;
        Ok(())
    })
}

fn resets(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_tcp()?;
    let mut client = TcpClient::connect(&*container.place()?, target)?;
    client.echo("before")?;
    let port = client.local().port();
    for sequence in [0, 1 << 30, 1 << 31, 3 << 30] {
        let builder = PacketBuilder::ipv4(LAN.octets(), HOST.octets(), 64).tcp(target.port(), port, sequence, 0).rst();
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).context("build a reset")?;
        send_raw(lab.lan(), &packet, HOST)?;
    }
    // Longer than a pair that has been reset may be silent.
    std::thread::sleep(Duration::from_secs(12));
    client.echo("after").context("a reset that nobody could believe")?;
    let flows = lab.netpath()?.flows()?;
    let flow = flows.iter().find(|flow| flow.original.source_port == port);
    ensure!(flow.is_some_and(|flow| flow.state == "ESTABLISHED"), "the flow is {flow:?}");
    Ok(())
}

fn fragmented(source_port: u16, text: &str, parts: &[(u16, u16)]) -> Result<Vec<Vec<u8>>> {
    fragments_of((LAN, source_port), (HOST, 8080), text, parts)
}

/// A datagram's fragments; the parts are bytes of it, from and to.
fn fragments_of(
    (source, source_port): (Ipv4Addr, u16),
    (destination, port): (Ipv4Addr, u16),
    text: &str,
    parts: &[(u16, u16)],
) -> Result<Vec<Vec<u8>>> {
    let mut datagram = Vec::new();
    PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .udp(source_port, port)
        .write(&mut datagram, text.as_bytes())
        .context("build a datagram")?;
    let payload = &datagram[Ipv4Header::MIN_LEN..];
    let fragment = |&(from, to): &(u16, u16)| {
        let part = payload.get(usize::from(from)..usize::from(to)).context("a part of the datagram")?;
        let length = u16::try_from(part.len())?;
        let mut header = Ipv4Header::new(length, 64, IpNumber::UDP, source.octets(), destination.octets())?;
        header.identification = source_port;
        header.fragment_offset = (from / 8).try_into()?;
        header.more_fragments = usize::from(to) < payload.len();
        header.dont_fragment = false;
        header.header_checksum = header.calc_header_checksum();
        let mut packet = Vec::new();
        header.write(&mut packet)?;
        packet.write_all(part)?;
        Ok(packet)
    };
    parts.iter().map(fragment).collect()
}

fn fragments(lab: &mut Lab) -> Result<()> {
    let _server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let published = SocketAddrV4::new(HOST, 8080);
    ask(lab, published)?;
    let text = "x".repeat(3000 - 8);
    for parts in [
        [(0, 1000), (1000, 2000), (2000, 3000)],
        [(1000, 2000), (0, 1000), (2000, 3000)],
        [(2000, 3000), (1000, 2000), (0, 1000)],
    ] {
        let client = UdpClient::connect(lab.lan(), published)?;
        for packet in fragmented(client.local().port(), &text, &parts)? {
            send_raw(lab.lan(), &packet, HOST)?;
        }
        let mut answer = vec![0; 65_536];
        let length = client.socket().recv(&mut answer).with_context(|| format!("in the order {parts:?}"))?;
        ensure!(answer[..length].ends_with(text.as_bytes()), "{length} bytes came back, in the order {parts:?}");
    }
    let before = lab.netpath()?.drops("fragment_overlap")?;
    let client = UdpClient::connect(lab.lan(), published)?;
    for packet in fragmented(client.local().port(), &text, &[(0, 1000), (992, 2000), (2000, 3000)])? {
        send_raw(lab.lan(), &packet, HOST)?;
    }
    wait::until("the overlap to be counted", PUBLISH_DEADLINE, || {
        let dropped = lab.netpath()?.drops("fragment_overlap")? - before;
        ensure!(dropped == 1, "{dropped} were dropped");
        Ok(())
    })
}

fn container_fragments(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (place, address) = (container.place()?, container.address()?);
    let (_server, target) = lab.lan_udp()?;
    let text = "y".repeat(3000 - 8);
    for parts in [
        [(0, 1000), (1000, 2000), (2000, 3000)],
        [(1000, 2000), (0, 1000), (2000, 3000)],
        [(2000, 3000), (1000, 2000), (0, 1000)],
    ] {
        let client = UdpClient::connect(&place, target)?;
        let source = (address, client.local().port());
        for packet in fragments_of(source, (*target.ip(), target.port()), &text, &parts)? {
            send_raw(&place, &packet, *target.ip())?;
        }
        let mut answer = vec![0; 65_536];
        let length = client.socket().recv(&mut answer).with_context(|| format!("in the order {parts:?}"))?;
        ensure!(answer[..length].ends_with(text.as_bytes()), "{length} bytes came back, in the order {parts:?}");
    }
    Ok(())
}

fn other_protocol(lab: &mut Lab) -> Result<()> {
    /// For experiments (RFC 3692).
    const EXPERIMENT: i32 = 253;
    let container = lab.start(lab.docker().idle())?;
    let open = || Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(EXPERIMENT)))?);
    let (inside, outside) = (container.place()?.enter(open)?, lab.lan().enter(open)?);
    for socket in [&inside, &outside] {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    }
    let any = |address| SockAddr::from(SocketAddrV4::new(address, 0));
    inside.send_to(b"question", &any(LAN))?;
    let (question, from) = receive(&outside).context("the question")?;
    ensure!((question.as_slice(), from) == (b"question".as_slice(), HOST), "{question:?} from {from}");
    outside.send_to(b"answer", &any(HOST))?;
    let (answer, from) = receive(&inside).context("the answer")?;
    ensure!((answer.as_slice(), from) == (b"answer".as_slice(), LAN), "{answer:?} from {from}");
    Ok(())
}

/// The payload of the next packet of a raw socket, and where it came from.
fn receive(mut socket: &Socket) -> Result<(Vec<u8>, Ipv4Addr)> {
    let mut buffer = [0; 256];
    let length = std::io::Read::read(&mut socket, &mut buffer)?;
    let (header, payload) = Ipv4Header::from_slice(&buffer[..length])?;
    Ok((payload.to_vec(), header.source.into()))
}

fn no_port(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::new(&["--port-range", "61000-61001"]))?;
    let (_server, target) = lab.lan_udp()?;
    let mut flows = Vec::new();
    let mut containers = Vec::new();
    for index in 0..3 {
        let container = lab.start(lab.docker().idle())?;
        let client = UdpClient::connect_from(&*container.place()?, 40_002, target)?;
        client.ask("hello").with_context(|| format!("the flow {index}"))?;
        flows.push(client);
        containers.push(container);
    }
    let refused = lab.start(lab.docker().idle())?;
    let error = UdpClient::connect_from(&*refused.place()?, 40_002, target)?.ask_in_vain("hello")?;
    ensure!(error == std::io::ErrorKind::HostUnreachable, "the kernel reports {error}");
    ensure!(lab.netpath()?.drops("ports_exhausted")? >= 1, "it isn't counted");
    flows.iter().try_for_each(|client| client.ask("still there").map(drop))
}

fn configuration_file(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("make a file")?;
    file.write_all(text.as_bytes()).context("write the file")?;
    Ok(file)
}

fn configuration(lab: &mut Lab) -> Result<()> {
    let file =
        configuration_file("[timeouts]\nprofile = \"rfc\"\nudp_replied = 3\n[ports]\nreserved = [\"40000-40010\"]\n")?;
    let path = file.path().to_string_lossy().into_owned();
    lab.start_netpath(Options::new(&["--config", &path]))?;
    let status: serde_json::Value = lab.netpath()?.json(&["status"])?;
    ensure!(status["timeouts"]["profile"] == "rfc", "status shows {}", status["timeouts"]);
    ensure!(status["timeouts"]["seconds"]["tcp_established"] == 7440, "status shows {}", status["timeouts"]);
    ensure!(status["timeouts"]["seconds"]["udp_replied"] == 3, "status shows {}", status["timeouts"]);

    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_udp()?;
    let client = UdpClient::connect_from(&*container.place()?, 40_005, target)?;
    let seen = client.ask("hello")?;
    ensure!(!(40_000..=40_010).contains(&seen.port()), "the reserved port {} was used", seen.port());
    std::thread::sleep(Duration::from_secs(5));
    let server = lab.lan().enter(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?))?;
    server.send_to(b"late", seen)?;
    client.give_up_after(Duration::from_millis(500))?;
    ensure!(client.socket().recv(&mut [0; 16]).is_err(), "the flow outlived its three seconds");
    Ok(())
}

fn wrong_configuration(lab: &mut Lab) -> Result<()> {
    let file = configuration_file("[timeouts]\ntcp_establisht = 5\n")?;
    let output = lab.host().command(lab.binary()?).arg("run").arg("--config").arg(file.path()).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it started");
    ensure!(message.contains("tcp_establisht"), "it says {message:?}");
    ensure!(message.contains(&*file.path().to_string_lossy()), "it doesn't name the file: {message:?}");
    Ok(())
}

fn masquerade_address(lab: &mut Lab) -> Result<()> {
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
    lab.host().run(&["ip", "address", "add", "192.0.2.77/24", "dev", "eth0"])?;
    let network = lab.docker().network(&["--opt", "com.docker.network.host_ipv4=192.0.2.77"])?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    let (_server, target) = lab.lan_tcp()?;
    let seen = TcpClient::connect(&*container.place()?, target)?.who()?;
    lab.host().run(&["ip", "address", "delete", "192.0.2.77/24", "dev", "eth0"])?;
    ensure!(seen.ip() == &OTHER, "the lan sees {seen}");
    Ok(())
}
