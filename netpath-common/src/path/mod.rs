//! 2. Classify: the packet's way, one file per direction.
//!
//! Every direction begins alike: parse, and if the packet belongs to a flow, translate and forward it ([`with_flow`]).
//! That is the fast path, one look-up in the flow table. Only what is left is classified: it opens a flow, stays local,
//! belongs to the kernel, or is dropped with its reason.

mod answer;
pub mod bound_to_loopback;
mod closed_port;
mod direct;
pub mod early;
pub mod egress_guard;
pub mod express;
mod fragments;
pub mod from_container;
pub mod from_host;
pub mod from_host_to_wire;
pub mod from_loopback;
pub mod from_socket;
pub mod from_wire;
mod gateway;
mod icmp_error;
mod link;
mod published;
mod sender;

pub use fragments::FRAGMENT_NS;

#[cfg(test)]
mod tests;

use crate::{
    abi::{Address, Direction, EndReason, Flow, FlowKind, Hop, HopKind, Mode, NextHop, PathCount},
    conntrack::{self, NewFlow},
    drop::DropReason,
    forward::{self, Fate, Forward, Verdict},
    nat::apply,
    packet::Packet,
    parse::{Fragment, Headers, NetworkLayer, Transport, parse},
    tables::{Arrival, Neighbour, Route, RouteQuery, Tables},
    wire::tcp,
};

/// The interface by which packets of the host's own come in: the loopback interface, whose number is 1 in every network
/// namespace. Nobody else can send a packet of their flows.
const HOST_IFINDEX: u32 = 1;

/// Whether an address is of 127.0.0.0/8.
#[inline(always)]
const fn is_loopback(address: Address) -> bool {
    address[0] == 127
}

/// Whether an address can't be a sender's, as Linux sees it (`ip_route_input_slow`): 0.0.0.0/8, groups, everyone.
#[inline(always)]
const fn is_nobody(address: Address) -> bool {
    matches!(address, [0 | 224..=239, ..] | [255, 255, 255, 255])
}

/// What to do with a packet that netpath can't carry: in takeover the kernel does, in sole mode nobody may.
///
/// # Errors
///
/// The reason, in sole mode.
#[inline(always)]
fn leave(mode: Mode, path: PathCount, reason: DropReason) -> Result<Verdict, DropReason> {
    match mode {
        Mode::Takeover => Ok(Verdict::kernel(path)),
        Mode::Sole => Err(reason),
    }
}

/// Memory to work in, for one packet; what an earlier one left there doesn't matter. In the kernel it isn't the stack but a
/// map's value: what lies there the verifier doesn't follow, so it doesn't prove the rest of the path anew for every kind
/// of packet and of flow.
#[derive(Debug, Clone, Copy)]
pub struct Workspace {
    /// What was read of the packet.
    pub headers: Headers,
    /// The flow that it is to open, if it is.
    pub flow: NewFlow,
    /// Whose Ethernet address it needs if it leaves by an uplink; 0.0.0.0: the kernel asks its routes.
    pub next_hop: Address,
}

impl Workspace {
    /// Nothing is known.
    pub const EMPTY: Self = Self { headers: Headers::EMPTY, flow: NewFlow::EMPTY, next_hop: [0; 4] };
}

/// The way that both directions share: parse, and carry what belongs to a flow. `unknown` decides what becomes of the rest,
/// or describes the flow that it is to open: that is opened here, and the packet carried with it.
#[inline(always)]
fn with_flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    work: &mut Workspace,
    arrival: &Arrival,
    unknown: impl Fn(&mut P, &mut T, &Headers, &mut NewFlow, &Arrival) -> Fate,
) -> Fate {
    let Workspace { headers, flow, next_hop } = work;
    *next_hop = [0; 4];
    match parse(packet, headers) {
        Ok(NetworkLayer::Ipv4) => {}
        Ok(NetworkLayer::Other) => return Fate::forwarded(Verdict::kernel(PathCount::ToKernel)),
        Err(reason) => return Fate::dropped(reason),
    }
    if headers.fragment != Fragment::Whole
        && let Err(reason) = fragments::resolve(tables, headers, arrival)
    {
        return Fate::dropped(reason);
    }
    let fate = known_flow(packet, tables, headers, arrival, next_hop);
    if fate.is_decided() {
        return fate;
    }
    let fate = unknown(packet, tables, headers, flow, arrival);
    if fate.is_decided() {
        return fate;
    }
    end_leftover(tables, headers, arrival.now_ns);
    if let Err(reason) = conntrack::open(tables, headers, flow, arrival) {
        return Fate::dropped(reason);
    }
    let fate = known_flow(packet, tables, headers, arrival, next_hop);
    if fate.is_decided() { fate } else { Fate::dropped(DropReason::HopGone) }
}

/// Carries a packet of a known flow. Undecided: there is no flow for it, or none any more.
///
/// Not inlined: the BPF stack of 512 bytes is shared by a whole chain of calls, and this frame ends before the one that
/// opens a flow begins.
#[inline(never)]
fn known_flow<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
    next_hop: &mut Address,
) -> Fate {
    Fate::from(try_known_flow(packet, tables, headers, arrival, next_hop))
}

#[inline(always)]
fn try_known_flow<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
    next_hop: &mut Address,
) -> Result<Option<Verdict>, DropReason> {
    let Some(entry) = tables.flow(&headers.key) else { return Ok(None) };
    let mut flow = tables.load(entry);
    if flow.ingress_ifindex != 0 && flow.ingress_ifindex != arrival.ifindex {
        return Ok(None);
    }
    let hop = match tables.hop(flow.hop) {
        Some(hop) if hop.generation == flow.hop_generation => hop,
        _ => {
            conntrack::end(tables, &headers.key, entry, EndReason::HopGone, arrival.now_ns);
            return Ok(None);
        }
    };
    if conntrack::is_silent(&flow, arrival.now_ns)
        && conntrack::is_pair_expired(tables, entry, headers.key.protocol, arrival.now_ns)
    {
        conntrack::end(tables, &headers.key, entry, EndReason::Expired, arrival.now_ns);
        return Ok(None);
    }
    if let Some(verdict) = kernel_must_answer(tables, headers, &flow, &hop)? {
        return Ok(Some(verdict));
    }
    if conntrack::turns(headers, &flow) {
        if !conntrack::turn(tables, entry, headers, arrival) {
            conntrack::end(tables, &headers.key, entry, EndReason::Reopened, arrival.now_ns);
            return Ok(None);
        }
        flow = tables.load(entry);
    }
    // What opens a connection has been noted by now, and needs its way as well: the kernel, asked with the translated source,
    // wouldn't find what rules about the container's say (`ip rule add iif docker0`).
    let opens = matches!(headers.transport, Transport::Tcp { flags } if flags & tcp::SYN != 0);
    let is_due = conntrack::track(tables, entry, &flow, headers, arrival) | opens;
    if hop.kind == HopKind::Uplink as u8 {
        if is_due && is_led_past_host(packet, tables, headers, &flow)? {
            conntrack::end(tables, &headers.key, entry, EndReason::HopGone, arrival.now_ns);
            return Ok(None);
        }
        *next_hop = find_next_hop(tables, entry, headers, &hop, is_due).to_ne_bytes();
    }
    carry(packet, headers, &flow, &hop).map(Some)
}

/// Whether a container has got another way to the world than the host since it opened a flow. What it answers isn't asked:
/// answers to published ports leave as they must, whatever its default route says.
///
/// # Errors
///
/// [`DropReason::Truncated`].
#[inline(always)]
fn is_led_past_host<T: Tables>(
    packet: &impl Packet,
    tables: &T,
    headers: &Headers,
    flow: &Flow,
) -> Result<bool, DropReason> {
    let is_own = flow.direction() == Direction::Original && flow.kind() != FlowKind::Host;
    Ok(is_own && gateway::passes_by_host(packet, tables, headers.key.source, flow.ingress_ifindex)?)
}

/// Whose Ethernet address a packet needs behind its uplink, as it lies in memory; 0: the kernel asks its routes.
///
/// The routes are asked when noting the packet was due, about once a second and not for each packet, which saves those a
/// look-up; so a changed route is followed within a second, whether the daemon lives or not. A function of its own for
/// the sake of the BPF stack.
#[inline(never)]
fn find_next_hop<T: Tables>(tables: &mut T, entry: T::Entry, headers: &Headers, hop: &Hop, is_due: bool) -> u32 {
    if is_due {
        let flow = tables.load(entry);
        let next_hop = ask_the_way(tables, headers, &flow, hop);
        tables.lead(entry, next_hop);
    }
    u32::from_ne_bytes(forward::next_hop(&tables.load(entry), hop, headers.key.destination))
}

/// What the kernel's routes say of a flow behind its uplink: the number of a [`NextHop`].
#[inline(always)]
fn ask_the_way<T: Tables>(tables: &T, headers: &Headers, flow: &Flow, hop: &Hop) -> u8 {
    let Some(source) = tables.endpoint(headers.key.source) else { return NextHop::Asked as u8 };
    let query = RouteQuery::of(headers, source.bridge_ifindex);
    let Route::Via { ifindex, next_hop, neighbour } = tables.route(&query) else { return NextHop::Asked as u8 };
    let is_destination = next_hop == headers.key.destination;
    if ifindex != hop.ifindex || !is_destination && next_hop != hop.gateway() {
        return NextHop::Asked as u8;
    }
    if neighbour == Neighbour::Unknown && kernel_finds(tables, headers, flow.source, hop, u32::from_ne_bytes(next_hop))
    {
        return NextHop::Asked as u8;
    }
    if is_destination { NextHop::Destination as u8 } else { NextHop::Gateway as u8 }
}

/// Whether the kernel's own choice for a translated packet is this next hop. Then the choice is left to it as long as it
/// doesn't know the neighbour: if that doesn't answer, the kernel sends an ICMP error about the packets that wait for it, but
/// only about those whose way it has chosen itself (`arp_error_report` in net/ipv4/arp.c). What becomes of the error is
/// [`bound_to_loopback`]'s to say.
#[inline(never)]
fn kernel_finds<T: Tables>(tables: &T, headers: &Headers, source: Address, hop: &Hop, wanted: u32) -> bool {
    let query = RouteQuery::of_translated(headers, source, hop.ifindex);
    match tables.route(&query) {
        Route::Via { ifindex, next_hop, .. } => ifindex == hop.ifindex && u32::from_ne_bytes(next_hop) == wanted,
        Route::Kernel => false,
    }
}

/// Ends a flow of the packet's tuple that came in by another interface: it belongs to a container that had this address
/// before. The address is known to be the sender's now.
#[inline(never)]
fn end_leftover<T: Tables>(tables: &mut T, headers: &Headers, now_ns: u64) {
    if let Some(entry) = tables.flow(&headers.key) {
        conntrack::end(tables, &headers.key, entry, EndReason::AddressMoved, now_ns);
    }
}

/// The generation of a hop; of none, one that no flow has.
#[inline(always)]
fn generation<T: Tables>(tables: &T, hop: u32) -> u16 {
    match tables.hop(hop) {
        Some(hop) => hop.generation,
        None => u16::MAX,
    }
}

/// Translates a packet and sends it towards its hop. What is the host's own goes on where it is going anyway.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`], [`DropReason::HopGone`].
#[inline(always)]
fn carry(packet: &mut impl Packet, headers: &Headers, flow: &Flow, hop: &Hop) -> Result<Verdict, DropReason> {
    let forward = if flow.kind() == FlowKind::Host {
        Forward::Kernel
    } else {
        apply::network_header(packet, headers, flow)?;
        forward::along(packet, flow, hop)?
    };
    apply::transport_header(packet, headers, flow)?;
    let path = match (flow.kind(), flow.direction()) {
        (FlowKind::Masquerade, Direction::Original) => PathCount::MasqueradeOut,
        (FlowKind::Masquerade, Direction::Reply) => PathCount::MasqueradeIn,
        (FlowKind::Published, Direction::Original) => PathCount::PublishedIn,
        (FlowKind::Published, Direction::Reply) => PathCount::PublishedOut,
        (FlowKind::Hairpin, _) => PathCount::Hairpin,
        (FlowKind::Host, Direction::Original) => PathCount::HostOut,
        (FlowKind::Host, Direction::Reply) => PathCount::HostIn,
        (FlowKind::Cone, Direction::Original) => PathCount::ConeIn,
        (FlowKind::Cone, Direction::Reply) => PathCount::ConeOut,
        (FlowKind::Routed, _) => PathCount::Routed,
        (FlowKind::Loopback, Direction::Original) => PathCount::HostToContainer,
        (FlowKind::Loopback, Direction::Reply) => PathCount::ContainerToHost,
    };
    Ok(Verdict { forward, path })
}

/// Whether a packet can't go on, because its time is over or the next link is too small, and what becomes of it.
///
/// The kernel answers a container best: it gets the packet untranslated, finds the same fault on its own way, and sends
/// the ICMP error that the container expects. It can fragment only what nobody translates. Into a container no size is
/// checked: a veth takes what fits the uplink; and what the kernel can't answer [`answer`] tells the sender of.
///
/// # Errors
///
/// [`DropReason::TooBig`] or [`DropReason::TtlExpired`] where the kernel can't answer.
#[inline(always)]
fn kernel_must_answer<T: Tables>(
    tables: &T,
    headers: &Headers,
    flow: &Flow,
    hop: &Hop,
) -> Result<Option<Verdict>, DropReason> {
    let leaves_host = hop.kind == HopKind::Uplink as u8;
    let dying = headers.ttl <= 1;
    let is_too_big = leaves_host && headers.wire_len > hop.mtu;
    if !dying && !is_too_big || flow.kind() == FlowKind::Host {
        return Ok(None);
    }
    let answer = Ok(Some(Verdict::kernel(PathCount::KernelAnswers)));
    let takeover = tables.config().mode() == Mode::Takeover;
    match (leaves_host, dying) {
        (true, true) => answer,
        // What is translated the kernel would translate otherwise, or not at all: it doesn't know the flow.
        (true, false) => too_big(headers, flow.kind() == FlowKind::Routed).map(Some),
        // Docker's rules know a published port; the answers to a masqueraded flow and a cone they don't.
        (false, _) if takeover && matches!(flow.kind(), FlowKind::Published | FlowKind::Hairpin) => answer,
        // Nothing is translated: the kernel's way ends for it just here.
        (false, _) if flow.kind() == FlowKind::Routed => answer,
        (false, _) => Err(DropReason::TtlExpired),
    }
}

/// What becomes of a packet that is too big for the uplink. `kernel_fragments`: what the kernel makes of it may go out. It
/// gets no fragments: of those it would see some, and the others would fit.
///
/// # Errors
///
/// [`DropReason::TooBig`], of which [`answer`] tells the sender, who may lower the size that he sends also without "don't
/// fragment".
#[inline(always)]
fn too_big(headers: &Headers, kernel_fragments: bool) -> Result<Verdict, DropReason> {
    if headers.may_fragment && (!kernel_fragments || headers.fragment != Fragment::Whole) {
        return Err(DropReason::TooBig);
    }
    Ok(Verdict::kernel(PathCount::KernelAnswers))
}

/// Whether a packet without a flow may open one.
///
/// # Errors
///
/// [`DropReason::NoFlow`] for an echo reply that nobody asked for and, in sole mode, for a reset of nothing;
/// [`DropReason::FragmentUnknown`].
#[inline(always)]
fn may_open<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Result<Option<Verdict>, DropReason> {
    let config = tables.config();
    if config.opens_flows == 0 {
        return Ok(Some(Verdict::kernel(PathCount::Handover)));
    }
    let mode = config.mode();
    match headers.transport {
        Transport::Tcp { flags } if !conntrack::opens(flags) => {
            // In takeover a connection's middle belongs to nf_conntrack; alone, netpath picks it up as nf_conntrack's
            // tcp_loose does. A reset or a close of nothing would only begin a flow that has ended.
            if mode == Mode::Takeover {
                return Ok(Some(Verdict::kernel(PathCount::Handover)));
            }
            if flags & (tcp::RST | tcp::SYN) != 0 {
                return Err(DropReason::NoFlow);
            }
        }
        Transport::Fragment | Transport::Unknown => {
            return leave(mode, PathCount::ToKernel, DropReason::FragmentUnknown).map(Some);
        }
        Transport::Tcp { .. }
        | Transport::Udp
        | Transport::EchoRequest
        | Transport::EchoReply
        | Transport::Sctp
        | Transport::Other => {}
        Transport::IcmpError | Transport::IcmpQuery | Transport::IcmpOther => {
            return leave(mode, PathCount::ToKernel, DropReason::UnsupportedProtocol).map(Some);
        }
    }
    if mode == Mode::Takeover && tables.is_handed_over(&headers.key, arrival.now_ns) {
        return Ok(Some(Verdict::kernel(PathCount::Handover)));
    }
    if headers.transport == Transport::EchoReply {
        // The kernel would send it on with the container's address.
        return Err(DropReason::NoFlow);
    }
    Ok(None)
}
