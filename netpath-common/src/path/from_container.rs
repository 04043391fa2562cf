//! What a container sends: answers and masqueraded flows to the world, packets to its neighbours, packets to the host.

use super::{carry, icmp_error, kernel_must_answer, known_flow, leave, may_open, resolve_fragment};
use crate::{
    abi::{Address, Endpoint, FlowKind, Mode, PathCount, Uplink},
    conntrack::{NewFlow, Way, open},
    drop::DropReason,
    forward::{Forward, Verdict},
    packet::Packet,
    parse::{Headers, Transport, parse},
    tables::{Arrival, Route, RouteQuery, Tables},
    wire::ethernet,
};

/// Carries a packet that came out of a container's veth.
///
/// # Errors
///
/// The reason for which the packet must be dropped.
#[inline(always)]
pub fn from_container<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    arrival: Arrival,
) -> Result<Verdict, DropReason> {
    let Some(mut headers) = parse(packet)? else { return Ok(Verdict::kernel(PathCount::ToKernel)) };
    resolve_fragment(tables, &mut headers, arrival);
    if let Some(verdict) = known_flow(packet, tables, &headers, arrival)? {
        return Ok(verdict);
    }
    if let Some(verdict) = neighbour(packet, tables, &headers, arrival)? {
        return Ok(verdict);
    }
    if headers.transport == Transport::IcmpError {
        if let Some(verdict) = icmp_error::icmp_error(packet, tables, &headers, arrival)? {
            return Ok(verdict);
        }
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::IcmpErrorUnrelated);
    }
    masquerade(packet, tables, &headers, arrival)
}

/// What stays on this host: other containers, the host itself, groups.
#[inline(always)]
fn neighbour<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: Arrival,
) -> Result<Option<Verdict>, DropReason> {
    if packet.read_u8(ethernet::DESTINATION).ok_or(DropReason::Truncated)? & ethernet::GROUP != 0 {
        return Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    }
    if let Some(destination) = tables.endpoint(headers.key.destination) {
        return local(packet, tables, headers, &destination, arrival).map(Some);
    }
    if tables.is_host_address(headers.key.destination) {
        return Ok(Some(Verdict::kernel(PathCount::ContainerToHost)));
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
    arrival: Arrival,
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

/// Container to world: a new flow behind one of the uplink's addresses.
#[inline(always)]
fn masquerade<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: Arrival,
) -> Result<Verdict, DropReason> {
    let mode = tables.config().mode();
    let Some(source) = tables.endpoint(headers.key.source).filter(|source| source.ifindex == arrival.ifindex) else {
        return leave(mode, PathCount::ToKernel, DropReason::ForeignSource);
    };
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(verdict);
    }
    let query = RouteQuery {
        source: headers.key.source,
        destination: headers.key.destination,
        tos: headers.tos,
        ifindex: source.bridge_ifindex,
    };
    let Route::Via { ifindex, next_hop } = tables.route(&query) else {
        return Ok(Verdict::kernel(PathCount::KernelAnswers));
    };
    let Some(uplink) = tables.uplink(ifindex) else {
        return leave(mode, PathCount::ToKernel, DropReason::NotAnUplink);
    };
    open_masqueraded(packet, tables, headers, &source, &uplink, next_hop, mode, arrival)
}

#[expect(clippy::too_many_arguments, reason = "one caller; a structure would be built on the BPF stack for nothing")]
#[inline(always)]
fn open_masqueraded<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    source: &Endpoint,
    uplink: &Uplink,
    next_hop: Address,
    mode: Mode,
    arrival: Arrival,
) -> Result<Verdict, DropReason> {
    let (Some(address), Some(hop), Some(own)) =
        (source_address(uplink, next_hop), tables.hop(uplink.hop), tables.hop(source.hop))
    else {
        return leave(mode, PathCount::ToKernel, DropReason::HopGone);
    };
    let mut translated = headers.key;
    translated.source = address;
    let new = NewFlow {
        kind: FlowKind::Masquerade,
        network: source.network,
        translated,
        original: Way { hop: uplink.hop, hop_generation: hop.generation, ingress_ifindex: arrival.ifindex },
        reply: Way { hop: source.hop, hop_generation: own.generation, ingress_ifindex: 0 },
    };
    end_leftover(tables, headers);
    let flow = open(tables, headers, &new, arrival)?;
    // Asked for after opening, so that a packet which the kernel answers finds its flow when it comes again.
    if let Some(verdict) = kernel_must_answer(packet, tables, headers, &flow, &hop)? {
        return Ok(verdict);
    }
    carry(packet, headers, &flow, &hop)
}

/// A flow of the same tuple that came in by another interface belongs to a container that had this address before.
#[inline(always)]
pub(super) fn end_leftover<T: Tables>(tables: &mut T, headers: &Headers) {
    if let Some(entry) = tables.flow(&headers.key) {
        let flow = tables.load(entry);
        crate::conntrack::end(tables, &headers.key, &flow);
    }
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
