//! What the world sends: answers to masqueraded flows, and clients of published ports.

use super::{
    Workspace, answer, closed_port,
    direct::{Direct, direct},
    generation, icmp_error, is_loopback, is_nobody, leave, may_open,
    published::{is_translatable, published},
    with_flow,
};
use crate::{
    abi::{FlowKind, Origin, PathCount},
    conntrack::{NewFlow, Way},
    drop::DropReason,
    forward::{Fate, Verdict},
    nat::cone,
    packet::Packet,
    parse::{Headers, Transport},
    policy,
    tables::{Arrival, Published, Tables},
};

/// Carries a packet that came in by an uplink.
///
/// `work` is memory to work in; what it holds doesn't matter.
#[inline(always)]
pub fn from_wire<T: Tables>(packet: &mut impl Packet, tables: &mut T, work: &mut Workspace, arrival: &Arrival) -> Fate {
    let fate = with_flow(packet, tables, work, arrival, unknown);
    answer::to_wire(packet, tables, &work.headers, arrival, fate)
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
    if closed_port::was_refused(tables, headers, arrival) {
        return closed_port::REFUSED;
    }
    if headers.transport == Transport::IcmpError {
        let fate = icmp_error::icmp_error(packet, tables, headers, arrival);
        if fate.is_decided() {
            return fate;
        }
    }
    if headers.transport == Transport::Unknown && tables.is_host_address(headers.key.destination) {
        return Fate::held();
    }
    let fate = Fate::from(try_unknown(tables, headers, flow, arrival));
    if fate == HOSTS {
        let refused = closed_port::at_tc(tables, headers, arrival);
        return if refused.is_decided() { refused } else { fate };
    }
    fate
}

/// The packet is the host's.
const HOSTS: Fate = Fate::forwarded(Verdict::kernel(PathCount::ToKernel));

#[inline(always)]
fn try_unknown<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    let kernel = Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    if is_loopback(headers.key.source) || is_loopback(headers.key.destination) {
        // A port published on 127.0.0.1 is the host's own only, whatever net.ipv4.conf.*.route_localnet says.
        return Err(DropReason::LoopbackFromWire);
    }
    if tables.endpoint(headers.key.source).is_some() {
        return Err(DropReason::SpoofedSource);
    }
    // An ICMP error that quotes no flow is about the host's own packets.
    let mut target = Published { address: [0; 4], port: [0; 2], reserved: [0; 2] };
    // Both numbers come out of maps: the verifier, who doesn't know them, goes through what follows once.
    let kind = if let Some(endpoint) = tables.endpoint(headers.key.destination) {
        match direct(tables, headers, &endpoint, arrival.ifindex) {
            Direct::Closed => return Err(DropReason::DirectToContainer),
            Direct::Kernel => return kernel,
            Direct::Open => {}
        }
        target = Published { address: headers.key.destination, port: headers.key.destination_port, reserved: [0; 2] };
        FlowKind::Routed as u8 | endpoint.reserved
    } else if let Some(published) = published(tables, headers) {
        target = published;
        FlowKind::Published as u8 | published.reserved[0]
    } else {
        cone::find(tables, headers, arrival.now_ns, &mut target)
    };
    if kind == 0 {
        // The host's stack doesn't believe in packets from its own addresses or a group's either, but for those of DHCP.
        return kernel;
    }
    if is_nobody(headers.key.source) || tables.is_host_address(headers.key.source) {
        return Err(DropReason::SpoofedSource);
    }
    policy::permit(tables, headers, target.address, Origin::Wire)?;
    flow.begin(kind, &headers.key);
    describe_published(tables, headers, &target, arrival, flow)
}

/// World to container: a flow to the endpoint behind a published port or a cone. The client's address stays.
#[inline(always)]
fn describe_published<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    published: &Published,
    arrival: &Arrival,
    flow: &mut NewFlow,
) -> Result<Option<Verdict>, DropReason> {
    if headers.ttl <= 1 {
        // It ends here and begins nothing.
        if flow.kind == FlowKind::Routed as u8 {
            return Ok(Some(Verdict::kernel(PathCount::KernelAnswers)));
        }
        return leave(tables.config().mode(), PathCount::KernelAnswers, DropReason::TtlExpired).map(Some);
    }
    if let Some(verdict) = may_open(tables, headers, arrival)? {
        return Ok(Some(verdict));
    }
    if !is_translatable(headers, published) {
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::UnsupportedProtocol).map(Some);
    }
    let (Some(endpoint), Some(uplink)) = (tables.endpoint(published.address), tables.uplink(arrival.ifindex)) else {
        return leave(tables.config().mode(), PathCount::ToKernel, DropReason::HopGone).map(Some);
    };
    flow.network = endpoint.network;
    flow.translated.destination = published.address;
    flow.translated.destination_port = published.port;
    flow.original = Way { hop: endpoint.hop, hop_generation: generation(tables, endpoint.hop), ingress_ifindex: 0 };
    flow.reply =
        Way { hop: uplink.hop, hop_generation: generation(tables, uplink.hop), ingress_ifindex: endpoint.ifindex };
    Ok(None)
}
