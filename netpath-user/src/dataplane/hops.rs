//! Slots of the map of hops: which are free, and their generations.
//!
//! A slot's generation rises when it is given away and again when it is freed: flows remember the generation that they
//! began with, so one write ends all of them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use netpath_common::abi::{Hop, HopKind, names::map};

use super::{layout::Layout, load::HOPS_MAX, pins};

/// The map of hops with its free slots.
pub(super) struct Hops {
    map: Array<MapData, Hop>,
    free: BTreeSet<u32>,
    /// First slot that was never used.
    untouched: u32,
}

impl Hops {
    /// Takes the map over; slots in use stay in use. Slot 0 is never given away: it is what zeroed entries point to.
    pub(super) fn adopt(map: Array<MapData, Hop>, layout: &Layout) -> anyhow::Result<Self> {
        let mut hops = Self { map, free: BTreeSet::new(), untouched: 1 };
        let whole = pins::open(layout, map::HOPS)?;
        // The kernel gives an array in order.
        pins::walk::<u32, Hop>(&whole, map::HOPS, |index, hop| {
            if index == 0 {
                return;
            }
            if hop.kind != HopKind::Free as u8 {
                hops.free.extend(hops.untouched..index);
                hops.untouched = index + 1;
            } else if hop.generation != 0 {
                hops.free.extend(hops.untouched..=index);
                hops.untouched = index + 1;
            }
        })?;
        Ok(hops)
    }

    pub(super) fn get(&self, index: u32) -> anyhow::Result<Hop> {
        self.map.get(&index, 0).with_context(|| format!("can't read hop {index}"))
    }

    /// Gives a slot a meaning; `hop.generation` is chosen here.
    pub(super) fn assign(&mut self, hop: Hop) -> anyhow::Result<u32> {
        let index = self.free.first().copied().unwrap_or(self.untouched);
        if index >= HOPS_MAX {
            anyhow::bail!("no free hop: {HOPS_MAX} endpoints and uplinks are the most");
        }
        self.replace(index, hop)?;
        if !self.free.remove(&index) {
            self.untouched += 1;
        }
        Ok(index)
    }

    /// Gives a slot another meaning: flows that point to it end.
    pub(super) fn replace(&mut self, index: u32, hop: Hop) -> anyhow::Result<()> {
        let generation = self.get(index)?.generation.wrapping_add(1);
        self.write(index, Hop { generation, ..hop })
    }

    /// Changes a slot without another meaning: flows go on.
    pub(super) fn update(&mut self, index: u32, hop: Hop) -> anyhow::Result<()> {
        let generation = self.get(index)?.generation;
        self.write(index, Hop { generation, ..hop })
    }

    /// Frees a slot: flows that point to it end.
    pub(super) fn release(&mut self, index: u32) -> anyhow::Result<()> {
        let kind = HopKind::Free as u8;
        let free = Hop { ifindex: 0, mtu: 0, generation: 0, kind, takes_frames: 0, addresses: [0; 3] };
        self.replace(index, free)?;
        self.free.insert(index);
        Ok(())
    }

    fn write(&mut self, index: u32, hop: Hop) -> anyhow::Result<()> {
        self.map.set(index, hop, 0).with_context(|| format!("can't write hop {index}"))
    }
}
