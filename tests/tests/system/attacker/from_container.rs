//! From a container: ways out of its network, and false names.

use std::net::Ipv4Addr;

use anyhow::Result;
use netpath_tests::attack::flags::{ACK, FIN, NULL, RST, SYN, SYN_ACK, XMAS};
use netpath_tests::attack::{Shape, What};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};

use super::scene::Scene;
use super::{Attempt, Spot, play};
use Shape::{Fragments, LastFragment, Tagged};
use Spot::{Far, Host, Lan, Web};
use What::{Error, Icmp, Ping, Protocol, Routed, Tcp, Tunnel, Udp};

pub(super) fn from_container(lab: &mut Lab) -> Result<()> {
    use super::Sender::{Insider, Mallory, Silent};
    const WORLD: &[Spot] = &[Lan, Far];
    let scene = Scene::build(lab)?;
    let s = &scene;
    let (web, other) = (s.web.address()?, s.other.address()?);
    let (internal, quiet) = (s.internal.address()?, s.quiet.address()?);
    let any = |octets: [u8; 4]| Ipv4Addr::from(octets);
    let out = |name, what| s.inside(name, Mallory, LAN, what).map(|attempt| attempt.closed(&[]));
    let posing = |name, source| Ok(s.inside(name, Mallory, LAN, Udp(9))?.posing_as(source).closed(WORLD));
    let posing: &dyn Fn(&'static str, Ipv4Addr) -> Result<Attempt> = &posing;
    let attempts = [
        s.inside("TCP to another network's container", Mallory, other, Tcp(SYN, 80))?,
        s.inside("UDP to another network's container", Mallory, other, Udp(80))?,
        s.inside("ping to another network's container", Mallory, other, Ping)?,
        s.inside("UDP in fragments to another network's container", Mallory, other, Udp(80))?.shaped(Fragments, s),
        s.inside("a last fragment to another network's container", Mallory, other, Udp(80))?.shaped(LastFragment, s),
        s.inside("ACK scan of another network's container", Mallory, other, Tcp(ACK, 80))?,
        s.inside("SYN-ACK to another network's container", Mallory, other, Tcp(SYN_ACK, 80))?,
        s.inside("RST to another network's container", Mallory, other, Tcp(RST, 80))?,
        s.inside("SCTP to another network's container", Mallory, other, Protocol(132))?,
        s.inside("an unassigned protocol to another network's container", Mallory, other, Protocol(253))?,
        s.inside("ICMP timestamp request to another network's container", Mallory, other, Icmp(13))?,
        s.inside("an error to another network's container", Mallory, other, Error((3, 3), (other, 80), (web, 9)))?,
        s.inside("another network's container by its Ethernet address", Mallory, other, Udp(80))?.by(s.macs.other),
        s.inside("another network's container by the broadcast address", Mallory, other, Udp(80))?.by([0xff; 6]),
        s.inside("another network's container in a tagged frame", Mallory, other, Udp(80))?
            .shaped(Tagged(&[(0x8100, 7)]), s),
        s.inside("another network's container in a frame with two tags", Mallory, other, Udp(80))?
            .shaped(Tagged(&[(0x88a8, 7), (0x8100, 7)]), s),
        s.inside("another network's container by a neighbour's Ethernet address", Mallory, other, Udp(80))?
            .by(s.macs.web),
        s.inside("another network's container, in its neighbour's name", Mallory, other, Udp(80))?.posing_as(quiet),
        s.inside("another network's container by a loose source route", Mallory, GATEWAY, Routed(131, other))?
            .control_as(Udp(2222), s),
        s.inside("another network's container by IP in IP", Mallory, GATEWAY, Tunnel(4, other))?,
        s.inside("another network's container by GRE", Mallory, GATEWAY, Tunnel(47, other))?,
        s.inside("TCP to an internal network's container", Mallory, internal, Tcp(SYN, 80))?,
        s.inside("UDP to an internal network's container", Mallory, internal, Udp(80))?,
        s.inside("ping to an internal network's container", Mallory, internal, Ping)?,
        s.inside("UDP to a container on a network without talk", Mallory, quiet, Udp(80))?,
        s.inside("a port published on 127.0.0.1 by the host's address", Mallory, HOST, Udp(9090))?.closed(&[Web]),
        s.inside("a port published on 127.0.0.1 by the gateway's address", Mallory, GATEWAY, Tcp(SYN, 9090))?
            .closed(&[Web]),
        s.inside("127.0.0.1 by the gateway's Ethernet address", Mallory, any([127, 0, 0, 1]), Udp(9090))?
            .closed(&[Web, Host]),
        s.inside("TCP between containers without talk", Silent, quiet, Tcp(SYN, 80))?.by(s.macs.quiet),
        s.inside("UDP between containers without talk", Silent, quiet, Udp(80))?.by(s.macs.quiet),
        s.inside("ping between containers without talk", Silent, quiet, Ping)?.by(s.macs.quiet),
        s.inside("fragments between containers without talk", Silent, quiet, Udp(80))?
            .by(s.macs.quiet)
            .shaped(Fragments, s),
        s.inside("containers without talk by the gateway's Ethernet address", Silent, quiet, Udp(80))?,
        s.inside("containers without talk by the broadcast address", Silent, quiet, Udp(80))?.by([0xff; 6]),
        s.inside("containers without talk in the gateway's name", Silent, quiet, Udp(80))?
            .by(s.macs.quiet)
            .posing_as(s.gateways[2]),
        s.inside("TCP from an internal network to the world", Insider, LAN, Tcp(SYN, 80))?.closed(WORLD),
        s.inside("UDP from an internal network to the world", Insider, LAN, Udp(80))?.closed(WORLD),
        s.inside("ping from an internal network to the world", Insider, FAR, Ping)?.closed(WORLD),
        s.inside("fragments from an internal network to the world", Insider, LAN, Udp(80))?
            .shaped(Fragments, s)
            .closed(WORLD),
        s.inside("another protocol from an internal network to the world", Insider, LAN, Protocol(253))?.closed(WORLD),
        s.inside("an ACK from an internal network to the world", Insider, LAN, Tcp(ACK, 80))?.closed(WORLD),
        s.inside("from an internal network to docker0's container", Insider, web, Udp(80))?.closed(&[Web]),
        s.inside("from an internal network to another network's container", Insider, other, Udp(80))?,
        s.inside("another network's container in a frame with priority alone", Mallory, other, Udp(80))?
            .shaped(Tagged(&[(0x8100, 0)]), s),
        s.inside("from an internal network to a published port", Insider, HOST, Udp(8080))?.closed(&[Web]),
        s.inside(
            "from an internal network to a published port by docker0's address",
            Insider,
            GATEWAY,
            Tcp(SYN, 8080),
        )?
        .closed(&[Web]),
        posing("a neighbour's address towards the world", web)?,
        posing("another network's address towards the world", other)?,
        posing("the gateway's address towards the world", GATEWAY)?,
        posing("the host's address towards the world", HOST)?,
        posing("a stranger's address towards the world", FAR)?,
        posing("127.0.0.1 towards the world", any([127, 0, 0, 1]))?,
        posing("0.0.0.0 towards the world", any([0; 4]))?,
        posing("a multicast source towards the world", any([224, 0, 0, 1]))?,
        posing("the broadcast address as the source towards the world", any([255; 4]))?,
        out("a last fragment doesn't leave untranslated", Udp(9))?.shaped(LastFragment, s),
        out("fragments don't leave untranslated", Udp(9))?.shaped(Fragments, s),
        out("another protocol doesn't leave untranslated", Protocol(253))?,
        out("UDP-Lite doesn't leave untranslated", Protocol(136))?,
        out("IPsec's AH doesn't leave untranslated", Protocol(51))?,
        out("SCTP doesn't leave untranslated", Protocol(132))?,
        out("IP in IP doesn't leave untranslated", Tunnel(4, FAR))?,
        out("an ICMP error about a container's own address doesn't leave", Error((3, 3), (LAN, 9), (web, 80)))?,
        out("an ICMP redirect doesn't leave untranslated", Icmp(5))?,
        out("an ICMP timestamp request doesn't leave untranslated", Icmp(13))?,
        out("an ICMP echo reply to nobody doesn't leave untranslated", Icmp(0))?,
        out("a reset of nothing doesn't leave untranslated", Tcp(RST, 9))?,
        out("a close of nothing doesn't leave untranslated", Tcp(FIN, 9))?,
        out("an ACK of nothing doesn't leave untranslated", Tcp(ACK, 9))?,
        out("a SYN-ACK to nothing doesn't leave untranslated", Tcp(SYN_ACK, 9))?,
        out("a segment without flags doesn't leave untranslated", Tcp(NULL, 9))?,
        out("a Christmas tree doesn't leave untranslated", Tcp(XMAS, 9))?,
        out("a tagged frame doesn't leave untranslated", Udp(9))?.shaped(Tagged(&[(0x8100, 7)]), s),
        out("a frame with priority alone doesn't leave untranslated", Udp(9))?.shaped(Tagged(&[(0x8100, 0)]), s),
        out("a frame to a neighbour's Ethernet address doesn't leave untranslated", Udp(9))?.by(s.macs.web),
        out("a frame to the router's Ethernet address doesn't leave untranslated", Udp(9))?.by(s.macs.lan),
    ];
    play(s, &attempts)
}
