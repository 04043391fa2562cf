//! What a container sends: answers and masqueraded flows to the world, packets to its neighbours, packets to the host.

use super::{
    Workspace, answer, closed_port,
    direct::{Direct, direct},
    gateway, generation, icmp_error, is_loopback, leave, link, may_open,
    published::{is_translatable, published},
    sender::{Sender, sender},
    too_big, with_flow,
};
use crate::{
    abi::{Address, Endpoint, FlowKind, Mode, Origin, PathCount, Terms, Uplink},
    conntrack::{NewFlow, Way},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    nat::cone,
    packet::Packet,
    parse::{Headers, Transport},
    policy,
    tables::{Arrival, Published, Route, RouteQuery, Tables},
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
    let fate = closed_port::note(tables, &work.headers, arrival, fate);
    answer::to_container(packet, tables, &work.headers, arrival, fate)
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
    if is_loopback(headers.key.destination) {
        // What is published on 127.0.0.1 is the host's own only, whatever net.ipv4.conf.*.route_localnet says.
        return Fate::dropped(DropReason::LoopbackFromWire);
    }
    if headers.transport == Transport::IcmpError {
        let fate = icmp_error::icmp_error(packet, tables, headers, arrival);
        if fate.is_decided() {
            return fate;
        }
    }
    flow.kind = FlowKind::Masquerade as u8;
    let sender = sender(tables, headers, arrival);
    let fate = gateway::by_neighbour(packet, tables, headers, arrival, sender);
    if fate.is_decided() {
        return fate;
    }
    let fate = Fate::from(neighbour(packet, tables, headers, flow, arrival, sender));
    if fate.is_decided() {
        return fate;
    }
    if sender.terms() & Terms::INTERNAL != 0 {
        return internal(tables, headers);
    }
    if headers.transport == Transport::Unknown && sender.is_own() {
        return Fate::held();
    }
    if flow.kind == FlowKind::Routed as u8 {
        let Headers { key, .. } = headers;
        let itself = Published { address: key.destination, port: key.destination_port, reserved: [0; 2] };
        return hairpin(tables, headers, &itself, flow, arrival);
    }
    if let Some(published) = published(tables, headers) {
        flow.kind = FlowKind::Hairpin as u8;
        return hairpin(tables, headers, &published, flow, arrival);
    }
    let mut target = Published { address: [0; 4], port: [0; 2], reserved: [0; 2] };
    if cone::find(tables, headers, arrival.now_ns, &mut target) != 0 {
        flow.kind = FlowKind::Hairpin as u8;
        return hairpin(tables, headers, &target, flow, arrival);
    }
    if tables.is_host_address(headers.key.destination) {
        return Fate::forwarded(Verdict::kernel(PathCount::ContainerToHost));
    }
    if sender.terms() & Terms::NO_MASQUERADE != 0 {
        if tables.config().mode() == Mode::Takeover {
            // Docker's rules let pass what it begins, and only the answers back in.
            return Fate::forwarded(Verdict::kernel(PathCount::ToKernel));
        }
        flow.kind = FlowKind::Routed as u8;
    }
    masquerade(tables, headers, flow, arrival)
}

/// What stays on its network, other containers and groups, and what its container must not send at all. Undecided: it goes
/// elsewhere, to an address of another network's container if `flow` is marked as routed.
#[inline(always)]
fn neighbour<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
    sender: Sender,
) -> Result<Option<Verdict>, DropReason> {
    let kernel = Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    let mode = tables.config().mode();
    let [first, _] = packet.read_u16(ethernet::DESTINATION).ok_or(DropReason::Truncated)?;
    let is_group = first & ethernet::GROUP != 0;
    // Who has no address yet may ask for one.
    if sender.is_foreign() && !(is_group && headers.key.source == [0; 4]) {
        return Err(DropReason::ForeignSource);
    }
    if sender.is_unknown() {
        return if is_group { kernel } else { leave(mode, PathCount::ToKernel, DropReason::ForeignSource).map(Some) };
    }
    if let Some(destination) = tables.endpoint(headers.key.destination) {
        return local(packet, tables, headers, &destination, flow, arrival, sender);
    }
    if is_group && sender.terms() & Terms::ICC_OFF != 0 {
        return sender.icc_off(mode).map(Some);
    }
    if is_group || sender.is_router() && sender.terms() & Terms::INTERNAL == 0 {
        return kernel;
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
    flow: &mut NewFlow,
    arrival: &Arrival,
    sender: Sender,
) -> Result<Option<Verdict>, DropReason> {
    if sender.network() != destination.network {
        let mode = tables.config().mode();
        if sender.terms() & Terms::INTERNAL == 0
            && direct(tables, headers, destination, arrival.ifindex) == Direct::Open
        {
            flow.kind = FlowKind::Routed as u8;
            return Ok(None);
        }
        return leave(mode, PathCount::ToKernel, DropReason::OtherNetwork).map(Some);
    }
    if sender.terms() & Terms::ICC_OFF != 0 && destination.ifindex != arrival.ifindex {
        match sender.icc_off(tables.config().mode()) {
            Err(_) if link::is_open(tables, headers, arrival) => {}
            decided => return decided.map(Some),
        }
    }
    if !is_addressed_to(packet, destination)? || destination.ifindex == arrival.ifindex || !sender.is_own() {
        return Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    }
    Ok(Some(Verdict { forward: Forward::IntoContainer { ifindex: destination.ifindex }, path: PathCount::Local }))
}

/// From an internal network to something outside it: nothing passes but to the network's own gateway address. In takeover
/// Docker's rules see to that.
#[inline(never)]
fn internal<T: Tables>(tables: &T, headers: &Headers) -> Fate {
    if tables.config().mode() == Mode::Takeover {
        return Fate::forwarded(Verdict::kernel(PathCount::ToKernel));
    }
    let is_gateway = tables.endpoint(headers.key.source).is_some_and(|own| own.gateway == headers.key.destination);
    if !is_gateway || headers.key.destination == [0; 4] || published(tables, headers).is_some() {
        return Fate::dropped(DropReason::InternalNetwork);
    }
    Fate::forwarded(Verdict::kernel(PathCount::ContainerToHost))
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
    flow.begin(flow.kind, &headers.key);
    match describe_hairpin(tables, headers, published, arrival, flow) {
        Hairpin::Described => {}
        Hairpin::ForeignSource => return leave(mode, PathCount::ToKernel, DropReason::ForeignSource).map(Some),
        Hairpin::OtherNetwork => return Err(DropReason::OtherNetwork),
        Hairpin::Kernel => return Ok(Some(Verdict::kernel(PathCount::ToKernel))),
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
    /// The port is another network's, and the sender's network keeps to itself.
    OtherNetwork,
    /// Docker's rules and docker-proxy decide whether neighbours reach each other so.
    Kernel,
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
    if target.network != source.network {
        if source.terms & Terms::KEEPS_TO_ITSELF != 0 {
            return Hairpin::OtherNetwork;
        }
    } else if source.terms & Terms::ICC_OFF != 0 && tables.config().mode() == Mode::Takeover {
        return Hairpin::Kernel;
    }
    new.translated.destination = published.address;
    new.translated.destination_port = published.port;
    // A container on several networks answers a client of another one by that network, past this flow; the gateway it
    // answers by the network that it was asked on.
    let answers_elsewhere = target.network != source.network && target.terms & Terms::ON_SEVERAL != 0;
    if target.ifindex == source.ifindex || answers_elsewhere {
        new.translated.source = target.gateway;
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
    if headers.ttl <= 1 {
        // It ends here, as the kernel will say, and begins nothing.
        return Ok(Some(Verdict::kernel(PathCount::KernelAnswers)));
    }
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    flow.begin(flow.kind, &headers.key);
    flow.original.ingress_ifindex = arrival.ifindex;
    match way_out(tables, headers, flow) {
        WayOut::Uplink => {}
        // It ends here too.
        WayOut::TooBig => return too_big(headers, mode == Mode::Takeover).map(Some),
        WayOut::Kernel => return Ok(Some(Verdict::kernel(PathCount::KernelAnswers))),
        WayOut::NotAnUplink => return leave(mode, PathCount::ToKernel, DropReason::NotAnUplink).map(Some),
    }
    Ok(None)
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
    let query = RouteQuery::of(headers, source.bridge_ifindex);
    let Route::Via { ifindex, next_hop, .. } = tables.route(&query) else { return WayOut::Kernel };
    let Some(uplink) = tables.uplink(ifindex) else { return WayOut::NotAnUplink };
    let is_routed = new.kind == FlowKind::Routed as u8;
    new.translated.source = if is_routed {
        headers.key.source
    } else if masquerade == [0; 4] {
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
    new.full_cone = if is_routed { 0 } else { source.full_cone };
    if source.full_cone != 0 && headers.transport == Transport::Udp && !is_routed {
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
