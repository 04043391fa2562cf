//! The collector: finds flows that have ended and has the kernel delete them.
//!
//! Here is only the search. Whether a flow really has ended the program `np_collect` decides, at the moment in which it
//! deletes: between a look from here and a delete from here a packet could have brought the flow back to life.

use anyhow::Context as _;
use netpath_common::{
    abi::{
        Cone, ConeKey, Flow, FlowKey,
        names::{map, program},
    },
    conntrack::state::{SECOND_NS, possible_states},
};

use super::{attach, detach::now_ns, kernel::Kernel, pins, remover};

/// What a slice of the collector's work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries that were looked at.
    pub scanned: u64,
    /// Flows that were deleted.
    pub deleted: u64,
    /// Flows that a sweep of the whole table has left; absent until its last slice.
    pub left: Option<u64>,
}

impl Kernel {
    /// Does a slice of the collector's work: looks at up to `budget` entries and deletes the flows that have ended.
    ///
    /// # Errors
    ///
    /// When the table can't be read or the collector's program fails.
    pub fn collect(&mut self, budget: usize) -> anyhow::Result<Collected> {
        #[cfg(feature = "trace")]
        self.packet_log.flush();
        let (entries, next) = self.pins.table.slice(self.sweep, budget)?;
        self.sweep = next.unwrap_or_default();
        let now_ns = now_ns()?;
        let mut candidates = Vec::new();
        for (key, flow) in &entries {
            if self.may_have_ended(key, flow, now_ns)? {
                candidates.push(*key);
            }
        }
        let mut collected = Collected { scanned: entries.len() as u64, deleted: 0, left: None };
        let program = attach::classifier(&mut self.ebpf, program::COLLECT)?;
        collected.deleted = remover::run(program, &candidates).context("the collector's program failed")?;
        self.swept.scanned += collected.scanned;
        self.swept.deleted += collected.deleted;
        if next.is_none() {
            // Each flow has two entries.
            collected.left = Some((self.swept.scanned / 2).saturating_sub(self.swept.deleted));
            self.swept = Collected::default();
            self.collect_handover(now_ns)?;
            self.collect_cones(now_ns)?;
        }
        Ok(collected)
    }

    /// A cheap look at one direction only; the program in the kernel decides. The shortest timeout counts that the pair
    /// may have, whatever the other direction has shown.
    fn may_have_ended(&self, key: &FlowKey, flow: &Flow, now_ns: u64) -> anyhow::Result<bool> {
        if self.hops.get(flow.hop)?.generation != flow.hop_generation {
            return Ok(true);
        }
        let states = possible_states(key.protocol, flow.seen);
        let shortest = states.iter().filter_map(|state| self.timeouts.get(state)).min();
        let shortest_ns = shortest.map_or(0, |seconds| u64::from(*seconds) * SECOND_NS);
        Ok(now_ns.saturating_sub(flow.last_seen_ns) >= shortest_ns)
    }

    /// Lets go of ports whose cone, or whose claim, has ended. As with flows, the program decides.
    fn collect_cones(&mut self, now_ns: u64) -> anyhow::Result<()> {
        // Without cones there may still be some of before: they go as well.
        let timeout_ns = u64::from(self.pins().config()?.cone_timeout_s) * SECOND_NS;
        let mut candidates = Vec::new();
        let mut cones = Vec::new();
        pins::walk::<ConeKey, Cone>(&self.cones, map::CONES, |key, cone| cones.push((key, cone)))?;
        for (key, cone) in cones {
            let is_gone = !cone.is_shared() && self.hops.get(cone.hop)?.generation != cone.hop_generation;
            if is_gone || now_ns.saturating_sub(cone.last_seen_ns) >= timeout_ns {
                candidates.push(key);
            }
        }
        let program = attach::classifier(&mut self.ebpf, program::COLLECT_CONES)?;
        remover::run(program, &candidates).context("the collector's program for cones failed").map(drop)
    }
}
