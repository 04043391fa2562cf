//! Deleting pairs, and cones, inside the kernel: the collector's step, which looks at them afresh, and an operator's removal, which
//! doesn't.
//!
//! Userspace scans the flow table and hands candidates over as packet data of a test run (`BPF_PROG_TEST_RUN`): an
//! Ethernet header's length of nothing, then keys. Between a scan and a delete from userspace a flow could come back to
//! life; here the check and the delete are nanoseconds apart. A removal goes the same way, so that it deletes the pair that
//! holds the key now, not the one that was listed.

use aya_ebpf::{bindings::TC_ACT_OK, programs::TcContext};
use netpath_common::{
    abi::{PathCount, RUN_KEYS_MAX},
    conntrack,
    nat::cone,
    tables::Tables,
    wire::ethernet,
};

use crate::{kernel::clock, maps::KernelTables};

/// Deletes the expired among the keys and gives how many there were.
#[inline(always)]
pub(crate) fn collect(context: &TcContext) -> i32 {
    each(context, PathCount::FlowsCollected, conntrack::collect)
}

/// Removes the flows with these keys and gives how many there were.
#[inline(always)]
pub(crate) fn remove(context: &TcContext) -> i32 {
    each(context, PathCount::FlowsRemoved, conntrack::remove)
}

/// Removes the cones and claims that have ended among the keys and gives how many there were.
#[inline(always)]
pub(crate) fn collect_cones(context: &TcContext) -> i32 {
    each(context, PathCount::ConesCollected, cone::collect)
}

/// Calls `delete` with every key, and counts those that it deleted.
#[inline(always)]
fn each<K: Copy>(context: &TcContext, count: PathCount, delete: impl Fn(&mut KernelTables, &K, u64) -> bool) -> i32 {
    let mut tables = KernelTables::new(context.skb.skb.cast());
    let now_ns = clock::now_ns();
    let mut deleted = TC_ACT_OK;
    let mut index = 0;
    while index < RUN_KEYS_MAX {
        let Ok(key) = context.load::<K>(ethernet::LEN + index * size_of::<K>()) else { break };
        if delete(&mut tables, &key, now_ns) {
            tables.count(count, 0);
            deleted += 1;
        }
        index += 1;
    }
    deleted
}
