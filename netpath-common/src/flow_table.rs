//! Where an entry lies in the flow table: pure arithmetic on hashes and tags. The arrays themselves are the kernel's
//! ([`crate::abi::FlowTags`], [`crate::abi::FlowBucket`]).
//!
//! The table is made of buckets of eight places. A key has two buckets, by two parts of its hash, and lies in the one that was emptier
//! when it came. Beside the entries lie tags, 16 bits for each place: a part of the hash, or nothing. They are a thirty-second of the
//! table and stay in the CPU's caches, so a look-up touches memory only where the entry is: one line.
//!
//! No bucket has a tag twice. So there is at most one entry in each bucket to compare with, and no loop, which would cost the verifier
//! as many passes. A key whose tag is in both of its buckets finds no place: in a full table one of fifty million.
//!
//! Both buckets of a key are in one region, and who writes to a bucket holds its region's lock: so writers are in order without
//! compare-and-swap, and readers hold nothing.

use crate::abi::{FlowKey, FlowTags};

/// Places of a bucket.
pub const PLACES: u32 = 8;
/// Buckets of a region.
pub const REGION: u32 = 128;
/// The tag of a free place.
pub const FREE: u16 = 0;

/// How many regions a table needs for so many entries: seven places for four of them. With those, keys as good as always find one
/// of their sixteen free.
#[must_use]
pub const fn regions(entries_max: u32) -> u32 {
    let places = entries_max as u64 * 7 / 4;
    places.div_ceil((PLACES * REGION) as u64) as u32
}

/// A keyed hash of a tuple. Who doesn't know the key can't tell which tuples share a bucket.
#[inline(always)]
#[must_use]
pub const fn hash(seed: u64, key: &FlowKey) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xc2b2_ae3d_27d4_eb4f;
    let ([a, b], [c, d]) = (key.source_port, key.destination_port);
    let addresses = (u32::from_ne_bytes(key.source) as u64) << 32 | u32::from_ne_bytes(key.destination) as u64;
    let ports = (u32::from_ne_bytes([a, b, c, d]) as u64) << 8 | key.protocol as u64;
    let mut hash = mixed((addresses ^ seed).wrapping_mul(A));
    hash = mixed((hash ^ ports ^ seed.rotate_left(32)).wrapping_mul(B));
    mixed(hash.wrapping_mul(A))
}

#[inline(always)]
const fn mixed(hash: u64) -> u64 {
    hash ^ hash >> 32
}

/// The region of a hash.
#[inline(always)]
#[must_use]
pub const fn region(hash: u64, regions: u32) -> u32 {
    (((hash >> 32) * regions as u64) >> 32) as u32
}

/// The first (0) or the second (1) bucket of a hash; they may be the same.
#[inline(always)]
#[must_use]
pub const fn bucket(hash: u64, regions: u32, number: u32) -> u32 {
    region(hash, regions) * REGION + (hash >> (16 + 7 * number)) as u32 % REGION
}

/// The tag of a hash; never [`FREE`].
#[inline(always)]
#[must_use]
pub const fn tag(hash: u64) -> u16 {
    hash as u16 | 0x8000
}

/// The lowest of the four tags of a word that is this one.
#[inline(always)]
#[must_use]
pub const fn lane(word: u64, tag: u16) -> Option<u32> {
    const ONES: u64 = 0x0001_0001_0001_0001;
    const HIGHS: u64 = 0x8000_8000_8000_8000;
    const NUMBERS: u64 = 0x0000_0001_0002_0003;
    let differing = word ^ (ONES * tag as u64);
    // Above the lowest match others may seem to be ones, by the borrow; the lowest is right.
    let matches = differing.wrapping_sub(ONES) & !differing & HIGHS;
    if matches == 0 {
        return None;
    }
    let lowest = (matches & matches.wrapping_neg()) >> 15;
    Some((lowest.wrapping_mul(NUMBERS) >> 48) as u32 & 3)
}

/// The place of a bucket that has a tag; [`PLACES`] when none has. A number and no `Option`: the verifier follows one way on.
#[inline(always)]
#[must_use]
pub const fn place_of(tags: &FlowTags, tag: u16) -> u32 {
    match lane(tags.words[0], tag) {
        Some(lane) => lane,
        None => match lane(tags.words[1], tag) {
            Some(lane) => 4 + lane,
            None => PLACES,
        },
    }
}

/// How many places of a bucket are taken.
#[inline(always)]
#[must_use]
pub const fn load(tags: &FlowTags) -> u32 {
    taken(tags.words[0]) + taken(tags.words[1])
}

/// How many tags of a word aren't [`FREE`]: each of those has its highest bit set.
#[inline(always)]
const fn taken(word: u64) -> u32 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    ((word >> 15 & ONES).wrapping_mul(ONES) >> 48) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_lane_with_a_tag_is_found() {
        for tag in [FREE, 0x8000, 0x8001, 0xffff, 0x9abc] {
            for lane_of in 0..4 {
                let mut lanes = [0x8123_u16; 4];
                lanes[lane_of] = tag;
                let word = lanes.iter().rev().fold(0_u64, |word, lane| word << 16 | u64::from(*lane));
                assert_eq!(lane(word, tag), Some(lane_of as u32));
                assert_eq!(lane(word, 0x8777), None);
            }
        }
        assert_eq!(lane(0x8001_8000_8001_8000, 0x8001), Some(1));
        assert_eq!(lane(0, FREE), Some(0));
    }

    #[test]
    fn a_bucket_says_which_places_are_taken_and_how_many() {
        let tags = FlowTags { words: [0x8000_0000_ffff_0000, 0x0000_0000_0000_8abc] };
        assert_eq!(load(&tags), 3);
        assert_eq!(tags.taken().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!([0x8000, 0xffff, 0x8abc, 0x9999, FREE].map(|tag| place_of(&tags, tag)), [3, 1, 4, PLACES, 0]);
        assert_eq!(load(&FlowTags { words: [u64::MAX; 2] }), PLACES);
    }

    /// Flows as a client makes them that counts its ports up, through the addresses of a network.
    fn key(number: u32) -> FlowKey {
        let [a, b, c, d] = number.to_be_bytes();
        FlowKey {
            source: [10, 0, a, b],
            destination: [192, 0, 2, 2],
            source_port: [c, d],
            destination_port: [31, 144],
            protocol: 17,
            reserved: [0; 3],
        }
    }

    /// Fills a table as the programs do; gives how many keys found no place.
    fn fill(seed: u64, entries: u32) -> u32 {
        let regions = regions(entries);
        let mut table = std::vec![FlowTags { words: [0; 2] }; (regions * REGION) as usize];
        let mut failed = 0;
        for number in 0..entries {
            let hash = hash(seed, &key(number));
            let (first, second) = (bucket(hash, regions, 0) as usize, bucket(hash, regions, 1) as usize);
            let fits = |tags: &FlowTags| place_of(tags, tag(hash)) == PLACES && place_of(tags, FREE) < PLACES;
            let order = if load(&table[second]) < load(&table[first]) { [second, first] } else { [first, second] };
            let Some(bucket) = order.into_iter().find(|bucket| fits(&table[*bucket])) else {
                failed += 1;
                continue;
            };
            let place = place_of(&table[bucket], FREE);
            table[bucket].words[place as usize / 4] |= u64::from(tag(hash)) << (16 * (place % 4));
        }
        failed
    }

    #[test]
    fn a_table_takes_the_flows_that_it_is_made_for() {
        for entries in [1024, 4096, 65_536] {
            let failed: u32 = (1..=20_u64).map(|seed| fill(seed.wrapping_mul(0x9abc_def1_1234_5679), entries)).sum();
            assert_eq!(failed, 0, "of 20 x {entries}");
        }
        let failed = fill(42, 524_288);
        assert_eq!(failed, 0, "of 524,288");
    }
}
