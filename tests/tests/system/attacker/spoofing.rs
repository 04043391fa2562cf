//! A container that claims others' addresses by ARP, and their Ethernet addresses.
//!
//! Docker forbids neither, and netpath doesn't: what neighbours send each other on a bridge is between them. But what netpath
//! translates or carries by a container's own port goes to that container, whatever ARP and the bridge have been told.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::attack::flags::SYN;
use netpath_tests::attack::{Forged, Shape, What, arp_claim, is_marked, mark};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;

use super::scene::Scene;
use super::{SETTLED, Sender, Spot};

/// Between claims. The kernel believes a second one after a second (`locktime`).
const AGAIN: Duration = Duration::from_millis(400);

/// Where datagrams of a container's own flow come from.
const OWN_PORT: u16 = 6001;

/// A datagram, and who must get it.
struct Probe<'a> {
    name: &'static str,
    send: Box<dyn Fn(u64) -> Result<()> + 'a>,
    to: Receiver,
}

/// Who gets a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// Whose address it is, and not the liar.
    Owner(Spot),
    /// The liar, as with Docker; nobody on the wire.
    Liar,
}

/// What the host believes of docker0's neighbours; dropping it makes the host ask anew.
struct Beliefs<'a>(&'a Place);

impl Drop for Beliefs<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.run(&["ip", "neighbour", "flush", "dev", "docker0"]) {
            eprintln!("the host believes what it was told: {error:#}");
        }
    }
}

fn datagram(place: &Place, from: u16, to: (Ipv4Addr, u16), number: u64) -> Result<()> {
    place.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from))?;
        socket.send_to(&mark(number), SocketAddr::from(to)).context("send a datagram")?;
        Ok(())
    })
}

pub(super) fn spoofs(lab: &mut Lab) -> Result<()> {
    let third = lab.start(lab.docker().idle())?;
    let scene = Scene::build(lab)?;
    let lab = &*lab;
    let _beliefs = Beliefs(lab.host());
    let (web, web_place, third_place) = (scene.web.address()?, scene.web.place()?, third.place()?);
    let liar = scene.sender(Sender::Mallory);
    // Everyone knows whom he talks to before: only what is known can be changed by a claim.
    datagram(&web_place, 0, (GATEWAY, 9), 9_000)?;
    datagram(&third_place, 0, (web, 9), 9_001)?;
    datagram(lab.host(), 0, (web, 9), 9_002)?;
    datagram(&web_place, OWN_PORT, (FAR, 53), 9_003)?;
    for _ in 0..5 {
        thread::sleep(AGAIN);
        liar.send_frame(&arp_claim(liar.mac(), web, scene.macs.bridges[0], GATEWAY))?;
        liar.send_frame(&arp_claim(liar.mac(), GATEWAY, scene.macs.web, web))?;
        liar.send_frame(&arp_claim(liar.mac(), web, scene.mac_of(&third)?, third.address()?))?;
    }
    believe(lab.host(), web, liar.mac()).context("the host")?;
    believe(&web_place, GATEWAY, liar.mac()).context("the server")?;
    believe(&third_place, web, liar.mac()).context("the neighbour")?;

    let wire = |source, destination, what| {
        let macs = &scene.macs;
        let forged = Forged { to: macs.host, from: macs.lan, source, destination, what, shape: Shape::Whole };
        let scene = &scene;
        Box::new(move |number| scene.send(Sender::Lan, &forged, number)) as Box<dyn Fn(u64) -> Result<()>>
    };
    let own = Receiver::Owner(Spot::Web);
    let probes = [
        Probe { name: "UDP to its published port", send: wire(LAN, HOST, What::Udp(8080)), to: own },
        Probe { name: "TCP to its published port", send: wire(LAN, HOST, What::Tcp(SYN, 8080)), to: own },
        Probe { name: "an answer to its own flow", send: wire(FAR, HOST, What::UdpFrom(53, OWN_PORT)), to: own },
        Probe {
            name: "its own datagram to the world, which it sends to the liar for a gateway",
            send: Box::new(|number| datagram(&web_place, 0, (FAR, 54), number)),
            to: Receiver::Liar,
        },
        Probe {
            name: "its neighbour's datagram to its address",
            send: Box::new(|number| datagram(&third_place, 0, (web, 9), number)),
            to: Receiver::Liar,
        },
        Probe {
            name: "the host's datagram to its address",
            send: Box::new(|number| datagram(lab.host(), 0, (web, 9), number)),
            to: Receiver::Liar,
        },
    ];
    judge(&scene, &probes, 1).context("after claims by ARP")?;
    // Its Ethernet address too: the bridge believes whoever has sent with it last.
    liar.send_frame(&[&scene.macs.bridges[0][..], &scene.macs.web, &[0x88, 0xb5], &[0; 46]].concat())?;
    judge(&scene, &probes[..3], 101).context("after frames with its Ethernet address")
}

/// The claims must be believed: else what follows proves nothing.
fn believe(place: &Place, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    let known = place.run(&["ip", "neighbour", "show", &address.to_string()])?;
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    ensure!(known.contains(&text), "doesn't believe that {address} is at {text}: {known}");
    Ok(())
}

fn judge(scene: &Scene, probes: &[Probe<'_>], first: u64) -> Result<()> {
    let liar = scene.sender(Sender::Mallory);
    scene.seen()?;
    liar.take_frames()?;
    for (number, probe) in (first..).zip(probes) {
        (probe.send)(number).context(probe.name)?;
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(SETTLED);
    let (seen, heard) = (scene.seen()?, liar.take_frames()?);
    let mut wrong = Vec::new();
    for (number, probe) in (first..).zip(probes) {
        let at = |spot| seen.iter().any(|(at, trace)| *at == spot && trace.number == number);
        let by_liar = heard.iter().any(|frame| is_marked(frame, number));
        let spots = [Spot::Web, Spot::Lan, Spot::Far].into_iter().filter(|spot| at(*spot));
        let places: Vec<_> =
            spots.map(|spot| format!("{spot:?}")).chain(by_liar.then(|| "the liar".to_owned())).collect();
        let is_right = match probe.to {
            Receiver::Owner(spot) => at(spot) && !by_liar,
            Receiver::Liar => by_liar && !at(Spot::Lan) && !at(Spot::Far),
        };
        if !is_right {
            wrong.push(format!("{}: is for {:?}, seen by {places:?}", probe.name, probe.to));
        }
    }
    ensure!(wrong.is_empty(), "of {} datagrams:\n    {}", probes.len(), wrong.join("\n    "));
    Ok(())
}
