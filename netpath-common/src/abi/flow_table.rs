//! How the flow table lies in the kernel's arrays; what lies where is [`crate::flow_table`]'s.

use super::{Flow, FlowKey, abi};
use crate::flow_table::{PLACES, REGION};

abi! {
    /// What is to be known of a flow table as a whole. The daemon writes it before any program runs; from then on programs count
    /// entries there.
    pub struct FlowTable[24] {
        /// Key of [`crate::flow_table::hash`]. Programs have it as a constant.
        pub seed: u64,
        /// How many entries there are, or are being inserted.
        pub entries: u64,
        /// How many entries there may be: two for each flow. Programs have it as a constant.
        pub entries_max: u32,
        /// Zero.
        pub reserved: u32,
    }
}

abi! {
    /// A place for an entry: a line of the CPU's cache. What it holds counts only while its tag is set.
    pub struct FlowPlace[64] {
        /// The key.
        pub key: FlowKey,
        /// The value.
        pub flow: Flow,
    }
}

abi! {
    /// The places of a bucket.
    pub struct FlowBucket[512] {
        /// The places, in the order of the bucket's tags.
        pub places: [FlowPlace; PLACES as usize],
    }
}

abi! {
    /// The tags of a bucket: 16 bits for each place, the first place's lowest. 0: the place is free.
    pub struct FlowTags[16] {
        /// Four tags in each word.
        pub words: [u64; 2],
    }
}

abi! {
    /// The tags of a region's buckets.
    pub struct FlowRegion[2048] {
        /// The tags of each bucket.
        pub tags: [FlowTags; REGION as usize],
    }
}

impl FlowTags {
    /// The places that are taken, in their order.
    pub fn taken(&self) -> impl Iterator<Item = usize> {
        let words = self.words;
        (0..PLACES as usize).filter(move |place| words[place / 4] >> (16 * (place % 4)) & 0xffff != 0)
    }
}
