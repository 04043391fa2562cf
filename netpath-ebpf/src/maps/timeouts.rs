//! How long flows may be silent, by state. Written by the daemon; 0 stands for the state's own default.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use netpath_common::conntrack::PairState;

#[btf_map]
static TIMEOUTS: Array<u32, { PairState::SLOTS as usize }> = Array::new();

/// The timeout of a state in seconds.
#[inline(always)]
pub(crate) fn get(state: PairState) -> u32 {
    match TIMEOUTS.get(state as u32) {
        Some(&seconds) if seconds != 0 => seconds,
        _ => state.default_timeout_s(),
    }
}
