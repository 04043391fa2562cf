//! The last packets of a round: one on each way. When they have come out, so has everything before them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::frame::{Tuple, build, tag_of};
use super::names::{SLOTS, remote};
use super::packet::{Datagram, End, Payload, Side, Step};
use super::seen::{Packet, Spot};
use super::tap::Tap;
use crate::lab::HOST;

/// Where a sentinel comes out, and the container at the other end of its way.
pub type Way = (Spot, u8);

/// Published UDP ports of the containers, by their numbers.
const PUBLISHED: [u16; 2] = [8053, 9053];

/// Begins a sentinel's data.
const MAGIC: u64 = 0x6e70_7365_6e74_0000;

/// The sentinels of a lab.
#[derive(Debug, Default)]
pub struct Sentinel {
    round: u64,
}

impl Sentinel {
    /// The ways by which they go.
    #[must_use]
    pub fn expected() -> BTreeSet<Way> {
        [(Spot::World, 0), (Spot::World, 1), (Spot::Container(0), 0), (Spot::Container(1), 1)].into()
    }

    /// Sends those of the next round.
    ///
    /// # Errors
    /// When a frame can't be sent.
    pub fn send(&mut self, world: &Tap, insides: &[Tap], addresses: &[Ipv4Addr]) -> Result<()> {
        self.round += 1;
        for ((number, inside), address) in (0..).zip(insides).zip(addresses) {
            let peer = remote(SLOTS, number);
            self.send_one(inside, Side::Container(number), (*address, 7777), (peer, 7))?;
            self.send_one(world, Side::World, (peer, 7777), (HOST, PUBLISHED[usize::from(number)]))?;
        }
        Ok(())
    }

    fn send_one(&self, tap: &Tap, from: Side, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Result<()> {
        let payload = Payload::Udp { source: source.1, destination: destination.1, checksum: false, len: 16 };
        let step = Step::new(from, Datagram::new(End::Gateway, End::Gateway, payload));
        let names = |_: &Datagram| Tuple { source, destination };
        build(&step, 1, MAGIC | self.round, &names).iter().try_for_each(|packet| tap.send(packet))
    }

    /// The way by which a sentinel of this round has come out; nothing for other packets.
    #[must_use]
    pub fn recognise(&self, at: Spot, bytes: &[u8]) -> Option<Way> {
        let packet = Packet::read(bytes)?;
        // The data begins after the UDP header; its first eight bytes are the tag, each with its position mixed in.
        let tag = tag_of(packet.rest.get(8..16)?);
        if packet.protocol != 17 || tag != MAGIC | self.round {
            return None;
        }
        let peer = if at == Spot::World { packet.destination } else { packet.source };
        let number = u32::from(peer).checked_sub(u32::from(remote(SLOTS, 0)))?;
        Some((at, u8::try_from(number).ok()?))
    }
}
