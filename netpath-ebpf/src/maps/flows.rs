//! The flow table. Written by the packet path, read and swept by the daemon.
//!
//! A table of netpath's own on top of arrays; [`netpath_common::flow_table`] says what lies where. The kernel's hash map has its
//! entries anywhere in memory, three and more lines of cache apart for one look-up, which is most of what a packet costs on a host
//! with many flows. And not an LRU map: that evicts live flows, and one entry of a pair without the other.
//!
//! Who writes holds the region's lock; who reads holds nothing. An entry is there when its tag is, which is set last and taken away
//! first. What searches and writes are global functions (`no_mangle`, pointers that they test): the verifier goes through each of
//! them once, and not again from each place that calls it. No helper may be called under a lock, so all parts are looked up before.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, bpf_spin_lock as SpinLock},
    btf_maps::Array,
    helpers::generated::{bpf_map_lookup_elem, bpf_spin_lock, bpf_spin_unlock},
    macros::btf_map,
};
use netpath_common::{
    abi::{Flow, FlowBucket, FlowKey, FlowPlace, FlowRegion, FlowTable, FlowTags},
    flow_table::{FREE, PLACES, REGION, bucket, hash, load, place_of, region, tag},
    tables::InsertError,
};

use crate::kernel::atomic;

/// The table as a whole: how many entries it has.
#[btf_map]
static FLOW_TABLE: Array<FlowTable, 1> = Array::new();

/// Buckets, by their number. That it may be mapped into memory lets the kernel begin it where a page begins: each place is a line of
/// cache then.
#[btf_map]
static FLOW_BUCKETS: Array<FlowBucket, { REGION as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The tags of regions. The daemon maps it into its memory.
#[btf_map]
static FLOW_TAGS: Array<FlowRegion, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The locks of regions, apart from their tags: what has a lock can't be mapped.
#[btf_map]
static FLOW_LOCKS: Array<Lock, 1> = Array::new();

/// A region's lock, in a line of cache of its own.
#[repr(C)]
struct Lock {
    lock: SpinLock,
    reserved: [u32; 15],
}

/// See [`FlowTable::seed`].
#[unsafe(no_mangle)]
static FLOW_SEED: Global<u64> = Global::new(0);
/// See [`FlowTable::entries_max`].
#[unsafe(no_mangle)]
static FLOW_ENTRIES_MAX: Global<u32> = Global::new(0);
/// How many regions there are.
#[unsafe(no_mangle)]
static FLOW_REGIONS: Global<u32> = Global::new(0);

/// A handle to an entry, valid while the program runs.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut Flow);

impl Entry {
    /// Of what a global function was given, which the verifier takes for a pointer that may be null.
    #[inline(always)]
    pub(crate) fn of(flow: *mut Flow) -> Option<Self> {
        (!flow.is_null()).then_some(Self(flow))
    }

    /// For a global function.
    #[inline(always)]
    pub(crate) const fn pointer(self) -> *mut Flow {
        self.0
    }

    #[inline(always)]
    pub(crate) fn load(self) -> Flow {
        // SAFETY: the pointer came from a look-up in this run. Only `touch` changes an entry, and a torn read of what it
        // writes costs at most one more write of it. An entry that is removed and written anew at this moment belongs to
        // another flow: that can misdirect one packet of a flow that has just ended, as in the kernel's preallocated maps.
        unsafe { *self.0 }
    }

    #[inline(always)]
    pub(crate) fn touch(self, now_ns: u64, seen: u8) {
        // SAFETY: as above; both fields are written whole.
        unsafe {
            (*self.0).last_seen_ns = now_ns;
            (*self.0).seen = seen;
        }
    }

    #[inline(always)]
    pub(crate) fn lead(self, next_hop: u8) {
        // SAFETY: as above; the field is written whole.
        unsafe { (*self.0).next_hop = next_hop };
    }

    #[inline(always)]
    pub(crate) fn follow(self, sequence_end: u32, acknowledged: u32) {
        // SAFETY: as above; both fields are written whole.
        unsafe {
            (*self.0).sequence_end = sequence_end;
            (*self.0).acknowledged = acknowledged;
        }
    }
}

/// Looks a flow up.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<Entry> {
    let found = np_flow_find(key).checked_sub(1)?;
    let place = place_at(bucket_at(&(found / PLACES))?, found);
    // SAFETY: the place is one of the table's.
    Some(Entry(unsafe { &raw mut (*place).flow }))
}

/// Has the place of a key that is about to be inserted fetched from memory. Two that are fetched together take the time of one.
#[inline(always)]
pub(crate) fn foresee(key: &FlowKey) {
    _ = np_flow_foresee(key);
}

/// Inserts a flow that isn't there.
#[inline(always)]
pub(crate) fn insert(key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
    match np_flow_insert(key, flow) {
        INSERTED => Ok(()),
        EXISTS => Err(InsertError::Exists),
        _ => Err(InsertError::Full),
    }
}

/// Removes a flow. That it is gone already is no error.
#[inline(always)]
pub(crate) fn remove(key: &FlowKey) {
    _ = np_flow_remove(key);
}

/// Gives the number of a key's place in the table plus one, 0 when it isn't there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn np_flow_find(key: *const FlowKey) -> u32 {
    // SAFETY: a reference of `find`'s caller.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let hash = hash(FLOW_SEED.load(), key);
    let mut at = region(hash, FLOW_REGIONS.load());
    let Some(region) = region_at(&at) else { return 0 };
    let (first, second) = (place_in(region, hash, 0), place_in(region, hash, 1));
    if first < PLACES {
        at = bucket(hash, FLOW_REGIONS.load(), 0);
        if bucket_at(&at).is_some_and(|bucket| holds(bucket, first, key)) {
            return at * PLACES + first + 1;
        }
    }
    if second < PLACES {
        at = bucket(hash, FLOW_REGIONS.load(), 1);
        if bucket_at(&at).is_some_and(|bucket| holds(bucket, second, key)) {
            return at * PLACES + second + 1;
        }
    }
    0
}

/// Reads from where a key would be inserted. Nobody waits for what is read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn np_flow_foresee(key: *const FlowKey) -> u32 {
    // SAFETY: a reference of `foresee`'s caller.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let hash = hash(FLOW_SEED.load(), key);
    let mut at = region(hash, FLOW_REGIONS.load());
    let Some(region) = region_at(&at) else { return 0 };
    let number = emptier(region, hash);
    // SAFETY: tags of the table, read word by word.
    let free = place_of(unsafe { &*tags_of(region, hash, number) }, FREE);
    at = bucket(hash, FLOW_REGIONS.load(), number);
    // SAFETY: a place of the table; what it holds doesn't matter.
    bucket_at(&at).map_or(0, |bucket| unsafe { (&raw const (*place_at(bucket, free)).flow.hop).read_volatile() })
}

/// What [`np_flow_insert`] gives.
const INSERTED: u32 = 0;
const EXISTS: u32 = 1;
const FULL: u32 = 2;

/// Inserts an entry unless its key is there, or the table has as many as it may.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn np_flow_insert(key: *const FlowKey, flow: *const Flow) -> u32 {
    // SAFETY: references of `insert`'s caller.
    let (Some(key), Some(flow)) = (unsafe { (key.as_ref(), flow.as_ref()) }) else { return FULL };
    // Counted before it is there, for the table never to have more than it may.
    if add_entries(1) >= u64::from(FLOW_ENTRIES_MAX.load()) {
        add_entries(-1);
        return FULL;
    }
    let result = try_insert(key, flow);
    if result != INSERTED {
        add_entries(-1);
    }
    result
}

#[inline(always)]
fn try_insert(key: &FlowKey, flow: &Flow) -> u32 {
    let hash = hash(FLOW_SEED.load(), key);
    let mut at = bucket(hash, FLOW_REGIONS.load(), 0);
    let Some(first) = bucket_at(&at) else { return FULL };
    at = bucket(hash, FLOW_REGIONS.load(), 1);
    let Some(second) = bucket_at(&at) else { return FULL };
    at = region(hash, FLOW_REGIONS.load());
    let (Some(region), Some(lock)) = (region_at(&at), lock_at(&at)) else { return FULL };
    // SAFETY: the lock is one of the table's, and is let go of before the function ends.
    unsafe { bpf_spin_lock(lock) };
    let result = insert_into(region, [first, second], hash, key, flow);
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(lock) };
    result
}

/// Writes an entry into the emptier of its buckets. The region's lock is held.
#[inline(always)]
fn insert_into(region: *mut FlowRegion, buckets: [*mut FlowBucket; 2], hash: u64, key: &FlowKey, flow: &Flow) -> u32 {
    let (first, second) = (place_in(region, hash, 0), place_in(region, hash, 1));
    if (first < PLACES && holds(buckets[0], first, key)) || (second < PLACES && holds(buckets[1], second, key)) {
        return EXISTS;
    }
    // No bucket has a tag twice.
    let takes_second = first < PLACES || (second >= PLACES && emptier(region, hash) == 1);
    let (tags, bucket, taken) = if takes_second {
        (tags_of(region, hash, 1), buckets[1], second)
    } else {
        (tags_of(region, hash, 0), buckets[0], first)
    };
    // SAFETY: tags of the table, which only who holds the lock writes.
    let free = place_of(unsafe { &*tags }, FREE);
    if taken < PLACES || free >= PLACES {
        return FULL;
    }
    // SAFETY: a place of the table without a tag: nobody reads it, but for who saw the tag of an entry that has just been removed, see
    // [`Entry::load`].
    unsafe {
        let place = place_at(bucket, free);
        (*place).key = *key;
        (*place).flow = *flow;
    }
    flip(tags, free, tag(hash));
    INSERTED
}

/// Removes an entry; gives how many that were.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn np_flow_remove(key: *const FlowKey) -> u32 {
    // SAFETY: a reference of `remove`'s caller.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let hash = hash(FLOW_SEED.load(), key);
    let at = region(hash, FLOW_REGIONS.load());
    let (Some(region), Some(lock)) = (region_at(&at), lock_at(&at)) else { return 0 };
    let is_removed = remove_from(region, lock, hash, 0, key) || remove_from(region, lock, hash, 1, key);
    if is_removed {
        add_entries(-1);
    }
    u32::from(is_removed)
}

#[inline(always)]
fn remove_from(region: *mut FlowRegion, lock: *mut SpinLock, hash: u64, number: u32, key: &FlowKey) -> bool {
    let at = bucket(hash, FLOW_REGIONS.load(), number);
    let Some(bucket) = bucket_at(&at) else { return false };
    // SAFETY: the lock is one of the table's, and is let go of before the function ends.
    unsafe { bpf_spin_lock(lock) };
    let place = place_in(region, hash, number);
    let is_there = place < PLACES && holds(bucket, place, key);
    if is_there {
        flip(tags_of(region, hash, number), place, tag(hash));
    }
    // SAFETY: as above.
    unsafe { bpf_spin_unlock(lock) };
    is_there
}

/// Which of a key's buckets has fewer entries; the first one if none.
#[inline(always)]
fn emptier(region: *mut FlowRegion, hash: u64) -> u32 {
    // SAFETY: tags of the table, read word by word.
    let [first, second] = unsafe { [load(&*tags_of(region, hash, 0)), load(&*tags_of(region, hash, 1))] };
    u32::from(second < first)
}

/// Counts entries; gives how many there were.
#[inline(always)]
fn add_entries(count: i64) -> u64 {
    match FLOW_TABLE.get_ptr_mut(0) {
        // SAFETY: the number lies in the map's value.
        Some(table) => unsafe { atomic::fetch_add(&raw mut (*table).entries, count.cast_unsigned()) },
        None => u64::MAX,
    }
}

/// Sets the tag of a place that is free, or takes it away from one that has it.
#[inline(always)]
fn flip(tags: *mut FlowTags, place: u32, tag: u16) {
    // SAFETY: one of the two words of the table's tags. What was written to the place is seen by who sees the tag.
    unsafe {
        let word = (&raw mut (*tags).words).cast::<u64>().add((place >> 2 & 1) as usize);
        atomic::fetch_xor(word, u64::from(tag) << (16 * (place & 3)));
    }
}

/// The place in a key's first (0) or second (1) bucket that has its tag.
#[inline(always)]
fn place_in(region: *mut FlowRegion, hash: u64, number: u32) -> u32 {
    // SAFETY: tags of the table, read word by word.
    place_of(unsafe { &*tags_of(region, hash, number) }, tag(hash))
}

/// The tags of a key's first (0) or second (1) bucket.
#[inline(always)]
fn tags_of(region: *mut FlowRegion, hash: u64, number: u32) -> *mut FlowTags {
    let at = bucket(hash, 1, number) % REGION;
    // SAFETY: the index is one of the region's.
    unsafe { (&raw mut (*region).tags).cast::<FlowTags>().add(at as usize) }
}

#[inline(always)]
fn place_at(bucket: *mut FlowBucket, number: u32) -> *mut FlowPlace {
    // SAFETY: the index is one of the bucket's.
    unsafe { (&raw mut (*bucket).places).cast::<FlowPlace>().add((number % PLACES) as usize) }
}

#[inline(always)]
fn holds(bucket: *mut FlowBucket, place: u32, key: &FlowKey) -> bool {
    // SAFETY: a place of the table.
    unsafe { (*place_at(bucket, place)).key.is(key) }
}

#[inline(always)]
fn region_at(at: &u32) -> Option<*mut FlowRegion> {
    value_at(&FLOW_TAGS, at)
}

#[inline(always)]
fn bucket_at(at: &u32) -> Option<*mut FlowBucket> {
    value_at(&FLOW_BUCKETS, at)
}

#[inline(always)]
fn lock_at(at: &u32) -> Option<*mut SpinLock> {
    // SAFETY: the pointer leads to the map's value.
    value_at(&FLOW_LOCKS, at).map(|lock| unsafe { &raw mut (*lock).lock })
}

/// The value at an index. The index lies where the caller has it, to serve for several look-ups: each one's own would cost stack.
#[inline(always)]
fn value_at<T, const MAX: usize, const FLAGS: usize>(map: &'static Array<T, MAX, FLAGS>, at: &u32) -> Option<*mut T> {
    // SAFETY: the map is an array, whose keys are such numbers.
    let value = unsafe { bpf_map_lookup_elem((&raw const *map).cast_mut().cast(), (&raw const *at).cast()) };
    (!value.is_null()).then_some(value.cast())
}
