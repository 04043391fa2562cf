//! Published ports. Written by the daemon.

use core::ptr;

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use netpath_common::abi::{PublishedBlock, PublishedKey};

/// What the trie compares of a [`PublishedKey`]: all that comes behind the length.
type Bytes = [u8; PublishedKey::BITS as usize / 8];

#[btf_map]
static PUBLISHED: LpmTrie<Bytes, PublishedBlock, 1024> = LpmTrie::new();

const _: () = assert!(size_of::<Key<Bytes>>() == size_of::<PublishedKey>(), "the key is the kernel's");

/// The smallest block that a published port is in.
#[inline(always)]
pub(crate) fn find(key: &PublishedKey) -> Option<PublishedBlock> {
    // SAFETY: both are the length and then eight bytes, without padding; the packed one asks for no alignment.
    let key = unsafe { &*ptr::from_ref(key).cast::<Key<Bytes>>() };
    // Copied out at once; eight bytes, replaced by the daemon as a new element.
    PUBLISHED.get(key).copied()
}
