//! One lab in which sequences are played: packets go in by packet sockets, and all that comes out is caught.
//!
//! The ends are mute: in the containers and at the neighbour, what arrives is dropped behind the packet sockets, so no
//! stack answers and only the dataplane decides what is seen. Many sequences are played at once, a packet of each per
//! round; each has remote machines of its own, by whose addresses the packets that come out are told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::compare::Outcome;
use super::frame;
use super::invalid::Invalid;
use super::names::Book;
use super::packet::{Sequence, Side};
use super::seen::{Packet, Seen, Spot, reassemble};
use super::sentinel::Sentinel;
use super::tap::{HostTap, Interface, Tap};
use crate::container::Container;
use crate::dockerd::Rules;
use crate::lab::{Dataplane, Lab};
use crate::netns::Place;

/// Containers in the lab.
pub const CONTAINERS: u8 = 2;

/// A container's published ports: host address (none: all of them), host port, protocol, container, container port.
pub const PUBLISHED: &[(Option<u8>, u16, u8, u8, u16)] = &[
    (None, 8080, 6, 0, 80),
    (None, 8081, 6, 0, 80),
    (None, 8053, 17, 0, 53),
    (None, 8054, 17, 0, 53),
    (Some(1), 8082, 6, 0, 82),
    (Some(1), 8082, 17, 0, 82),
    (None, 9080, 6, 1, 80),
    (None, 9053, 17, 1, 53),
];

/// How long a round may take on a machine that is busy with other things.
const ROUND_DEADLINE: Duration = Duration::from_secs(10);

/// A lab with its sockets.
#[derive(Debug)]
pub struct Arena {
    world: Tap,
    insides: Vec<Tap>,
    host: HostTap,
    invalid: Option<Invalid>,
    sentinel: Sentinel,
    addresses: Vec<Ipv4Addr>,
    // In the order in which they must go.
    _containers: Vec<Container>,
    lab: Lab,
}

impl Arena {
    /// Builds the lab.
    ///
    /// # Errors
    /// When anything of it can't be made.
    pub fn create(name: &str, rules: Rules, dataplane: Dataplane, peer: &Path) -> Result<Self> {
        let mut lab = Lab::named(name, rules, dataplane, peer)?;
        lab.ensure_netpath().map_err(|error| anyhow!("{error:#}\n{}", lab.diagnosis()))?;
        let containers = start_containers(&mut lab).context("start the containers")?;
        let addresses = containers.iter().map(Container::address).collect::<Result<Vec<_>>>()?;
        let (bridge, uplink) = (Interface::find(lab.host(), "docker0")?, Interface::find(lab.host(), "eth0")?);
        let neighbour = Interface::find(lab.lan(), "eth0")?;
        settle_neighbour(&lab, "eth0", &crate::lab::LAN.to_string(), neighbour)?;
        let mut insides = Vec::new();
        for (container, address) in containers.iter().zip(&addresses) {
            let place = container.place()?;
            let interface = Interface::find(&place, "eth0")?;
            settle_neighbour(&lab, "docker0", &address.to_string(), interface)?;
            insides.push(Tap::open(&place, interface, bridge.mac)?);
            mute(&place)?;
        }
        let world = Tap::open(lab.lan(), neighbour, uplink.mac)?;
        mute(lab.lan())?;
        // Errors that the host sends are compared one by one: none may be left out for being too many.
        lab.host().sysctl("net/ipv4/icmp_ratemask", "0")?;
        let host = HostTap::open(lab.host())?;
        let invalid = if lab.tests_netpath() { None } else { Some(Invalid::watch(lab.host())?) };
        let sentinel = Sentinel::default();
        Ok(Self { world, insides, host, invalid, sentinel, addresses, _containers: containers, lab })
    }

    /// What to show when it fails.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        self.lab.diagnosis()
    }

    /// Plays sequences, each at its slot: a number that no other sequence has had in this lab.
    ///
    /// # Errors
    /// When packets can't be sent or caught.
    pub fn play(&mut self, sequences: &[(u32, &Sequence)]) -> Result<Vec<Vec<Outcome>>> {
        let mut books: Vec<Book> = sequences.iter().map(|(slot, _)| Book::new(*slot, &self.addresses)).collect();
        let positions: BTreeMap<u32, usize> =
            sequences.iter().enumerate().map(|(position, (slot, _))| (*slot, position)).collect();
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); sequences.len()];
        let rounds = sequences.iter().map(|(_, sequence)| sequence.steps.len()).max().unwrap_or(0);
        for round in 0..rounds {
            for (position, (slot, sequence)) in sequences.iter().enumerate() {
                let Some(step) = sequence.steps.get(round) else { continue };
                let tag = u64::from(*slot) << 16 | round as u64;
                let names = |datagram: &_| books[position].resolve(datagram);
                let sent = frame::build(step, identification(round), tag, &names);
                for packet in &sent {
                    self.send(step.from, packet)?;
                }
                outcomes[position].push(Outcome { sent, ..Outcome::default() });
            }
            let mut raw: Vec<Vec<(Spot, Vec<u8>)>> = vec![Vec::new(); sequences.len()];
            for (spot, bytes) in self.finish_round()? {
                let owner = Packet::read(&bytes).and_then(|packet| slot_of(&packet));
                if let Some(position) = owner.and_then(|slot| positions.get(&slot)) {
                    raw[*position].push((spot, bytes));
                }
            }
            for (position, raw) in raw.into_iter().enumerate() {
                let Some(step) = sequences[position].1.steps.get(round) else { continue };
                let seen: Vec<Seen> = reassemble(raw);
                books[position].learn(step, &seen);
                outcomes[position][round].seen = seen;
            }
        }
        self.note_invalid(&mut outcomes)?;
        Ok(outcomes)
    }

    /// Sends a packet as the side's own stack would: a container has its neighbours on its link.
    fn send(&self, from: Side, packet: &[u8]) -> Result<()> {
        let Side::Container(number) = from else { return self.world.send(packet) };
        let inside = &self.insides[usize::from(number)];
        let destination = Packet::read(packet).map(|packet| packet.destination);
        match self.addresses.iter().position(|address| Some(*address) == destination) {
            Some(neighbour) => inside.send_to(self.insides[neighbour].mac(), packet),
            None => inside.send(packet),
        }
    }

    /// Everything that has come out. The sentinels go last and by the same ways, so nothing comes after them.
    fn finish_round(&mut self) -> Result<Vec<(Spot, Vec<u8>)>> {
        self.sentinel.send(&self.world, &self.insides, &self.addresses)?;
        let deadline = Instant::now() + ROUND_DEADLINE;
        let mut all = Vec::new();
        let mut missing: BTreeSet<_> = Sentinel::expected();
        while !missing.is_empty() {
            ensure!(Instant::now() < deadline, "sentinels got lost on their way: {missing:?}");
            let mut caught = Vec::new();
            caught.extend(self.world.take()?.into_iter().map(|bytes| (Spot::World, bytes)));
            for (number, tap) in (0..).zip(&self.insides) {
                caught.extend(tap.take()?.into_iter().map(|bytes| (Spot::Container(number), bytes)));
            }
            for (spot, bytes) in caught {
                match self.sentinel.recognise(spot, &bytes) {
                    Some(way) => drop(missing.remove(&way)),
                    None => all.push((spot, bytes)),
                }
            }
        }
        all.extend(self.host.take()?.into_iter().map(|bytes| (Spot::Host, bytes)));
        Ok(all)
    }

    fn note_invalid(&self, outcomes: &mut [Vec<Outcome>]) -> Result<()> {
        let Some(invalid) = &self.invalid else { return Ok(()) };
        let found = invalid.take(self.lab.host())?;
        for outcome in outcomes.iter_mut().flatten() {
            let headers = outcome.sent.iter().filter_map(|bytes| Packet::read(bytes));
            outcome.invalid =
                headers.into_iter().any(|sent| found.contains(&(sent.source, sent.destination, sent.identification)));
        }
        Ok(())
    }
}

/// The identification of a step's packet: one that no other step of the sequence has.
fn identification(round: usize) -> u16 {
    0x4000 | u16::try_from(round & 0xfff).unwrap_or(0)
}

/// The sequence that a packet belongs to, by the remote machine that it or its quote names.
fn slot_of(packet: &Packet) -> Option<u32> {
    let addresses = [Some(packet.source), Some(packet.destination)];
    let quoted = packet.quote.as_ref().map_or([None, None], |quote| [Some(quote.source), Some(quote.destination)]);
    let named = addresses.into_iter().chain(quoted).flatten().find_map(super::names::slot_of);
    // Between containers no machine of the world is named: then the data says whose it is.
    named.or_else(|| u32::try_from(frame::tag_of(packet.rest.get(8..16)?) >> 16).ok())
}

fn start_containers(lab: &mut Lab) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for number in 0..CONTAINERS {
        let mut request = lab.docker().idle();
        for (host, port, protocol, _, inside) in PUBLISHED.iter().filter(|published| published.3 == number) {
            let address = if host.is_some() { format!("{}:", crate::lab::HOST_SECOND) } else { String::new() };
            let protocol = if *protocol == 6 { "tcp" } else { "udp" };
            request = request.publish(&format!("{address}{port}:{inside}/{protocol}"));
        }
        containers.push(lab.start(request)?);
    }
    Ok(containers)
}

/// Tells the host a neighbour's Ethernet address for good: no packet waits for, or gets lost over, ARP.
fn settle_neighbour(lab: &Lab, device: &str, address: &str, interface: Interface) -> Result<()> {
    let mac = interface.mac_text();
    let words = ["ip", "neighbour", "replace", address, "lladdr", &mac, "dev", device, "nud", "permanent"];
    lab.host().run(&words).map(drop)
}

/// A table that drops everything, before defragmentation.
const SILENCE: &str = "table ip netpath_silence {
    chain silence { type filter hook prerouting priority -500; policy drop; }
}";

/// Drops all IPv4 that arrives, behind the packet sockets and before anything else: nobody answers.
fn mute(place: &Place) -> Result<()> {
    place.run(&["nft", SILENCE]).map(drop)
}
