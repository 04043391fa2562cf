//! Whether a socket of the host would take a packet.

use core::{ffi::c_void, mem::zeroed};

use aya_ebpf::{
    bindings::{bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1},
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use netpath_common::{abi::FlowKey, wire::protocol};

/// The network namespace of the program's interface (BPF_F_CURRENT_NETNS).
const CURRENT_NETNS: u64 = u64::MAX;

/// Looks for a listener on the tuple's destination, or a connection with the tuple. `context` is the program's own.
#[inline(always)]
pub(crate) fn takes(context: *mut c_void, key: &FlowKey) -> bool {
    // SAFETY: the structure is plain old data, for which zero is valid.
    let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
    tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
        saddr: u32::from_ne_bytes(key.source),
        daddr: u32::from_ne_bytes(key.destination),
        sport: u16::from_ne_bytes(key.source_port),
        dport: u16::from_ne_bytes(key.destination_port),
    };
    let length = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    // SAFETY: context and tuple are valid for the call; the length says that the tuple is IPv4. A socket that is found
    // is released at once and never looked into.
    unsafe {
        if key.protocol == protocol::TCP {
            let socket = bpf_skc_lookup_tcp(context, &raw mut tuple, length, CURRENT_NETNS, 0);
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        } else {
            let socket = bpf_sk_lookup_udp(context, &raw mut tuple, length, CURRENT_NETNS, 0);
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        }
    }
    true
}
