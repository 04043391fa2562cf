//! Fragments that are held, and this CPU's place for one to put aside. Not pinned: what is held when the programs are
//! replaced is lost, as on any network.

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{LruHashMap, PerCpuArray},
    macros::btf_map,
};
use netpath_common::abi::{HeldFragment, HeldKey};

#[btf_map]
static HELD: LruHashMap<HeldKey, HeldFragment, 512> = LruHashMap::new();

#[btf_map]
static ASIDE: PerCpuArray<HeldFragment, 1> = PerCpuArray::new();

/// This CPU's place. Always there: the verifier only doesn't know.
#[inline(always)]
pub(crate) fn aside() -> Option<&'static mut HeldFragment> {
    let place = ASIDE.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's own; it is used by the programs at ingress only, which run in the network softirq,
    // never one inside another, and once in a run of one.
    Some(unsafe { &mut *place })
}

/// A held fragment.
#[inline(always)]
pub(crate) fn find(key: &HeldKey) -> Option<&'static HeldFragment> {
    // SAFETY: one that is pushed out and reused at this moment spoils a fragment that was lost anyway: the receiver's
    // checksum refuses it.
    unsafe { HELD.get(key) }
}

/// Holds a fragment; the oldest of all makes room. Gives whether it could.
#[inline(always)]
pub(crate) fn put(key: &HeldKey, fragment: &HeldFragment) -> bool {
    HELD.insert(key, fragment, u64::from(BPF_ANY)).is_ok()
}

/// Lets one go.
#[inline(always)]
pub(crate) fn remove(key: &HeldKey) {
    _ = HELD.remove(key);
}
