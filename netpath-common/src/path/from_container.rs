//! What a container sends: answers and masqueraded flows to the world, packets to its neighbours, packets to the host.

use super::{
    Workspace, generation, icmp_error, leave, may_open,
    published::{is_translatable, published},
    too_big, with_flow,
};
use crate::{
    abi::{Address, Endpoint, FlowKind, Origin, PathCount, Published, Uplink},
    conntrack::{NewFlow, Way},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    nat::{answer::prohibited, cone},
    packet::Packet,
    parse::{Headers, Transport},
    policy,
    tables::{Arrival, Route, RouteQuery, Tables},
    wire::ethernet,
};

/// Carries a packet that came out of a container's veth.
///
/// `work` is memory to work in; what it holds doesn't matter.
#[inline(always)]
pub fn from_container<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    work: &mut Workspace,
    arrival: &Arrival,
) -> Fate {
    let fate = with_flow(packet, tables, work, arrival, unknown);
    answer(packet, tables, &work.headers, arrival, fate)
}

/// A packet that belongs to no flow. Undecided: it opens `flow`.
#[inline(never)]
fn unknown<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Fate {
    if headers.transport == Transport::IcmpError {
        let fate = icmp_error::icmp_error(packet, tables, headers, arrival);
        if fate.is_decided() {
            return fate;
        }
    }
    let fate = Fate::from(neighbour(packet, tables, headers, arrival));
    if fate.is_decided() {
        return fate;
    }
    if headers.transport == Transport::Unknown && is_own_source(tables, headers, arrival) {
        return Fate::held();
    }
    if let Some(published) = published(tables, headers) {
        return hairpin(tables, headers, &published, flow, arrival);
    }
    if tables.is_host_address(headers.key.destination) {
        return Fate::forwarded(Verdict::kernel(PathCount::ContainerToHost));
    }
    masquerade(tables, headers, flow, arrival)
}

/// Tells the container when its flow can't be opened, so that it doesn't wait for nothing.
#[inline(always)]
fn answer<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
    fate: Fate,
) -> Fate {
    const REFUSED: [Fate; 2] = [Fate::dropped(DropReason::PortsExhausted), Fate::dropped(DropReason::FlowTableFull)];
    let reason = if fate == REFUSED[0] {
        DropReason::PortsExhausted
    } else if fate == REFUSED[1] {
        DropReason::FlowTableFull
    } else {
        return fate;
    };
    let gateway = match tables.endpoint(headers.key.source) {
        Some(source) if source.gateway != [0; 4] => source.gateway,
        _ => return fate,
    };
    if !tables.may_answer(arrival.now_ns) || prohibited(packet, headers, gateway).is_err() {
        return fate;
    }
    Fate::answered(reason, arrival.ifindex)
}

/// What stays on its network: other containers, groups.
#[inline(always)]
fn neighbour<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    let [first, _] = packet.read_u16(ethernet::DESTINATION).ok_or(DropReason::Truncated)?;
    if first & ethernet::GROUP != 0 {
        return Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    }
    if let Some(destination) = tables.endpoint(headers.key.destination) {
        return local(packet, tables, headers, &destination, arrival).map(Some);
    }
    Ok(None)
}

/// Container to container: bridged as it is, when the frame is addressed to the neighbour on the same network.
#[inline(always)]
fn local<T: Tables>(
    packet: &impl Packet,
    tables: &T,
    headers: &Headers,
    destination: &Endpoint,
    arrival: &Arrival,
) -> Result<Verdict, DropReason> {
    let Some(source) = tables.endpoint(headers.key.source).filter(|source| source.ifindex == arrival.ifindex) else {
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::ForeignSource);
    };
    if source.network != destination.network {
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::OtherNetwork);
    }
    if !is_addressed_to(packet, destination)? || destination.ifindex == arrival.ifindex {
        return Ok(Verdict::kernel(PathCount::ToKernel));
    }
    Ok(Verdict { forward: Forward::IntoContainer { ifindex: destination.ifindex }, path: PathCount::Local })
}

/// Whether the frame's destination is the endpoint's Ethernet address.
#[inline(always)]
pub(super) fn is_addressed_to(packet: &impl Packet, endpoint: &Endpoint) -> Result<bool, DropReason> {
    let [a, b, c, d] = packet.read_u32(ethernet::DESTINATION).ok_or(DropReason::Truncated)?;
    let [e, f] = packet.read_u16(ethernet::DESTINATION + 4).ok_or(DropReason::Truncated)?;
    Ok([a, b, c, d, e, f] == endpoint.mac)
}

/// Container to a published port, by one of the host's addresses. The client's address stays, also on the way to a
/// neighbour: the answers come out of its veth like everything else, and find the flow. Only a container that asks for
/// itself sees the gateway, because nobody takes packets from his own address.
///
/// Undecided: the packet opens `flow`.
#[inline(never)]
fn hairpin<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    published: &Published,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Fate {
    Fate::from(try_hairpin(tables, headers, published, flow, arrival))
}

#[inline(always)]
fn try_hairpin<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    published: &Published,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    policy::permit(tables, headers, published.address, Origin::Container)?;
    let mode = tables.config().mode();
    if headers.ttl <= 1 {
        return leave(mode, PathCount::KernelAnswers, DropReason::TtlExpired).map(Some);
    }
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    *flow = NewFlow::to(FlowKind::Hairpin, &headers.key);
    match describe_hairpin(tables, headers, published, arrival, flow) {
        Hairpin::Described => {}
        Hairpin::ForeignSource => return leave(mode, PathCount::ToKernel, DropReason::ForeignSource).map(Some),
        Hairpin::NoTarget => return leave(mode, PathCount::ContainerToHost, DropReason::HopGone).map(Some),
    }
    Ok(None)
}

/// Whether a hairpin flow can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hairpin {
    /// It can, and is described.
    Described,
    /// The sender has another address.
    ForeignSource,
    /// There is no container behind the port, or it can't be reached by it.
    NoTarget,
}

/// Fills in what the flow to a published port is to be. A function of its own for the sake of the BPF stack.
#[inline(never)]
fn describe_hairpin<T: Tables>(
    tables: &T,
    headers: &Headers,
    published: &Published,
    arrival: &Arrival,
    new: &mut NewFlow,
) -> Hairpin {
    let Some(source) = tables.endpoint(headers.key.source).filter(|source| source.ifindex == arrival.ifindex) else {
        return Hairpin::ForeignSource;
    };
    let Some(target) = tables.endpoint(published.address).filter(|_| is_translatable(headers, published)) else {
        return Hairpin::NoTarget;
    };
    new.translated.destination = published.address;
    new.translated.destination_port = published.port;
    if target.ifindex == source.ifindex {
        new.translated.source = source.gateway;
    }
    new.network = target.network;
    new.original =
        Way { hop: target.hop, hop_generation: generation(tables, target.hop), ingress_ifindex: arrival.ifindex };
    new.reply =
        Way { hop: source.hop, hop_generation: generation(tables, source.hop), ingress_ifindex: target.ifindex };
    Hairpin::Described
}

/// Container to world: a flow behind one of the uplink's addresses. Undecided: the packet opens `flow`.
#[inline(never)]
fn masquerade<T: Tables>(tables: &mut T, headers: &Headers, flow: &mut NewFlow, arrival: &Arrival) -> Fate {
    Fate::from(try_masquerade(tables, headers, flow, arrival))
}

#[inline(always)]
fn try_masquerade<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    let mode = tables.config().mode();
    // nf_conntrack calls these invalid, and Docker's rules would send them on with the container's address.
    match headers.transport {
        Transport::IcmpError => return Err(DropReason::IcmpErrorUnrelated),
        Transport::IcmpOther => return Err(DropReason::UnsupportedProtocol),
        _ => {}
    }
    if !is_own_source(tables, headers, arrival) {
        return leave(mode, PathCount::ToKernel, DropReason::ForeignSource).map(Some);
    }
    if headers.ttl <= 1 {
        // It ends here, as the kernel will say, and begins nothing.
        return Ok(Some(Verdict::kernel(PathCount::KernelAnswers)));
    }
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    *flow = NewFlow::to(FlowKind::Masquerade, &headers.key);
    flow.original.ingress_ifindex = arrival.ifindex;
    match way_out(tables, headers, flow) {
        WayOut::Uplink => {}
        // It ends here too.
        WayOut::TooBig => return too_big(mode, headers).map(Some),
        WayOut::Kernel => return Ok(Some(Verdict::kernel(PathCount::KernelAnswers))),
        WayOut::NotAnUplink => return leave(mode, PathCount::ToKernel, DropReason::NotAnUplink).map(Some),
    }
    Ok(None)
}

/// Whether the packet's source is the address of the container that it came from.
#[inline(never)]
fn is_own_source<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> bool {
    tables.endpoint(headers.key.source).is_some_and(|source| source.ifindex == arrival.ifindex)
}

/// Which way leads to the packet's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayOut {
    /// An uplink; the new flow has its hop and its address.
    Uplink,
    /// An uplink that is too small for the packet.
    TooBig,
    /// None: the kernel knows what to answer.
    Kernel,
    /// An interface that netpath doesn't translate for.
    NotAnUplink,
}

/// Asks the routes and fills in the flow's hops, its source address, and the port of its cone if there is one. A function of
/// its own for the sake of the BPF stack.
#[inline(never)]
fn way_out<T: Tables>(tables: &T, headers: &Headers, new: &mut NewFlow) -> WayOut {
    let Some(source) = tables.endpoint(headers.key.source) else { return WayOut::Kernel };
    let masquerade = source.masquerade;
    let query = RouteQuery {
        source: headers.key.source,
        destination: headers.key.destination,
        tos: headers.tos,
        ifindex: source.bridge_ifindex,
    };
    let Route::Via { ifindex, next_hop } = tables.route(&query) else { return WayOut::Kernel };
    let Some(uplink) = tables.uplink(ifindex) else { return WayOut::NotAnUplink };
    new.translated.source = if masquerade == [0; 4] {
        let Some(address) = source_address(&uplink, next_hop) else { return WayOut::NotAnUplink };
        address
    } else {
        masquerade
    };
    let Some(hop) = tables.hop(uplink.hop) else { return WayOut::NotAnUplink };
    new.original.hop = uplink.hop;
    new.original.hop_generation = hop.generation;
    if headers.wire_len > hop.mtu {
        return WayOut::TooBig;
    }
    new.reply.hop = source.hop;
    new.reply.hop_generation = generation(tables, source.hop);
    new.network = source.network;
    new.full_cone = source.full_cone;
    if source.full_cone != 0 && headers.transport == Transport::Udp {
        cone::prefer(tables, &headers.key, &mut new.translated);
    }
    WayOut::Uplink
}

/// The address that a masqueraded flow leaves with: the one whose subnet holds the next hop, else the first.
#[inline(always)]
fn source_address(uplink: &Uplink, next_hop: Address) -> Option<Address> {
    let next_hop = u32::from_ne_bytes(next_hop);
    let mut index = 0;
    while index < Uplink::ADDRESSES_MAX && (index as u32) < uplink.address_count {
        let candidate = &uplink.addresses[index];
        let mask = u32::from_ne_bytes(candidate.mask);
        if u32::from_ne_bytes(candidate.address) & mask == next_hop & mask {
            return Some(candidate.address);
        }
        index += 1;
    }
    if uplink.address_count == 0 { None } else { Some(uplink.addresses[0].address) }
}
