//! An attacker on the wire, and one in a container: ways in or out that must be closed, one row each.
//!
//! Every attempt is a packet with a mark, which must not be seen where it isn't allowed to come out. For each the same packet
//! is sent once more to where it is allowed to go, and must be seen there: else the attempt would prove nothing.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::attack::{Forged, Shape, Trace, What};
use netpath_tests::case::Case;
use netpath_tests::lab::{GATEWAY, HOST, LAN, Lab};
use netpath_tests::netpath::Options;

use self::from_container::from_container;
use self::from_wire::from_wire;
use self::scene::Scene;
use Shape::{Fragments, LastFragment, Tagged};
use Spot::{Far, Host, Internal, Lan, Other, Quiet, Web, Wire};
use What::{Error, Routed, Tcp, TcpFrom, Udp, UdpFrom};

mod from_container;
mod from_wire;
mod ipv6;
mod scene;
mod spoofing;

pub(crate) const CASES: &[Case] = &[
    Case::new("an attacker on the wire finds no way to what isn't published", from_wire).netpath(),
    Case::new("an attacker in a container finds no way out of its network and no false name", from_container).netpath(),
    Case::new(
        "a container that claims others' addresses by ARP gets nothing that netpath translates",
        spoofing::spoofs,
    )
    .netpath(),
    Case::new("with --xdp off, an attacker on the wire finds no way either", |lab| from_wire_with(lab, "off"))
        .own_netpath(),
    Case::new("with --xdp native, an attacker on the wire finds no way either", |lab| from_wire_with(lab, "native"))
        .own_netpath(),
    Case::new("with --xdp generic, an attacker on the wire finds no way either", |lab| from_wire_with(lab, "generic"))
        .own_netpath(),
    Case::new("IPv6 from the wire gets to containers where Docker alone lets it, and nowhere else", ipv6::from_wire)
        .every_engine(),
];

fn from_wire_with(lab: &mut Lab, xdp: &str) -> Result<()> {
    lab.start_netpath(Options::new(&["--xdp", xdp]))?;
    from_wire(lab)
}

/// What comes out comes out within this time; far more than a packet takes.
const SETTLED: Duration = Duration::from_millis(700);

/// Where a packet may be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Spot {
    /// The neighbour on the wire.
    Lan,
    /// The machine behind it.
    Far,
    /// The host's own sockets.
    Host,
    /// The host's interface, before netpath.
    Wire,
    /// The container with published ports, on docker0.
    Web,
    /// A container on another network.
    Other,
    /// A container on an internal network.
    Internal,
    /// A container on a network whose containers may not talk to each other.
    Quiet,
}

/// A way in or out.
struct Attempt {
    name: &'static str,
    from: Sender,
    forged: Forged,
    /// Where it must not be seen.
    closed: &'static [Spot],
    /// The same, to where it may go.
    control: (Forged, Spot),
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// The neighbour on the wire.
    Lan,
    /// A container on docker0.
    Mallory,
    /// A container on the internal network.
    Insider,
    /// A container on the network without talk.
    Silent,
}
/// The containers that nobody outside their network may reach.
const CONTAINERS: &[Spot] = &[Web, Other, Internal, Quiet];

impl Attempt {
    fn new(name: &'static str, from: Sender, forged: Forged, closed: &'static [Spot], scene: &Scene) -> Self {
        let mut attempt = Self { name, from, forged, closed, control: (forged, Host) };
        attempt.control = attempt.allowed(scene);
        attempt
    }

    /// The same packet to where it may go: a port of the host's own at which nobody listens.
    fn allowed(&self, scene: &Scene) -> (Forged, Spot) {
        const PORT: u16 = 2222;
        let what = match self.forged.what {
            Tcp(flags, _) | TcpFrom(flags, ..) => Tcp(flags, PORT),
            Udp(_) | UdpFrom(..) => Udp(PORT),
            what => what,
        };
        let (container, bridge) = scene.of(self.from);
        let own = container.address().unwrap_or(GATEWAY);
        let (to, source, destination) = match self.from {
            Sender::Lan => (scene.macs.host, LAN, HOST),
            _ => (scene.macs.bridges[bridge], own, scene.gateways[bridge]),
        };
        let shape = if self.forged.shape == LastFragment { Fragments } else { self.forged.shape };
        let control = Forged { to, source, destination, what, shape, ..self.forged };
        match (self.from, shape, what) {
            // Nobody at the host takes these: that they have arrived there is all there is to see.
            (Sender::Lan, Tagged(_), _) | (Sender::Lan, _, Routed(..)) => (control, Wire),
            (Sender::Mallory, Tagged(_), _) => {
                let destination = scene.web.address().unwrap_or(GATEWAY);
                (Forged { to: scene.macs.web, destination, ..control }, Web)
            }
            _ => (control, Host),
        }
    }

    fn shaped(mut self, shape: Shape, scene: &Scene) -> Self {
        self.forged.shape = shape;
        self.control = self.allowed(scene);
        self
    }

    const fn by(mut self, mac: [u8; 6]) -> Self {
        self.forged.to = mac;
        self
    }

    const fn posing_as(mut self, source: Ipv4Addr) -> Self {
        self.forged.source = source;
        self
    }

    const fn closed(mut self, closed: &'static [Spot]) -> Self {
        self.closed = closed;
        self
    }

    /// Its control is another packet: this one reaches nobody, wherever it goes.
    fn control_as(mut self, what: What, scene: &Scene) -> Self {
        let forged = self.forged;
        self.forged.what = what;
        self.control = self.allowed(scene);
        self.forged = forged;
        self
    }

    /// Where it got through.
    fn through(&self, number: u64, seen: &[(Spot, Trace)]) -> Vec<String> {
        let is_error = matches!(self.forged.what, Error(..));
        let of_containers = |address: Ipv4Addr| address.octets()[0] == 172 && address.octets()[1] & 0xf0 == 16;
        let mut places = Vec::new();
        for (spot, trace) in seen.iter().filter(|(_, trace)| trace.number == number) {
            let came = self.closed.contains(spot) && (is_error || !trace.is_error);
            let named = of_containers(trace.source) || is_error && trace.quoted_destination.is_some_and(of_containers);
            let leaked = self.from != Sender::Lan && matches!(spot, Lan | Far) && named;
            if came || leaked {
                places.push(format!("{spot:?} sees it, from {}", trace.source));
            }
        }
        places.dedup();
        places
    }
}

/// Sends all attempts, then all controls, and judges.
fn play(scene: &Scene, attempts: &[Attempt]) -> Result<()> {
    const CONTROL: u64 = 10_000;
    scene.seen()?;
    for (number, attempt) in (1..).zip(attempts) {
        scene.send(attempt.from, &attempt.forged, number).with_context(|| attempt.name)?;
    }
    thread::sleep(SETTLED);
    let seen = scene.seen()?;
    for (number, attempt) in (1..).zip(attempts) {
        scene.send(attempt.from, &attempt.control.0, CONTROL + number).with_context(|| attempt.name)?;
    }
    thread::sleep(SETTLED);
    let allowed = scene.seen()?;
    let mut wrong = Vec::new();
    for (number, attempt) in (1..).zip(attempts) {
        let through = attempt.through(number, &seen);
        if !through.is_empty() {
            wrong.push(format!("{}: got through: {}", attempt.name, through.join("; ")));
        }
        let spot = attempt.control.1;
        let arrived = allowed.iter().any(|(at, trace)| *at == spot && trace.number == CONTROL + number);
        if !arrived {
            wrong.push(format!("{}: proves nothing, its control isn't seen at {spot:?}", attempt.name));
        }
    }
    ensure!(wrong.is_empty(), "of {} attempts:\n    {}", attempts.len(), wrong.join("\n    "));
    Ok(())
}
