//! What the names in a sequence's packets stand for in one lab: who has which address, and which port the dataplane has
//! chosen for whom, as far as that has been seen.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::frame::Tuple;
use super::packet::{Datagram, End, Side, Step};
use super::seen::{Packet, Seen, Spot};
use crate::lab::{GATEWAY, HOST, HOST_SECOND};

/// Shared address space (RFC 6598), which nothing else in the lab uses: machines of the world, four per sequence.
const REMOTES: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const REMOTES_BITS: u32 = 22;
const PER_SLOT: u32 = 4;

/// How many sequences a lab has room for.
pub const SLOTS: u32 = (1 << REMOTES_BITS) / PER_SLOT - 1;

/// A machine of the world.
#[must_use]
pub fn remote(slot: u32, number: u8) -> Ipv4Addr {
    Ipv4Addr::from(REMOTES + slot * PER_SLOT + u32::from(number))
}

/// Whose machine of the world it is.
#[must_use]
pub fn slot_of(address: Ipv4Addr) -> Option<u32> {
    let number = u32::from(address).checked_sub(REMOTES)?;
    (number < 1 << REMOTES_BITS).then_some(number / PER_SLOT)
}

/// A port of the host that nobody has.
const CLOSED: u16 = 7;

/// A masqueraded flow as the container has it: protocol, container, its port, the remote end.
type Inside = (u8, u8, u16, Ipv4Addr, u16);

/// A container that asks for a published port: protocol, container, its port, the published port.
type Neighbour = (u8, u8, u16, u16);

/// A client of a published port: protocol, its end, the published port.
type Client = (u8, Ipv4Addr, u16, u16);

/// What is known of one sequence in one lab.
#[derive(Debug)]
pub struct Book {
    slot: u32,
    containers: Vec<Ipv4Addr>,
    mapped: BTreeMap<Inside, (Ipv4Addr, u16)>,
    clients: BTreeMap<Client, u16>,
    neighbours: BTreeMap<Neighbour, (Ipv4Addr, u16)>,
}

impl Book {
    /// Of a sequence that hasn't begun.
    #[must_use]
    pub fn new(slot: u32, containers: &[Ipv4Addr]) -> Self {
        Self {
            slot,
            containers: containers.to_vec(),
            mapped: BTreeMap::new(),
            clients: BTreeMap::new(),
            neighbours: BTreeMap::new(),
        }
    }

    /// What the names of a packet stand for.
    #[must_use]
    pub fn resolve(&self, datagram: &Datagram) -> Tuple {
        let ((source_port, destination_port), protocol) = (datagram.ports(), datagram.protocol());
        let (source, destination) = (datagram.source, datagram.destination);
        Tuple {
            source: self.end(protocol, (source, source_port), (destination, destination_port)),
            destination: self.end(protocol, (destination, destination_port), (source, source_port)),
        }
    }

    fn end(&self, protocol: u8, (end, port): (End, u16), (peer, peer_port): (End, u16)) -> (Ipv4Addr, u16) {
        match end {
            End::Mapped(container) => {
                let key = (protocol, container, port, self.address(peer), peer_port);
                self.mapped.get(&key).copied().unwrap_or_else(|| (HOST, self.unseen(key)))
            }
            End::Client(number, published) => {
                let address = remote(self.slot, number);
                let key = (protocol, address, port, published);
                (address, self.clients.get(&key).copied().unwrap_or(port))
            }
            End::Neighbour(number, published) => {
                let key = (protocol, number, port, published);
                self.neighbours.get(&key).copied().unwrap_or((self.address(end), port))
            }
            other => (self.address(other), port),
        }
    }

    /// The port of a flow that hasn't been seen: it would have kept its own, unless another has that.
    fn unseen(&self, (protocol, _, port, remote, remote_port): Inside) -> u16 {
        // Whatever was chosen for another one in one lab, it needn't be that in the other.
        let held = self.mapped.keys().any(|(held_protocol, _, _, held_remote, held_port)| {
            (*held_protocol, *held_remote, *held_port) == (protocol, remote, remote_port)
        });
        if held { CLOSED } else { port }
    }

    fn address(&self, end: End) -> Ipv4Addr {
        match end {
            End::Container(number) | End::Neighbour(number, _) => self.containers[usize::from(number)],
            End::Remote(number) | End::Client(number, _) => remote(self.slot, number),
            End::Host(0) | End::Mapped(_) => HOST,
            End::Host(_) => HOST_SECOND,
            End::Gateway => GATEWAY,
        }
    }

    /// Learns which ports were chosen from what came out of a step.
    pub fn learn(&mut self, step: &Step, seen: &[Seen]) {
        let datagram = &step.datagram;
        let ((source_port, destination_port), protocol) = (datagram.ports(), datagram.protocol());
        let tells =
            |packet: &Packet| packet.protocol == protocol && packet.quote.is_none() && !packet.is_later_fragment();
        for Seen { at, packet } in seen.iter().filter(|seen| tells(&seen.packet)) {
            match (step.from, at, datagram.source, datagram.destination) {
                (Side::Container(_), Spot::World, End::Container(container), End::Remote(number))
                    if packet.source == HOST || packet.source == HOST_SECOND =>
                {
                    let key = (protocol, container, source_port, remote(self.slot, number), destination_port);
                    self.mapped.insert(key, (packet.source, packet.ports.0));
                }
                (Side::World, Spot::Container(_), End::Remote(number), End::Host(_)) => {
                    let key = (protocol, remote(self.slot, number), source_port, destination_port);
                    self.clients.insert(key, packet.ports.0);
                }
                (Side::Container(_), Spot::Container(_), End::Container(number), End::Host(_)) => {
                    let key = (protocol, number, source_port, destination_port);
                    self.neighbours.insert(key, (packet.source, packet.ports.0));
                }
                _ => {}
            }
        }
    }
}
