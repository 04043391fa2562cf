//! The configuration: one entry, written by the daemon as a whole.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use netpath_common::abi::Config;

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

/// What stands until the daemon has written: nothing is opened, everything else goes to the kernel.
const UNSET: Config = Config {
    mode: 0,
    opens_flows: 0,
    port_first: 0,
    port_last: 0,
    inbound_refresh: 1,
    timeout_profile: 0,
    cone_timeout_s: 0,
    port_seed: 0,
};

/// The configuration.
#[inline(always)]
pub(crate) fn get() -> Config {
    CONFIG.get(0).copied().unwrap_or(UNSET)
}
