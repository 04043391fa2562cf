//! Who has which port of the host, and the way to it from inside. Written by the packet path, swept by the collector.
//!
//! Allocated entry by entry, since most hosts have no cones. An entry that is removed may be reused at once; who reads it
//! at this moment sees another owner of the port, which is what has just become true.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::HashMap,
    macros::btf_map,
};
use netpath_common::{
    abi::{Cone, ConeKey, ConeOwner, Port},
    tables::InsertError,
};

#[btf_map]
static CONES: HashMap<ConeKey, Cone, 131072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static CONE_PORTS: HashMap<ConeOwner, Port, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// `-EEXIST` (include/uapi/asm-generic/errno-base.h).
const EXISTS: i32 = -17;

/// Who has a port.
#[inline(always)]
pub(crate) fn find(key: &ConeKey) -> Option<Cone> {
    // SAFETY: copied out at once; see above for an entry that is reused.
    unsafe { CONES.get(key) }.copied()
}

/// Writes when a port was last refreshed.
#[inline(always)]
pub(crate) fn touch(key: &ConeKey, now_ns: u64) {
    if let Some(cone) = CONES.get_ptr_mut(key) {
        // SAFETY: the pointer came from a look-up in this run; the field is written whole.
        unsafe { (*cone).last_seen_ns = now_ns };
    }
}

/// Gives a port away that nobody has.
#[inline(always)]
pub(crate) fn insert(key: &ConeKey, cone: &Cone) -> Result<(), InsertError> {
    match CONES.insert(key, cone, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(EXISTS) => Err(InsertError::Exists),
        Err(_) => Err(InsertError::Full),
    }
}

/// Takes a port back. That nobody has it is no error.
#[inline(always)]
pub(crate) fn remove(key: &ConeKey) {
    _ = CONES.remove(key);
}

/// The port of a container's cone.
#[inline(always)]
pub(crate) fn port(owner: &ConeOwner) -> Option<Port> {
    // SAFETY: copied out at once; the port is looked up in the other map before it counts.
    unsafe { CONE_PORTS.get(owner) }.copied()
}

/// Remembers the port of a container's cone. A map that can't take it costs the next flow a search, which finds the same
/// port as long as it is the container's own.
#[inline(always)]
pub(crate) fn set_port(owner: &ConeOwner, port: Port) {
    _ = CONE_PORTS.insert(owner, port, u64::from(BPF_ANY));
}

/// Forgets the port of a container's cone. That there is none is no error.
#[inline(always)]
pub(crate) fn remove_port(owner: &ConeOwner) {
    _ = CONE_PORTS.remove(owner);
}
