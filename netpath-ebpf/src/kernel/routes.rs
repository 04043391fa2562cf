//! The kernel's routing decision for a forwarded packet.

use core::{ffi::c_void, mem::zeroed};

use aya_ebpf::{
    bindings::{BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup},
    helpers::generated::bpf_fib_lookup as fib_lookup,
};
use netpath_common::tables::{Neighbour, Origin, Route, RouteQuery};

/// Address family IPv4 (include/linux/socket.h).
const AF_INET: u8 = 2;
/// Return codes of the helper (include/uapi/linux/bpf.h): the way is known.
const SUCCESS: i64 = 0;
/// The way is known; only the neighbour's Ethernet address isn't yet.
const NO_NEIGHBOUR: i64 = 7;
/// The way is known; only this packet is too big for its interface, which is for the packet path to see.
const FRAGMENTATION_NEEDED: i64 = 8;

/// Asks the routes. `context` is the program's own.
#[inline(always)]
pub(crate) fn lookup(context: *mut c_void, query: &RouteQuery) -> Route {
    // SAFETY: the structure is plain old data, for which zero is valid.
    let mut parameters: bpf_fib_lookup = unsafe { zeroed() };
    parameters.family = AF_INET;
    parameters.ifindex = query.ifindex;
    parameters.l4_protocol = query.protocol;
    parameters.sport = u16::from_ne_bytes(query.ports[0]);
    parameters.dport = u16::from_ne_bytes(query.ports[1]);
    parameters.__bindgen_anon_2.tos = query.tos;
    parameters.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(query.source);
    parameters.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(query.destination);
    let flags = match query.origin {
        Origin::Container => 0,
        Origin::Host => BPF_FIB_LOOKUP_OUTPUT,
    };
    // SAFETY: context and structure are valid for the call, and the length is the structure's.
    let result = unsafe { fib_lookup(context, &raw mut parameters, size_of::<bpf_fib_lookup>() as i32, flags) };
    if ![SUCCESS, NO_NEIGHBOUR, FRAGMENTATION_NEEDED].contains(&result) {
        return Route::Kernel;
    }
    // SAFETY: the helper has written the next hop's IPv4 address here, as the query's family asked.
    let next_hop = unsafe { parameters.__bindgen_anon_4.ipv4_dst };
    let neighbour = if result == NO_NEIGHBOUR { Neighbour::Unknown } else { Neighbour::Known };
    Route::Via { ifindex: parameters.ifindex, next_hop: next_hop.to_ne_bytes(), neighbour }
}
