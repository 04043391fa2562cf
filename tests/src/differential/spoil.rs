//! Proof that the comparison can fail: real outcomes of netpath, spoiled on purpose, must be noticed.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::compare::{Outcome, Ports, compare};
use super::seen::{Packet, Spot, Sum};

/// One way to spoil an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoil {
    /// A packet doesn't come out.
    Lost,
    /// A packet comes out twice.
    Twice,
    /// A packet comes out at another place.
    Elsewhere,
    /// It comes from another address.
    Source,
    /// It goes to another port.
    DestinationPort,
    /// It comes from another port than the packets of its flow before.
    MappingChanges,
    /// It has one hop more to live.
    TimeToLive,
    /// One bit of what it carries is another.
    Data,
    /// The transport checksum is wrong.
    Checksum,
    /// The IPv4 header's checksum is wrong.
    HeaderChecksum,
    /// An ICMP error quotes an address that wasn't translated back.
    QuotedAddress,
    /// An ICMP error quotes a header whose checksum is wrong.
    QuotedChecksum,
}

impl Spoil {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Lost,
        Self::Twice,
        Self::Elsewhere,
        Self::Source,
        Self::DestinationPort,
        Self::MappingChanges,
        Self::TimeToLive,
        Self::Data,
        Self::Checksum,
        Self::HeaderChecksum,
        Self::QuotedAddress,
        Self::QuotedChecksum,
    ];

    /// Spoils an outcome; nothing, when there is nothing to spoil in this way.
    #[must_use]
    pub fn apply(self, outcome: &Outcome) -> Option<Outcome> {
        let mut spoiled = outcome.clone();
        let seen = spoiled.seen.first_mut()?;
        let packet = &mut seen.packet;
        match self {
            Self::Lost => drop(spoiled.seen.remove(0)),
            Self::Twice => {
                let twin = seen.clone();
                spoiled.seen.push(twin);
            }
            Self::Elsewhere => seen.at = if seen.at == Spot::Host { Spot::World } else { Spot::Host },
            Self::Source => packet.source = flipped(packet.source),
            Self::DestinationPort => packet.ports.1 ^= 0x1000,
            Self::MappingChanges if has_mapping(outcome) => packet.ports.0 ^= 0x1000,
            Self::TimeToLive => packet.ttl = packet.ttl.wrapping_add(1),
            Self::Data => *packet.rest.last_mut()? ^= 1,
            Self::Checksum if packet.sum == Sum::Right => packet.sum = Sum::Wrong,
            Self::HeaderChecksum => packet.header_sum = Sum::Wrong,
            Self::QuotedAddress => {
                let quote = packet.quote.as_mut()?;
                quote.destination = flipped(quote.destination);
            }
            Self::QuotedChecksum => packet.quote.as_mut()?.header_sum = Sum::Wrong,
            Self::MappingChanges | Self::Checksum => return None,
        }
        Some(spoiled)
    }
}

fn flipped(address: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    (u32::from(address) ^ 1).into()
}

/// Whether the outcome is one packet of UDP or TCP, sent on under another address.
fn has_mapping(outcome: &Outcome) -> bool {
    let sent = outcome.sent.first().and_then(|bytes| Packet::read(bytes));
    let seen = outcome.seen.first().map(|seen| &seen.packet);
    sent.zip(seen).is_some_and(|(sent, seen)| {
        matches!(seen.protocol, 6 | 17) && sent.protocol == seen.protocol && sent.identification == seen.identification
    })
}

/// How often each way of spoiling was tried; every time it was noticed.
#[derive(Debug, Default)]
pub struct SelfCheck {
    tried: BTreeMap<Spoil, usize>,
    unnoticed: Vec<String>,
}

impl SelfCheck {
    /// Spoils an outcome that is right in every way there is. `ports` is as it was before the step.
    pub fn step(&mut self, reference: &Outcome, netpath: &Outcome, ports: &Ports) {
        for spoil in Spoil::ALL {
            let Some(spoiled) = spoil.apply(netpath) else { continue };
            *self.tried.entry(*spoil).or_insert(0) += 1;
            let mut ports = ports.clone();
            if *spoil == Spoil::MappingChanges {
                // The flow's earlier packet, which was right.
                drop(compare(reference, netpath, &mut ports));
            }
            if compare(reference, &spoiled, &mut ports).is_empty() {
                self.unnoticed.push(format!("{spoil:?} of {:?}", netpath.seen));
            }
        }
    }

    /// Fails unless all ways of spoiling were tried and noticed.
    ///
    /// # Errors
    /// With what wasn't.
    pub fn check(&self) -> Result<()> {
        let untried: Vec<_> = Spoil::ALL.iter().filter(|spoil| !self.tried.contains_key(*spoil)).collect();
        ensure!(untried.is_empty(), "the comparison was never put to the test by {untried:?}");
        ensure!(self.unnoticed.is_empty(), "spoiled outcomes went unnoticed: {:#?}", self.unnoticed);
        Ok(())
    }
}
