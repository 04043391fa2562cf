//! SCTP, GRE and ESP between a container and the world, and SCTP between containers.
//!
//! SCTP is spoken by a real stack, usrsctp, in the programs' own process over raw sockets, so it needs no kernel module.
//! Publishing an SCTP port does: dockerd opens a socket of the kernel's for it.
//! GRE and ESP need one for real tunnels; their packets come from raw sockets at both ends. To a NAT that is the same:
//! neither has ports, and netpath reads no further than the IPv4 header.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::Ipv4Header;
use netpath_tests::case::Case;
use netpath_tests::container::Network;
use netpath_tests::lab::{FAR, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::program::{Program, run};
use netpath_tests::wait;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::reach::PUBLISH_DEADLINE;

pub(crate) const CASES: &[Case] = &[
    Case::new("an SCTP stack in a container talks to the world", sctp_out).netpath(),
    Case::new("SCTP stacks in two containers talk to each other", sctp_between).netpath(),
    Case::new("GRE, ESP and IGMP go out under the host's address and come back, to each peer by itself", tunnels)
        .netpath(),
    Case::new(
        "a second container's GRE or ESP to the same peer is refused and doesn't disturb the first",
        second_tunnel,
    )
    .netpath(),
];

/// A program that sends or receives a number of messages by SCTP and says how fast.
const TSCTP: &str = "/usr/lib/usrsctp/tsctp";

/// Messages that a client sends, large enough that no packet takes two.
const MESSAGES: u64 = 2000;

fn send_sctp(place: &Place, target: Ipv4Addr) -> Result<()> {
    let (count, target) = (MESSAGES.to_string(), target.to_string());
    let words = ["timeout", "20", TSCTP, "-U", "0", "-n", &count, "-l", "1000", &target];
    let printed = run(place, &words)?;
    ensure!(printed.contains(&format!("Sending of {MESSAGES} messages")), "{words:?}: {printed}");
    Ok(())
}

/// A server; what it has received it writes when an association ends.
fn sctp_server(place: &Place) -> Result<Program> {
    Program::start(place, &[TSCTP, "-U", "0"])
}

/// Fails unless the server has received all that [`send_sctp`] sends.
fn expect_received(server: &Program) -> Result<()> {
    // Length, reads, messages, bytes, and how fast.
    let expected = format!("1000, {MESSAGES}, {MESSAGES}, {}, ", MESSAGES * 1000);
    wait::until("the SCTP server to have received everything", Duration::from_secs(5), || {
        let log = server.log()?;
        ensure!(log.lines().any(|line| line.starts_with(&expected)), "it wrote {log}");
        Ok(())
    })
}

/// A network whose addresses look public: a stack that knows RFC 4960's scopes sends nothing from private ones to others.
fn public_network(lab: &Lab) -> Result<Network> {
    lab.docker().network(&["--subnet", "203.0.113.0/24"])
}

fn sctp_out(lab: &mut Lab) -> Result<()> {
    let network = public_network(lab)?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    // One address and no more: of several a stack answers from any, which no NAT could know.
    let server = sctp_server(lab.far())?;
    send_sctp(&*container.place()?, FAR)?;
    expect_received(&server)?;
    expect_flow(lab, "sctp", container.address()?)
}

fn sctp_between(lab: &mut Lab) -> Result<()> {
    let network = public_network(lab)?;
    let start = |lab: &mut Lab| lab.start(lab.docker().idle().network(network.name()));
    let (server, client) = (start(lab)?, start(lab)?);
    let program = sctp_server(&*server.place()?)?;
    let before = lab.netpath()?.traffic("local")?.packets;
    send_sctp(&*client.place()?, server.address()?)?;
    expect_received(&program)?;
    let carried = lab.netpath()?.traffic("local")?.packets - before;
    ensure!(carried > MESSAGES / 2, "netpath carried only {carried} packets");
    Ok(())
}

/// Fails unless `ct ls` lists a flow of a protocol with an end at an address.
fn expect_flow(lab: &mut Lab, protocol: &str, address: Ipv4Addr) -> Result<()> {
    let flows = lab.netpath()?.flows()?;
    let found = flows
        .iter()
        .any(|flow| flow.protocol == protocol && [flow.original.source, flow.reply.source].contains(&address));
    ensure!(found, "no {protocol} flow of {address} among {flows:?}");
    Ok(())
}

/// The protocols without ports, by name and number.
const TUNNELS: [(&str, i32); 3] = [("gre", 47), ("esp", 50), ("igmp", 2)];

/// One end of a tunnel.
struct End {
    socket: Socket,
    place: String,
}

impl End {
    fn open(place: &Place, protocol: i32) -> Result<Self> {
        let socket = place.enter(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(Self { socket, place: place.label().to_owned() })
    }

    fn send(&self, target: Ipv4Addr, packet: &[u8]) -> Result<()> {
        let target = SockAddr::from(SocketAddrV4::new(target, 0));
        self.socket.send_to(packet, &target).with_context(|| format!("send from {}", self.place))?;
        Ok(())
    }

    /// The next packet must be this one; gives where it came from.
    fn expect(&self, packet: &[u8]) -> Result<Ipv4Addr> {
        let mut buffer = vec![0; 65_536];
        let length = std::io::Read::read(&mut &self.socket, &mut buffer)
            .with_context(|| format!("{} waits for {} bytes", self.place, packet.len()))?;
        let (header, payload) = Ipv4Header::from_slice(&buffer[..length]).context("read a packet")?;
        ensure!(
            payload == packet,
            "{} bytes came to {}, not the {} right ones",
            payload.len(),
            self.place,
            packet.len()
        );
        Ok(header.source.into())
    }
}

/// A packet as a tunnel sends it: GRE with a key around IPv4, or ESP with its index and sequence number.
fn tunnelled(protocol: i32, number: u32, length: usize) -> Vec<u8> {
    let head: [u8; 4] = if protocol == 47 { [0x20, 0, 0x08, 0] } else { 0x0bad_cafe_u32.to_be_bytes() };
    let mut packet = [head, number.to_be_bytes()].concat();
    packet.extend((packet.len()..length).map(|at| at as u8));
    packet
}

fn tunnels(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    for (name, protocol) in TUNNELS {
        let inside = End::open(&*container.place()?, protocol)?;
        for (place, target) in [(lab.lan(), LAN), (lab.far(), FAR)] {
            let outside = End::open(place, protocol)?;
            // The last ones need fragments.
            for (number, length) in (0..).zip([16, 100, 1480, 1481, 4000]) {
                let packet = tunnelled(protocol, number, length);
                inside.send(target, &packet)?;
                let seen = outside.expect(&packet).with_context(|| format!("{name} to {target}"))?;
                ensure!(seen == HOST, "{target} sees {name} come from {seen}");
                outside.send(HOST, &packet)?;
                let seen = inside.expect(&packet).with_context(|| format!("{name} from {target}"))?;
                ensure!(seen == target, "the container sees {name} come from {seen}");
            }
        }
        expect_flow(lab, name, container.address()?)
            .or_else(|_| expect_flow(lab, &protocol.to_string(), container.address()?))?;
    }
    Ok(())
}

fn second_tunnel(lab: &mut Lab) -> Result<()> {
    let (first, second) = (lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?);
    for (name, protocol) in TUNNELS {
        let (own, other) = (End::open(&*first.place()?, protocol)?, End::open(&*second.place()?, protocol)?);
        let outside = End::open(lab.lan(), protocol)?;
        let packet = tunnelled(protocol, 1, 100);
        own.send(LAN, &packet)?;
        outside.expect(&packet).with_context(|| name.to_owned())?;
        outside.send(HOST, &packet)?;
        own.expect(&packet).with_context(|| name.to_owned())?;

        let before = lab.netpath()?.drops("ports_exhausted")?;
        let disturbing = tunnelled(protocol, 2, 200);
        // Who may not be served is told: on a raw socket that shows as an error of a later call.
        drop(other.send(LAN, &disturbing));
        let dropped = wait::until("the second container's packet to be counted", PUBLISH_DEADLINE, || {
            let dropped = lab.netpath()?.drops("ports_exhausted")? - before;
            ensure!(dropped > 0, "nothing is counted");
            Ok(dropped)
        })?;
        ensure!(dropped == 1, "{dropped} packets of {name} were refused, not the one");
        own.send(LAN, &packet)?;
        outside.expect(&packet).with_context(|| format!("{name}, after the second container's"))?;
    }
    Ok(())
}
