//! Published ports, and the blocks in which the dataplane holds them.
//!
//! A range of thousands of ports is few blocks: each holds 2^n ports that follow each other on the host and in the
//! container, the first a multiple of 2^n, so that it is one prefix of the kernel's trie. A run of ports is cut into the
//! fewest blocks, which are at most two of each size. No block has ports of two containers: what one container
//! publishes doesn't change another's.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::model::Protocol;

/// A published port as a client addresses it; the address 0.0.0.0 stands for each of the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Host address.
    pub address: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// Host port.
    pub port: u16,
}

/// Where a published port leads, or the first of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedTarget {
    /// The container's address.
    pub address: Ipv4Addr,
    /// The container's port.
    pub port: u16,
}

/// Published ports that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortBlock {
    /// The first.
    pub first: PublishedPort,
    /// 2 to the power of this is how many there are.
    pub bits: u8,
}

impl From<PublishedPort> for PortBlock {
    /// A block of one port.
    fn from(first: PublishedPort) -> Self {
        Self { first, bits: 0 }
    }
}

impl PortBlock {
    /// The largest block that begins with this port and has no more than so many.
    fn largest(first: PublishedPort, count: usize) -> Self {
        let aligned = first.port.trailing_zeros();
        let bits = count.checked_ilog2().map_or(0, |fits| fits.min(aligned));
        Self { first, bits: u8::try_from(bits).unwrap_or(0) }
    }

    /// How many ports it has.
    #[must_use]
    pub const fn count(self) -> usize {
        1 << self.bits
    }

    /// The last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.first.port | ((1_u32 << self.bits) - 1) as u16
    }

    /// Its ports, each with where it leads when the first leads to `target`.
    pub fn ports(self, target: PublishedTarget) -> impl Iterator<Item = (PublishedPort, PublishedTarget)> {
        (0..=self.last() - self.first.port).map(move |step| {
            let port = PublishedPort { port: self.first.port + step, ..self.first };
            (port, PublishedTarget { port: target.port.wrapping_add(step), ..target })
        })
    }
}

/// The blocks of ports, each with where its first port leads.
#[must_use]
pub fn blocks(ports: &BTreeMap<PublishedPort, PublishedTarget>) -> BTreeMap<PortBlock, PublishedTarget> {
    let ports: Vec<_> = ports.iter().map(|(port, target)| (*port, *target)).collect();
    let mut blocks = BTreeMap::new();
    for run in ports.chunk_by(|one, next| follows(*one, *next)) {
        let mut rest = run;
        while let Some((first, target)) = rest.first() {
            let block = PortBlock::largest(*first, rest.len());
            blocks.insert(block, *target);
            rest = rest.get(block.count()..).unwrap_or_default();
        }
    }
    blocks
}

/// Whether a port is the next one on the host and in the container.
fn follows(one: (PublishedPort, PublishedTarget), next: (PublishedPort, PublishedTarget)) -> bool {
    let after = |port: u16| port.checked_add(1);
    (one.0.address, one.0.protocol, after(one.0.port)) == (next.0.address, next.0.protocol, Some(next.0.port))
        && (one.1.address, after(one.1.port)) == (next.1.address, Some(next.1.port))
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
