//! What the host's sockets asked for. Written by the programs of sockets; the oldest make room for new ones.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, macros::btf_map};
use netpath_common::abi::{Asked, AskedKey};

#[btf_map]
static ASKED: LruHashMap<AskedKey, Asked, 65536> = LruHashMap::new();

/// Remembers what a socket asked for. A map that can't take it shows the program its container as the peer.
#[inline(always)]
pub(crate) fn remember(key: &AskedKey, asked: &Asked) {
    // A socket that sends again to the same place costs a look-up and no write.
    if find(key).is_some_and(|known| known == *asked) {
        return;
    }
    _ = ASKED.insert(key, asked, u64::from(BPF_ANY));
}

/// What a socket asked for.
#[inline(always)]
pub(crate) fn find(key: &AskedKey) -> Option<Asked> {
    // SAFETY: copied out at once; an entry that is reused at this moment shows a wrong peer's name once.
    unsafe { ASKED.get(key) }.copied()
}
