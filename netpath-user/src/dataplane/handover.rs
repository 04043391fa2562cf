//! Flows that stay with nf_conntrack until they end, and the filter that tells packets of all others at once.
//!
//! The filter has a bit for each key of the map, or more: a bit is set before its key is written, and taken away after the
//! last key that has it. Only the daemon writes bits and new keys, one step after the other.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use netpath_common::abi::{FlowKey, Handover, names::map};

use super::{bpf, detach::now_ns, kernel::Kernel, pins};

/// A flow that stays with nf_conntrack.
#[derive(Debug, Clone, Copy)]
pub struct HandoverFlow {
    /// The tuple of one direction, as it arrives.
    pub key: FlowKey,
    /// Without a packet for so long, it has ended.
    pub timeout: Duration,
}

/// Bits of the filter, by their word.
#[derive(Default)]
struct Bits(BTreeMap<u32, u64>);

impl Bits {
    fn add(&mut self, key: &FlowKey) {
        let (word, bit) = Handover::place(key);
        *self.0.entry(word).or_default() |= bit;
    }
}

/// The filter's map, and what is in it: nobody else writes it.
pub(super) struct Filter {
    map: Array<MapData, u64>,
    words: Vec<u64>,
}

impl Filter {
    /// Reads what an earlier daemon has left.
    pub(super) fn read(map: Array<MapData, u64>) -> anyhow::Result<Self> {
        let words = (0..Handover::FILTER_WORDS).map(|word| map.get(&word, 0)).collect::<Result<_, _>>();
        Ok(Self { words: words.with_context(|| format!("can't read the map {}", map::HANDOVER_FILTER))?, map })
    }

    fn add(&mut self, bits: &Bits) -> anyhow::Result<()> {
        bits.0.iter().try_for_each(|(word, bits)| self.set(*word, self.words[*word as usize] | bits))
    }

    fn replace(&mut self, bits: &Bits) -> anyhow::Result<()> {
        (0..Handover::FILTER_WORDS).try_for_each(|word| self.set(word, bits.0.get(&word).copied().unwrap_or_default()))
    }

    fn set(&mut self, word: u32, bits: u64) -> anyhow::Result<()> {
        if self.words[word as usize] != bits {
            self.map.set(word, bits, 0).with_context(|| format!("can't write the map {}", map::HANDOVER_FILTER))?;
            self.words[word as usize] = bits;
        }
        Ok(())
    }
}

impl Kernel {
    /// Leaves flows with nf_conntrack until they end.
    ///
    /// # Errors
    ///
    /// When a map can't be written.
    pub fn add_handover(&mut self, flows: &[HandoverFlow]) -> anyhow::Result<()> {
        let last_seen_ns = now_ns()?;
        let (mut entries, mut bits) = (Vec::new(), Bits::default());
        for flow in flows {
            let timeout_ns = u64::try_from(flow.timeout.as_nanos()).unwrap_or(u64::MAX);
            entries.push((flow.key, Handover { last_seen_ns, timeout_ns }));
            bits.add(&flow.key);
        }
        self.handover_filter.add(&bits)?;
        bpf::update(&self.handover, &entries).context("can't write the map of flows that stay with nf_conntrack")
    }

    /// Forgets flows that have been silent for their time.
    pub(super) fn collect_handover(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let (mut ended, mut bits) = (Vec::new(), Bits::default());
        pins::walk::<FlowKey, Handover>(&self.handover, map::HANDOVER, |key, flow| {
            if now_ns.saturating_sub(flow.last_seen_ns) >= flow.timeout_ns {
                ended.push(key);
            } else {
                bits.add(&key);
            }
        })?;
        bpf::delete(&self.handover, &ended).context("can't write the map of flows that stay with nf_conntrack")?;
        self.handover_filter.replace(&bits)
    }
}
