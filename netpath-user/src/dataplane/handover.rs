//! Flows that stay with nf_conntrack until they end, and the filter that tells packets of all others at once.
//!
//! The filter has a bit for each key of the map, or more: a bit is set before its key is written, and taken away after the
//! last key that has it. Only the daemon writes bits and new keys, one step after the other.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
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
        for (word, bits) in bits.0 {
            let old = self.filter_word(word)?;
            self.write_filter_word(word, old, old | bits)?;
        }
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
        for word in 0..Handover::FILTER_WORDS {
            let old = self.filter_word(word)?;
            self.write_filter_word(word, old, bits.0.get(&word).copied().unwrap_or_default())?;
        }
        Ok(())
    }

    fn filter_word(&self, word: u32) -> anyhow::Result<u64> {
        self.handover_filter.get(&word, 0).with_context(|| format!("can't read the map {}", map::HANDOVER_FILTER))
    }

    fn write_filter_word(&mut self, word: u32, old: u64, new: u64) -> anyhow::Result<()> {
        if old == new {
            return Ok(());
        }
        self.handover_filter.set(word, new, 0).with_context(|| format!("can't write the map {}", map::HANDOVER_FILTER))
    }
}
