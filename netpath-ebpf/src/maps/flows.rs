//! The flow table. Written by the packet path, read and swept by the daemon.
//!
//! Preallocated and not LRU: an LRU map evicts live flows and one entry of a pair without the other.

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, macros::btf_map};
use netpath_common::{
    abi::{Flow, FlowKey},
    tables::InsertError,
};

#[btf_map]
static FLOWS: HashMap<FlowKey, Flow, 1024> = HashMap::new();

/// `-EEXIST` (include/uapi/asm-generic/errno-base.h).
const EXISTS: i32 = -17;

/// A handle to an entry, valid while the program runs: entries are freed after a grace period.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut Flow);

impl Entry {
    #[inline(always)]
    pub(crate) fn load(self) -> Flow {
        // SAFETY: the pointer came from a look-up in this run. Only `touch` changes an entry, and a torn read of what it
        // writes costs at most one more write of it. An entry that is deleted and reused at this moment belongs to
        // another flow: that can misdirect one packet of a flow that has just ended, as in every preallocated map.
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
    FLOWS.get_ptr_mut(key).map(Entry)
}

/// Inserts a flow that isn't there.
#[inline(always)]
pub(crate) fn insert(key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
    match FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(EXISTS) => Err(InsertError::Exists),
        Err(_) => Err(InsertError::Full),
    }
}

/// Removes a flow. That it is gone already is no error.
#[inline(always)]
pub(crate) fn remove(key: &FlowKey) {
    _ = FLOWS.remove(key);
}
