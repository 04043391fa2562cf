//! What a container sends: answers and masqueraded flows to the world, packets to its neighbours, packets to the host.

use super::{end_leftover, generation, icmp_error, leave, may_open, with_flow};
use crate::{
    abi::{Address, Endpoint, FlowKind, PathCount, Uplink},
    conntrack::{NewFlow, Way, open},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    packet::Packet,
    parse::{Headers, Transport},
    tables::{Arrival, Route, RouteQuery, Tables},
    wire::ethernet,
};

/// Carries a packet that came out of a container's veth.
///
/// `headers` is memory to work in; what it holds doesn't matter.
#[inline(always)]
pub fn from_container<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &mut Headers,
    arrival: &Arrival,
) -> Fate {
    with_flow(packet, tables, headers, arrival, unknown)
}

/// A packet that belongs to no flow. Undecided: it belongs to one now.
#[inline(never)]
fn unknown<T: Tables>(packet: &mut impl Packet, tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    if headers.transport == Transport::IcmpError {
        let fate = icmp_error::icmp_error(packet, tables, headers, arrival);
        if fate.is_decided() {
            return fate;
        }
    }
    Fate::from(try_unknown(packet, tables, headers, arrival))
}

#[inline(always)]
fn try_unknown<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    if let Some(verdict) = neighbour(packet, tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    if headers.transport == Transport::IcmpError {
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::IcmpErrorUnrelated).map(Some);
    }
    masquerade(tables, headers, arrival)
}

/// What stays on this host: other containers, the host itself, groups.
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

/// Container to world: opens a flow behind one of the uplink's addresses.
#[inline(always)]
fn masquerade<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Result<Option<Verdict>, DropReason> {
    let mode = tables.config().mode();
    let Some(source) = tables.endpoint(headers.key.source).filter(|source| source.ifindex == arrival.ifindex) else {
        return leave(mode, PathCount::ToKernel, DropReason::ForeignSource).map(Some);
    };
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    let mut new = NewFlow {
        kind: FlowKind::Masquerade,
        network: source.network,
        translated: headers.key,
        original: Way { hop: 0, hop_generation: 0, ingress_ifindex: arrival.ifindex },
        reply: Way { hop: source.hop, hop_generation: generation(tables, source.hop), ingress_ifindex: 0 },
    };
    match way_out(tables, headers, source.bridge_ifindex, &mut new) {
        WayOut::Uplink => {}
        WayOut::Kernel => return Ok(Some(Verdict::kernel(PathCount::KernelAnswers))),
        WayOut::NotAnUplink => return leave(mode, PathCount::ToKernel, DropReason::NotAnUplink).map(Some),
    }
    end_leftover(tables, headers, arrival.now_ns);
    open(tables, headers, &mut new, arrival)?;
    Ok(None)
}

/// Which way leads to the packet's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayOut {
    /// An uplink; the new flow has its hop and its address.
    Uplink,
    /// None: the kernel knows what to answer.
    Kernel,
    /// An interface that netpath doesn't translate for.
    NotAnUplink,
}

/// Asks the routes and fills in the flow's hop and its source address.
#[inline(never)]
fn way_out<T: Tables>(tables: &T, headers: &Headers, bridge_ifindex: u32, new: &mut NewFlow) -> WayOut {
    let query = RouteQuery {
        source: headers.key.source,
        destination: headers.key.destination,
        tos: headers.tos,
        ifindex: bridge_ifindex,
    };
    let Route::Via { ifindex, next_hop } = tables.route(&query) else { return WayOut::Kernel };
    let Some(uplink) = tables.uplink(ifindex) else { return WayOut::NotAnUplink };
    let Some(address) = source_address(&uplink, next_hop) else { return WayOut::NotAnUplink };
    new.translated.source = address;
    new.original.hop = uplink.hop;
    new.original.hop_generation = generation(tables, uplink.hop);
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
