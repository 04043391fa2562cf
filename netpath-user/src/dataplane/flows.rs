//! The flow table as userspace reads it: whole, or a part at a time.
//!
//! The tags say which entries there are. They lie in this process's memory, because the kernel's batches take a hundred times as long
//! for them: a nearly empty table costs next to nothing to look through. Entries are copied in batches, of buckets that have any.
//!
//! Nobody waits for a reader, so a place may be emptied and filled again between the look at its tag and the copy. What is found
//! there counts only if it belongs there: if its key has this bucket and this tag.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, MapInfo};
use netpath_common::{
    abi::{Flow, FlowBucket, FlowKey, FlowPlace, FlowTable, FlowTags, names::map},
    flow_table::{self, REGION},
};

use super::{
    bpf::{self, Cursor, Mapping},
    configure::random,
    layout::Layout,
    pins::{self, PinsError},
};

/// Entries that a walk through the table reads at a time.
const SLICE: usize = 4096;
/// Buckets whose tags are looked at in a slice: a few milliseconds' work, and more than a table of the default size has.
const SLICE_BUCKETS: usize = 1 << 20;
/// Buckets that are copied although they have nothing, in order not to begin another batch: a call costs as much as some of them.
const GAP: u32 = 4;
/// Buckets with entries in a batch: a megabyte at most, with the gaps.
const BATCH: usize = 512;
/// Words of a bucket's tags.
const WORDS: usize = size_of::<FlowTags>() / size_of::<u64>();

/// The maps that the table consists of.
const MAPS: [&str; 4] = [map::FLOW_TABLE, map::FLOW_BUCKETS, map::FLOW_TAGS, map::FLOW_LOCKS];

/// What the programs know of a table as constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) seed: u64,
    pub(super) entries_max: u32,
    pub(super) regions: u32,
}

impl Shape {
    /// A table that doesn't exist yet.
    pub(super) fn new(entries_max: u32) -> Self {
        Self { seed: random(), entries_max, regions: flow_table::regions(entries_max) }
    }

    /// The pinned table. What isn't a whole one is removed: a start or a detach was broken off, and no program works on it.
    ///
    /// # Errors
    ///
    /// When pins can't be read or removed.
    pub(super) fn adopt(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let pins = MAPS.map(|name| layout.map(name));
        if pins.iter().all(|pin| pin.exists()) {
            let table = Table::open(layout)?;
            // Written last: with it everything is there.
            if table.shape.seed != 0 {
                return Ok(Some(table.shape));
            }
        }
        for pin in &pins {
            match fs::remove_file(pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("can't remove the pin {}", pin.display()));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// How many buckets there are.
    pub(super) const fn buckets(&self) -> u32 {
        self.regions * REGION
    }

    /// What the map says of an empty table.
    pub(super) const fn empty(&self) -> FlowTable {
        FlowTable { seed: self.seed, entries_max: self.entries_max, entries: 0, reserved: 0 }
    }

    /// Whether a key's place may be one with this tag in this bucket.
    const fn is_place_of(&self, key: &FlowKey, bucket: u32, tag: u16) -> bool {
        let hash = flow_table::hash(self.seed, key);
        flow_table::tag(hash) == tag
            && (flow_table::bucket(hash, self.regions, 0) == bucket
                || flow_table::bucket(hash, self.regions, 1) == bucket)
    }

    /// The entries of a bucket that were there when its tags were looked at, and still are.
    fn entries_of(&self, bucket: u32, tags: FlowTags, copied: &FlowBucket) -> impl Iterator<Item = (FlowKey, Flow)> {
        let of = move |place: usize| {
            let FlowPlace { key, flow } = copied.places[place];
            let tag = (tags.words[place / 4] >> (16 * (place % 4))) as u16;
            self.is_place_of(&key, bucket, tag).then_some((key, flow))
        };
        (0..copied.places.len()).filter(move |place| tags.taken().any(|taken| taken == *place)).filter_map(of)
    }
}

/// The pinned flow table.
pub(super) struct Table {
    shape: Shape,
    table: Array<MapData, FlowTable>,
    buckets: MapData,
    tags: MapData,
    locks: MapData,
    mapped: OnceLock<Mapping>,
}

/// Entries, and the bucket that the next ones begin at: `None` after the last.
type Slice = (Vec<(FlowKey, Flow)>, Option<u32>);

impl Table {
    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub(super) fn open(layout: &Layout) -> Result<Self, PinsError> {
        let table: Array<_, FlowTable> = pins::typed(layout, map::FLOW_TABLE, Map::Array)?;
        let tags = pins::open(layout, map::FLOW_TAGS)?;
        let FlowTable { seed, entries_max, .. } = read(&table)?;
        let regions = tags.info().map(|info: MapInfo| info.max_entries()).map_err(anyhow::Error::from)?;
        Ok(Self {
            shape: Shape { seed, entries_max, regions },
            table,
            buckets: pins::open(layout, map::FLOW_BUCKETS)?,
            tags,
            locks: pins::open(layout, map::FLOW_LOCKS)?,
            mapped: OnceLock::new(),
        })
    }

    /// How many entries the table holds.
    pub(super) const fn entries_max(&self) -> u32 {
        self.shape.entries_max
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub(super) fn entries(&self) -> anyhow::Result<u64> {
        Ok(read(&self.table)?.entries)
    }

    /// Bytes of kernel memory that the table takes, as the kernel counts them; `None` where it doesn't say.
    ///
    /// # Errors
    ///
    /// When the kernel's account can't be read.
    pub(super) fn memory(&self) -> anyhow::Result<Option<u64>> {
        [&self.buckets, &self.tags, &self.locks].into_iter().map(memory).sum()
    }

    /// Calls `each` with every entry.
    ///
    /// # Errors
    ///
    /// When the maps can't be read.
    pub(super) fn walk(&self, mut each: impl FnMut(FlowKey, Flow)) -> anyhow::Result<()> {
        let mut position = Some(0);
        while let Some(bucket) = position {
            let (entries, next) = self.slice(bucket, SLICE)?;
            entries.into_iter().for_each(|(key, flow)| each(key, flow));
            position = next;
        }
        Ok(())
    }

    /// The entries from a bucket on, `budget` or fewer.
    ///
    /// # Errors
    ///
    /// When the maps can't be read.
    pub(super) fn slice(&self, bucket: u32, budget: usize) -> anyhow::Result<Slice> {
        let (taken, next) = taken(self.mapped()?.words(), bucket, budget);
        let mut entries = Vec::new();
        for batch in batches(&taken) {
            let (Some((first, _)), Some((last, _))) = (batch.first(), batch.last()) else { continue };
            let cursor = first.checked_sub(1).map_or_else(Cursor::default, Cursor::behind);
            let (copied, _) = bpf::lookup::<u32, FlowBucket>(&self.buckets, cursor, (last - first) as usize + 1)
                .with_context(|| format!("can't read the map {}", map::FLOW_BUCKETS))?;
            for (bucket, tags) in batch {
                if let Some((_, places)) = copied.get((bucket - first) as usize) {
                    entries.extend(self.shape.entries_of(*bucket, *tags, places));
                }
            }
        }
        Ok((entries, next))
    }

    /// The tags in this process's memory. Not before they are read: most who open the table only ask how full it is.
    fn mapped(&self) -> anyhow::Result<&Mapping> {
        if let Some(mapping) = self.mapped.get() {
            return Ok(mapping);
        }
        let mapping = Mapping::of(&self.tags, self.shape.buckets() as usize * WORDS)
            .with_context(|| format!("can't map the map {}", map::FLOW_TAGS))?;
        Ok(self.mapped.get_or_init(|| mapping))
    }
}

fn read(table: &Array<MapData, FlowTable>) -> anyhow::Result<FlowTable> {
    table.get(&0, 0).with_context(|| format!("can't read the map {}", map::FLOW_TABLE))
}

fn memory(map: &MapData) -> anyhow::Result<Option<u64>> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.and_then(|bytes| bytes.trim().parse().ok()).filter(|bytes| *bytes > 0))
}

/// A bucket that has entries, and its tags.
type Taken = (u32, FlowTags);

/// The buckets from one on that have entries, as many as the budget allows, or one; and where the next ones begin.
fn taken(words: &[AtomicU64], from: u32, budget: usize) -> (Vec<Taken>, Option<u32>) {
    let mut taken = Vec::new();
    let mut entries = 0;
    let buckets = words.chunks_exact(WORDS).zip(0..).skip(from as usize);
    for (looked_at, (words, bucket)) in buckets.enumerate() {
        let tags = FlowTags { words: [words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)] };
        let load = flow_table::load(&tags) as usize;
        if looked_at == SLICE_BUCKETS || (load > 0 && entries > 0 && entries + load > budget) {
            return (taken, Some(bucket));
        }
        if load > 0 {
            entries += load;
            taken.push((bucket, tags));
        }
    }
    (taken, None)
}

/// Which buckets are copied together.
fn batches(taken: &[Taken]) -> impl Iterator<Item = &[Taken]> {
    taken.chunk_by(|(bucket, _), (next, _)| next - bucket <= GAP).flat_map(|run| run.chunks(BATCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable as _;

    fn words(tags: &[[u64; 2]]) -> Vec<AtomicU64> {
        tags.iter().flatten().copied().map(AtomicU64::new).collect()
    }

    fn buckets(taken: &[Taken]) -> Vec<u32> {
        taken.iter().map(|(bucket, _)| *bucket).collect()
    }

    #[test]
    fn a_slice_ends_where_the_budget_does() {
        const TWO: [u64; 2] = [0x8001, 0x8002_0000];
        let words = words(&[[0; 2], TWO, [0; 2], TWO, TWO]);
        let of = |from, budget| {
            let (taken, next) = taken(&words, from, budget);
            (buckets(&taken), next)
        };
        assert_eq!(of(0, 100), (vec![1, 3, 4], None));
        assert_eq!(of(0, 6), (vec![1, 3, 4], None));
        assert_eq!(of(0, 5), (vec![1, 3], Some(4)));
        assert_eq!(of(4, 5), (vec![4], None));
        assert_eq!(of(2, 2), (vec![3], Some(4)));
        assert_eq!(of(0, 1), (vec![1], Some(3)), "it goes on also with a budget that is too small");
        assert_eq!(of(5, 5), (vec![], None));
    }

    #[test]
    fn a_slice_of_an_empty_table_ends_as_well() {
        let words = words(&vec![[0; 2]; SLICE_BUCKETS + 1]);
        let last = SLICE_BUCKETS as u32;
        assert_eq!(taken(&words, 0, 10), (vec![], Some(last)));
        assert_eq!(taken(&words, 1, 10), (vec![], None));
        assert_eq!(taken(&words, last, 10), (vec![], None));
    }

    #[test]
    fn buckets_near_each_other_are_copied_together() {
        let taken = [0, 1, 2, 6, 11, 20].map(|bucket| (bucket, FlowTags { words: [0; 2] }));
        let batches: Vec<_> = batches(&taken).map(buckets).collect();
        assert_eq!(batches, [vec![0, 1, 2, 6], vec![11], vec![20]]);
    }

    #[test]
    fn a_batch_has_an_end() {
        let taken: Vec<_> = (0..BATCH as u32 + 1).map(|bucket| (bucket, FlowTags { words: [0; 2] })).collect();
        let lengths: Vec<_> = batches(&taken).map(<[_]>::len).collect();
        assert_eq!(lengths, [BATCH, 1]);
        assert_eq!(batches(&[]).count(), 0);
    }

    fn key(port: u16) -> FlowKey {
        let source_port = port.to_be_bytes();
        FlowKey { source: [10, 0, 0, 1], destination: [192, 0, 2, 2], source_port, protocol: 17, ..FlowKey::zeroed() }
    }

    #[test]
    fn an_entry_counts_where_its_key_belongs_and_while_its_tag_is_set() {
        let shape = Shape { seed: 0x1234_5678_9abc_def1, entries_max: 2048, regions: flow_table::regions(2048) };
        for number in [0, 1] {
            let hash = flow_table::hash(shape.seed, &key(7));
            let (bucket, tag) = (flow_table::bucket(hash, shape.regions, number), flow_table::tag(hash));
            let flow = Flow { hop: 42, ..Flow::zeroed() };
            let mut copied = FlowBucket::zeroed();
            copied.places[5] = FlowPlace { key: key(7), flow };
            let at = |bucket, tag: u16| {
                let tags = FlowTags { words: [0, u64::from(tag) << 16] };
                shape.entries_of(bucket, tags, &copied).collect::<Vec<_>>()
            };
            assert_eq!(at(bucket, tag), [(key(7), flow)]);
            assert_eq!(at(bucket, flow_table::FREE), []);
            assert_eq!(at(bucket, tag ^ 1), [], "another entry was there when its tag was looked at");
            assert_eq!(at((bucket + 1) % REGION, tag), []);
            let other = Shape { seed: 1, ..shape };
            let tags = FlowTags { words: [0, u64::from(tag) << 16] };
            assert_eq!(other.entries_of(bucket, tags, &copied).count(), 0);
            copied.places[5].key.destination = [192, 0, 2, 3];
            assert_eq!(shape.entries_of(bucket, tags, &copied).count(), 0, "half of it is another key");
        }
    }
}
