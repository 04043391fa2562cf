//! The host's own addresses. Written by the daemon.

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};
use netpath_common::abi::{Address, Ipv6Address};

#[btf_map]
static HOST_ADDRESSES: HashMap<Address, u32, 4096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Whether the address is one of the host's.
#[inline(always)]
pub(crate) fn contains(address: Address) -> bool {
    HOST_ADDRESSES.get_ptr(address).is_some()
}

#[btf_map]
static HOST_ADDR_IPV6: HashMap<Ipv6Address, u32, 4096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Whether the IPv6 address is one of the host's.
#[inline(always)]
pub(crate) fn contains_ipv6(address: Ipv6Address) -> bool {
    HOST_ADDR_IPV6.get_ptr(address).is_some()
}
