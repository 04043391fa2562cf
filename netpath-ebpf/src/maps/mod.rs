//! The maps, one file each: a private static and a few typed functions. The only unsafe code that touches maps.
//!
//! [`KernelTables`] puts them together for the packet path. What userspace may resize (`FLOW_BUCKETS`, `ENDPOINTS`, ...) has its
//! smallest useful size here; `docs/maps.md` has the sizes that the daemon gives them.

pub(crate) mod admitted;
pub(crate) mod answers;
pub(crate) mod asked;
pub(crate) mod closed_ports;
pub(crate) mod cones;
pub(crate) mod config;
pub(crate) mod counters;
pub(crate) mod endpoints;
pub(crate) mod events;
pub(crate) mod flows;
pub(crate) mod fragments;
pub(crate) mod handover;
pub(crate) mod held;
pub(crate) mod hops;
pub(crate) mod host_addresses;
pub(crate) mod policy;
pub(crate) mod published;
pub(crate) mod recent;
pub(crate) mod reserved_ports;
pub(crate) mod scratch;
pub(crate) mod timeouts;
pub(crate) mod uplinks;

use core::{ffi::c_void, ptr};

use netpath_common::{
    abi::{
        Address, Admitted, AdmittedKey, ClosedPorts, Cone, ConeKey, ConeOwner, Config, Endpoint, Event, Flow, FlowKey,
        FragmentKey, FragmentPorts, Hop, Ipv6Address, PathCount, Policy, Port, PublishedBlock, PublishedKey, Rate,
        Refusal, Sender, Uplink,
    },
    conntrack::{self, PairState},
    tables::{InsertError, Route, RouteQuery, Tables},
};

use crate::kernel::{routes, sockets};

/// The packet path's tables in the kernel. Holds the program's context, which some helpers ask for.
pub(crate) struct KernelTables {
    context: *mut c_void,
}

impl KernelTables {
    #[inline(always)]
    pub(crate) const fn new(context: *mut c_void) -> Self {
        Self { context }
    }
}

impl Tables for KernelTables {
    type Entry = flows::Entry;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<flows::Entry> {
        flows::find(key)
    }

    #[inline(always)]
    fn load(&self, entry: flows::Entry) -> Flow {
        entry.load()
    }

    #[inline(always)]
    fn touch(&mut self, entry: flows::Entry, now_ns: u64, seen: u8) {
        entry.touch(now_ns, seen);
    }

    #[inline(always)]
    fn lead(&mut self, entry: flows::Entry, next_hop: u8) {
        entry.lead(next_hop);
    }

    #[inline(always)]
    fn follow(&mut self, entry: flows::Entry, sequence_end: u32, acknowledged: u32) {
        entry.follow(sequence_end, acknowledged);
    }

    #[inline(always)]
    fn standing(&self, entry: flows::Entry, protocol: u8, now_ns: u64) -> u32 {
        np_flow_standing(entry.pointer(), u32::from(protocol), now_ns)
    }

    #[inline(always)]
    fn timeout_s(&self, state: PairState) -> u32 {
        timeouts::get(state)
    }

    #[inline(always)]
    fn is_reserved_port(&self, port: u16) -> bool {
        reserved_ports::contains(port)
    }

    #[inline(always)]
    fn foresee_flow(&self, key: &FlowKey) {
        flows::foresee(key);
    }

    #[inline(always)]
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        flows::insert(key, flow)
    }

    #[inline(always)]
    fn remember_recent(&mut self, hash: u32, key: &FlowKey) {
        recent::remember(hash, key);
    }

    #[inline(always)]
    fn recent(&self, hash: u32) -> Option<FlowKey> {
        recent::get(hash)
    }

    #[inline(always)]
    fn may_answer(&mut self, now_ns: u64) -> bool {
        answers::may_answer(now_ns)
    }

    #[inline(always)]
    fn remove_flow(&mut self, key: &FlowKey) {
        flows::remove(key);
    }

    #[inline(always)]
    fn cone(&self, key: &ConeKey) -> Option<Cone> {
        cones::find(key)
    }

    #[inline(always)]
    fn touch_cone(&mut self, key: &ConeKey, now_ns: u64) {
        cones::touch(key, now_ns);
    }

    #[inline(always)]
    fn insert_cone(&mut self, key: &ConeKey, cone: &Cone) -> Result<(), InsertError> {
        cones::insert(key, cone)
    }

    #[inline(always)]
    fn remove_cone(&mut self, key: &ConeKey) {
        cones::remove(key);
    }

    #[inline(always)]
    fn cone_port(&self, owner: &ConeOwner) -> Option<Port> {
        cones::port(owner)
    }

    #[inline(always)]
    fn set_cone_port(&mut self, owner: &ConeOwner, port: Port) {
        cones::set_port(owner, port);
    }

    #[inline(always)]
    fn remove_cone_port(&mut self, owner: &ConeOwner) {
        cones::remove_port(owner);
    }

    #[inline(always)]
    fn config(&self) -> Config {
        config::get()
    }

    #[inline(always)]
    fn endpoint(&self, address: Address) -> Option<Endpoint> {
        endpoints::find(address)
    }

    #[inline(always)]
    fn admitted(&self, key: &AdmittedKey) -> Option<Admitted> {
        admitted::find(key)
    }

    #[inline(always)]
    fn hop(&self, index: u32) -> Option<Hop> {
        hops::get(index)
    }

    #[inline(always)]
    fn published(&self, key: &PublishedKey) -> Option<PublishedBlock> {
        published::find(key)
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<Uplink> {
        uplinks::find(ifindex)
    }

    #[inline(always)]
    fn is_host_address(&self, address: Address) -> bool {
        host_addresses::contains(address)
    }

    #[inline(always)]
    fn is_host_address_ipv6(&self, address: Ipv6Address) -> bool {
        host_addresses::contains_ipv6(address)
    }

    #[inline(always)]
    fn is_handed_over(&mut self, key: &FlowKey, now_ns: u64) -> bool {
        handover::keeps(key, now_ns)
    }

    #[inline(always)]
    fn remember_fragment(&mut self, key: &FragmentKey, ports: &FragmentPorts) {
        fragments::remember(key, ports);
    }

    #[inline(always)]
    fn fragment_ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        fragments::find(key)
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        routes::lookup(self.context, query)
    }

    #[inline(always)]
    fn host_socket_takes(&self, key: &FlowKey) -> bool {
        sockets::takes(self.context, key)
    }

    #[inline(always)]
    fn closed_ports(&self) -> Option<&ClosedPorts> {
        closed_ports::get()
    }

    #[inline(always)]
    fn sender(&self, place: u32) -> Sender {
        closed_ports::sender(place)
    }

    #[inline(always)]
    fn spend_of_sender(&mut self, place: u32, full_at_ns: u64) {
        closed_ports::spend(place, full_at_ns);
    }

    #[inline(always)]
    fn ask_sender(&mut self, place: u32, now_ns: u64) {
        closed_ports::ask(place, now_ns);
    }

    #[inline(always)]
    fn may_ask_kernel(&mut self, rate: &Rate, now_ns: u64) -> bool {
        closed_ports::may_ask_kernel(rate, now_ns)
    }

    #[inline(always)]
    fn refusal(&self, place: u32) -> Refusal {
        closed_ports::refusal(place)
    }

    #[inline(always)]
    fn set_refusal(&mut self, place: u32, refusal: Refusal) {
        closed_ports::set_refusal(place, refusal);
    }

    #[inline(always)]
    fn is_listened_to(&self, now_ns: u64) -> bool {
        events::are_listened_to(now_ns)
    }

    #[inline(always)]
    fn announce(&mut self, event: impl FnOnce(&Self) -> Event) {
        events::tell(|| event(self));
    }

    #[inline(always)]
    fn policy(&self) -> Option<&Policy> {
        policy::in_force()
    }

    #[inline(always)]
    fn count_policy(&mut self, counter: u16, bytes: u32) {
        policy::fitted(counter, bytes);
    }

    #[inline(always)]
    fn count(&mut self, path: PathCount, bytes: u32) {
        counters::took(path as u32, bytes);
    }
}

/// [`conntrack::standing`] of an entry: a global function, see [`flows`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn np_flow_standing(flow: *mut Flow, protocol: u32, now_ns: u64) -> u32 {
    let Some(entry) = flows::Entry::of(flow) else { return 0 };
    conntrack::standing(&KernelTables::new(ptr::null_mut()), entry, protocol as u8, now_ns)
}
