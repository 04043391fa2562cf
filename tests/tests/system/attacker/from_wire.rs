//! From the wire: ways to what isn't published, and false names.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use netpath_tests::attack::flags::{ACK, FIN, NULL, RST, SYN, SYN_ACK, XMAS};
use netpath_tests::attack::{Shape, What};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};

use super::scene::Scene;
use super::{CONTAINERS, Sender, Spot, play};
use Shape::{Fragments, LastFragment, Tagged};
use Spot::{Host, Web};
use What::{Error, Icmp, Ping, Protocol, Routed, Tcp, TcpFrom, Tunnel, Udp, UdpFrom};

pub(super) fn from_wire(lab: &mut Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    let s = &scene;
    let (web, other) = (s.web.address()?, s.other.address()?);
    let (internal, quiet, mallory) = (s.internal.address()?, s.quiet.address()?, s.mallory.address()?);
    // Two flows of a container, for whose answers the forged ones are to pass.
    for what in [UdpFrom(5001, 53), TcpFrom(SYN, 5002, 443)] {
        let flow = s.inside("a flow", Sender::Mallory, FAR, what)?;
        s.send(Sender::Mallory, &flow.forged, 9_999)?;
    }
    thread::sleep(Duration::from_millis(100));
    let any = |octets: [u8; 4]| Ipv4Addr::from(octets);
    let mallory_too: &[Spot] = CONTAINERS;
    let attempts = [
        s.wire("TCP to a container's address", LAN, web, Tcp(SYN, 80)),
        s.wire("UDP to a container's address", LAN, web, Udp(80)),
        s.wire("ping to a container's address", LAN, web, Ping),
        s.wire("TCP in fragments to a container's address", LAN, web, Tcp(SYN, 80)).shaped(Fragments, s),
        s.wire("UDP in fragments to a container's address", LAN, web, Udp(80)).shaped(Fragments, s),
        s.wire("ping in fragments to a container's address", LAN, web, Ping).shaped(Fragments, s),
        s.wire("a last fragment alone to a container's address", LAN, web, Udp(80)).shaped(LastFragment, s),
        s.wire("TCP by the container's Ethernet address", LAN, web, Tcp(SYN, 80)).by(s.macs.web),
        s.wire("UDP by the container's Ethernet address", LAN, web, Udp(80)).by(s.macs.web),
        s.wire("ping by the container's Ethernet address", LAN, web, Ping).by(s.macs.web),
        s.wire("UDP to a container by the broadcast Ethernet address", LAN, web, Udp(80)).by([0xff; 6]),
        s.wire("UDP to a container by a multicast Ethernet address", LAN, web, Udp(80)).by([1, 0, 0x5e, 0, 0, 1]),
        s.wire("UDP to a container by docker0's Ethernet address", LAN, web, Udp(80)).by(s.macs.bridges[0]),
        s.wire("ACK scan of a container", LAN, web, Tcp(ACK, 80)),
        s.wire("FIN scan of a container", LAN, web, Tcp(FIN, 80)),
        s.wire("Xmas scan of a container", LAN, web, Tcp(XMAS, 80)),
        s.wire("NULL scan of a container", LAN, web, Tcp(NULL, 80)),
        s.wire("RST to a container", LAN, web, Tcp(RST, 80)),
        s.wire("SYN-ACK to a container", LAN, web, Tcp(SYN_ACK, 80)),
        s.wire("SCTP to a container", LAN, web, Protocol(132)),
        s.wire("ESP to a container", LAN, web, Protocol(50)),
        s.wire("UDP-Lite to a container", LAN, web, Protocol(136)),
        s.wire("an unassigned protocol to a container", LAN, web, Protocol(253)),
        s.wire("ICMP timestamp request to a container", LAN, web, Icmp(13)),
        s.wire("ICMP redirect to a container", LAN, web, Icmp(5)),
        s.wire("ICMP error to a container's address", LAN, web, Error((3, 3), (web, 80), (LAN, 9))),
        s.wire("TCP to another network's container", LAN, other, Tcp(SYN, 80)),
        s.wire("UDP to another network's container", LAN, other, Udp(80)),
        s.wire("UDP to an internal network's container", LAN, internal, Udp(80)),
        s.wire("ping to an internal network's container", LAN, internal, Ping),
        s.wire("UDP to a container on a network without talk", LAN, quiet, Udp(80)),
        s.wire("TCP to a port that isn't published", LAN, HOST, Tcp(SYN, 81)),
        s.wire("UDP to a port that isn't published", LAN, HOST, Udp(81)),
        s.wire("the container's own port at the host's address", LAN, HOST, Udp(80)),
        s.wire("TCP to a port published on 127.0.0.1 by the host's address", LAN, HOST, Tcp(SYN, 9090)),
        s.wire("UDP to a port published on 127.0.0.1 by the host's address", LAN, HOST, Udp(9090)),
        s.wire("UDP to a port published on 127.0.0.1 by docker0's address", LAN, GATEWAY, Udp(9090)),
        s.wire("TCP to 127.0.0.1 from the wire", LAN, any([127, 0, 0, 1]), Tcp(SYN, 9090)).closed(&[Web, Host]),
        s.wire("UDP to 127.0.0.1 from the wire", LAN, any([127, 0, 0, 1]), Udp(9090)).closed(&[Web, Host]),
        s.wire("UDP to 127.0.0.2 from the wire", LAN, any([127, 0, 0, 2]), Udp(8080)).closed(&[Web, Host]),
        s.wire("a loopback source", any([127, 0, 0, 1]), HOST, Udp(8080)),
        s.wire("a container's own address as the source", web, HOST, Udp(8080)),
        s.wire("its neighbour's address as the source", mallory, HOST, Udp(8080)),
        s.wire("another network's container as the source", other, HOST, Tcp(SYN, 8080)),
        s.wire("docker0's address as the source", GATEWAY, HOST, Udp(8080)),
        s.wire("the host's own address as the source", HOST, HOST, Udp(8080)),
        s.wire("0.0.0.0 as the source", any([0; 4]), HOST, Udp(8080)),
        s.wire("a multicast source", any([224, 0, 0, 1]), HOST, Udp(8080)),
        s.wire("the broadcast address as the source", any([255; 4]), HOST, Udp(8080)),
        s.wire("loose source route over the host to a container", LAN, HOST, Routed(131, web)),
        s.wire("strict source route over the host to a container", LAN, HOST, Routed(137, web)),
        s.wire("source-routed straight to a container", LAN, web, Routed(131, HOST)),
        s.wire("IP in IP around a packet to a container", LAN, HOST, Tunnel(4, web)),
        s.wire("GRE around a packet to a container", LAN, HOST, Tunnel(47, web)),
        s.wire("IP in IP straight to a container", LAN, web, Tunnel(4, web)),
        s.wire(
            "an error that quotes a flow of a container that isn't",
            LAN,
            HOST,
            Error((3, 3), (HOST, 4999), (FAR, 53)),
        ),
        s.wire("an error that quotes a container's own address", LAN, HOST, Error((3, 4), (web, 80), (LAN, 9))),
        s.wire("an answer from another machine", LAN, HOST, UdpFrom(53, 5001)).closed(mallory_too),
        s.wire("an answer from another port", FAR, HOST, UdpFrom(54, 5001)).closed(mallory_too),
        s.wire("a SYN-ACK from another machine", LAN, HOST, TcpFrom(SYN_ACK, 443, 5002)).closed(mallory_too),
        s.wire("a SYN-ACK from another port", FAR, HOST, TcpFrom(SYN_ACK, 444, 5002)).closed(mallory_too),
        s.wire("a tagged frame to a container", LAN, web, Udp(80)).shaped(Tagged(&[(0x8100, 7)]), s),
        s.wire("a frame with two tags to a container", LAN, web, Udp(80))
            .shaped(Tagged(&[(0x88a8, 7), (0x8100, 7)]), s),
        s.wire("a frame with priority alone to a container", LAN, web, Udp(80)).shaped(Tagged(&[(0x8100, 0)]), s),
    ];
    play(s, &attempts)
}
