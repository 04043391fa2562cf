//! Ports that no flow is translated to, a bit each. Written by the daemon.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use netpath_common::abi::RESERVED_PORT_WORDS;

#[btf_map]
static RESERVED_PORTS: Array<u64, RESERVED_PORT_WORDS> = Array::new();

/// Whether a port (host order) is reserved.
#[inline(always)]
pub(crate) fn contains(port: u16) -> bool {
    match RESERVED_PORTS.get(u32::from(port / 64)) {
        Some(word) => word >> (port % 64) & 1 != 0,
        None => false,
    }
}
