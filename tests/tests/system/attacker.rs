//! An attacker on the wire, and one in a container: ways in or out that must be closed, one row each.
//!
//! Every attempt is a packet with a mark, which must not be seen where it isn't allowed to come out. For each the same packet
//! is sent once more to where it is allowed to go, and must be seen there: else the attempt would prove nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::attack::flags::{ACK, FIN, NULL, RST, SYN, SYN_ACK, XMAS};
use netpath_tests::attack::{Forged, Shape, Trace, What};
use netpath_tests::case::Case;
use netpath_tests::container::{Container, Network};
use netpath_tests::differential::tap::{HostTap, Interface, Tap};
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;

use Shape::{Fragments, LastFragment, Tagged, Whole};
use Spot::{Far, Host, Internal, Lan, Other, Quiet, Web, Wire};
use What::{Error, Icmp, Ping, Protocol, Routed, Tcp, TcpFrom, Tunnel, Udp, UdpFrom};

pub(crate) const CASES: &[Case] = &[
    Case::new("an attacker on the wire finds no way to what isn't published", from_wire).netpath(),
    Case::new("an attacker in a container finds no way out of its network and no false name", from_container).netpath(),
];

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

/// The containers of a test, and who listens where.
struct Scene {
    web: Container,
    other: Container,
    internal: Container,
    quiet: Container,
    mallory: Container,
    insider: Container,
    silent: Container,
    senders: BTreeMap<u8, Tap>,
    taps: Vec<(Spot, Tap)>,
    host: HostTap,
    macs: Macs,
    gateways: [Ipv4Addr; 3],
    _networks: [Network; 3],
}

/// Ethernet addresses.
struct Macs {
    host: [u8; 6],
    lan: [u8; 6],
    web: [u8; 6],
    quiet: [u8; 6],
    other: [u8; 6],
    /// Of docker0, the internal bridge and that without talk.
    bridges: [[u8; 6]; 3],
}

/// The containers that nobody outside their network may reach.
const CONTAINERS: &[Spot] = &[Web, Other, Internal, Quiet];

impl Scene {
    fn build(lab: &mut Lab) -> Result<Self> {
        let docker = lab.docker().clone();
        let networks = [
            docker.network(&[])?,
            docker.network(&["--internal"])?,
            docker.network(&["--opt", "com.docker.network.bridge.enable_icc=false"])?,
        ];
        let published = ["8080:80", "8080:80/udp", "127.0.0.1:9090:80", "127.0.0.1:9090:80/udp"];
        let request = docker.serving(&["tcp:80", "udp:80", "tcp:81", "udp:81"]);
        let web = lab.start(published.iter().fold(request, |request, port| request.publish(port)))?;
        super::reach::ask(lab, std::net::SocketAddrV4::new(HOST, 8080))?;
        let mut idle = |network: Option<&Network>| {
            let request = lab.docker().idle();
            lab.start(match network {
                Some(network) => request.network(network.name()),
                None => request,
            })
        };
        let mallory = idle(None)?;
        let other = idle(Some(&networks[0]))?;
        let (internal, insider) = (idle(Some(&networks[1]))?, idle(Some(&networks[1]))?);
        let (quiet, silent) = (idle(Some(&networks[2]))?, idle(Some(&networks[2]))?);

        let eth0 = |place: &Place| Interface::find(place, "eth0");
        let mac = |container: &Container| Ok::<_, anyhow::Error>(eth0(&*container.place()?)?.mac);
        let (mut bridges, mut gateways) = ([[0; 6]; 3], [GATEWAY; 3]);
        bridges[0] = Interface::find(lab.host(), "docker0")?.mac;
        for (number, network) in [(1, &networks[1]), (2, &networks[2])] {
            let format = "{{.Id}} {{(index .IPAM.Config 0).Gateway}}";
            let answer = docker.run(&["network", "inspect", "--format", format, network.name()])?;
            let (id, gateway) = answer.split_once(' ').with_context(|| format!("read {answer:?}"))?;
            bridges[number] = Interface::find(lab.host(), &format!("br-{}", &id[..12]))?.mac;
            gateways[number] = gateway.parse().with_context(|| format!("read {answer:?}"))?;
        }
        let macs = Macs {
            host: eth0(lab.host())?.mac,
            lan: eth0(lab.lan())?.mac,
            web: mac(&web)?,
            quiet: mac(&quiet)?,
            other: mac(&other)?,
            bridges,
        };
        let tap = |place: &Place| Tap::open(place, eth0(place)?, [0; 6]);
        let mut taps = vec![(Lan, tap(lab.lan())?), (Far, tap(lab.far())?), (Wire, tap(lab.host())?)];
        for (spot, container) in [(Web, &web), (Other, &other), (Internal, &internal), (Quiet, &quiet)] {
            taps.push((spot, tap(&*container.place()?)?));
        }
        let mut senders = BTreeMap::from([(Sender::Lan as u8, tap(lab.lan())?)]);
        for (sender, container) in [(Sender::Mallory, &mallory), (Sender::Insider, &insider), (Sender::Silent, &silent)]
        {
            senders.insert(sender as u8, tap(&*container.place()?)?);
        }
        let host = HostTap::open_for(lab.host(), &[1, 2, 4, 6, 17, 47, 50, 51, 132, 136, 253])?;
        Ok(Self {
            web,
            other,
            internal,
            quiet,
            mallory,
            insider,
            silent,
            senders,
            taps,
            host,
            macs,
            gateways,
            _networks: networks,
        })
    }

    /// From the wire, by the host's Ethernet address; it must not come to any container.
    fn wire(&self, name: &'static str, source: Ipv4Addr, destination: Ipv4Addr, what: What) -> Attempt {
        let forged = Forged { to: self.macs.host, from: self.macs.lan, source, destination, what, shape: Whole };
        Attempt::new(name, Sender::Lan, forged, CONTAINERS, self)
    }

    /// Out of a container with its own address, by the gateway's Ethernet address.
    fn inside(&self, name: &'static str, from: Sender, destination: Ipv4Addr, what: What) -> Result<Attempt> {
        let (container, bridge) = self.of(from);
        let source = container.address()?;
        let from_mac = self.senders[&(from as u8)].mac();
        let forged = Forged { to: self.macs.bridges[bridge], from: from_mac, source, destination, what, shape: Whole };
        Ok(Attempt::new(name, from, forged, &[Other, Internal, Quiet], self))
    }

    /// A sender's container, and the number of its bridge.
    fn of(&self, sender: Sender) -> (&Container, usize) {
        match sender {
            Sender::Lan | Sender::Mallory => (&self.mallory, 0),
            Sender::Insider => (&self.insider, 1),
            Sender::Silent => (&self.silent, 2),
        }
    }

    /// What has been seen since the last time.
    fn seen(&self) -> Result<Vec<(Spot, Trace)>> {
        let mut seen = Vec::new();
        for (spot, tap) in &self.taps {
            seen.extend(tap.take_frames()?.iter().filter_map(|frame| Some((*spot, Trace::of_frame(frame)?))));
        }
        seen.extend(self.host.take()?.iter().filter_map(|packet| Some((Host, Trace::of_packet(packet)?))));
        Ok(seen)
    }

    fn send(&self, from: Sender, forged: &Forged, number: u64) -> Result<()> {
        for frame in forged.frames(number) {
            self.senders[&(from as u8)].send_frame(&frame)?;
        }
        // One after the other, whichever queues they go through.
        thread::sleep(Duration::from_millis(2));
        Ok(())
    }
}

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

fn from_wire(lab: &mut Lab) -> Result<()> {
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

fn from_container(lab: &mut Lab) -> Result<()> {
    use Sender::{Insider, Mallory, Silent};
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
