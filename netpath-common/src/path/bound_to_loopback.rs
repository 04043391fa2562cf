//! Sockets of the host that are bound to 127.0.0.0/8 on their way to a published port, in sole mode.
//!
//! Such a socket can't be led to the container when it connects ([`super::from_socket`]): the kernel sends nothing with its
//! address out of another interface, and lets no program bind it anew. Its packets leave by the loopback interface. There
//! they are translated, the source to the gateway that the container knows, and sent into the container; the answers come in
//! by the loopback interface as if the host had given them itself. In takeover docker-proxy serves these sockets, or Docker's
//! rules do.
//!
//! By the same interface the kernel sends itself the ICMP errors about packets that it couldn't deliver and that it takes for the
//! host's, because containers' packets reach it translated. Those are brought to the containers, in both modes.
//!
//! [`super::from_host_to_wire`] looks at the host's own packets too, where they leave by an uplink. There nearly all pass
//! untouched, and a flow is opened only to get out of another one's way; here a flow is what brings a packet anywhere at all.

use super::{HOST_IFINDEX, Workspace, from_socket, generation, icmp_error, is_loopback, known_flow};
use crate::{
    abi::{Asked, FlowKind, Mode, PathCount},
    conntrack::{NewFlow, Way, open, opens},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    packet::Packet,
    parse::{Fragment, Headers, NetworkLayer, Transport, parse},
    tables::{Arrival, Tables},
};

/// Carries a packet of the host's own that leaves by the loopback interface. Undecided: it is not netpath's.
///
/// `work` is memory to work in; what it holds doesn't matter.
#[inline(always)]
pub fn bound_to_loopback<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    work: &mut Workspace,
    now_ns: u64,
) -> Fate {
    let Workspace { headers, flow, next_hop } = work;
    if parse(packet, headers) != Ok(NetworkLayer::Ipv4) {
        return Fate::UNDECIDED;
    }
    if headers.transport == Transport::IcmpError {
        return about_translated(packet, tables, headers, now_ns);
    }
    if tables.config().mode() == Mode::Takeover {
        return Fate::UNDECIDED;
    }
    let may_open = match headers.transport {
        // A connection that is there already has another end than the container.
        Transport::Tcp { flags } => opens(flags),
        Transport::Udp => true,
        _ => return Fate::UNDECIDED,
    };
    if !is_loopback(headers.key.source) || headers.fragment != Fragment::Whole {
        return Fate::UNDECIDED;
    }
    let arrival = Arrival { ifindex: HOST_IFINDEX, now_ns };
    let fate = known_flow(packet, tables, headers, &arrival, next_hop);
    if fate.is_decided() || !may_open {
        return fate;
    }
    let fate = begin(tables, headers, flow, &arrival);
    if fate.is_decided() {
        return if fate == NOT_OURS { Fate::UNDECIDED } else { fate };
    }
    known_flow(packet, tables, headers, &arrival, next_hop)
}

/// An error of the kernel's about a packet that was given to it translated: its sender, it seems, is the host. It is for the
/// container.
#[inline(always)]
fn about_translated<T: Tables>(packet: &mut impl Packet, tables: &mut T, headers: &Headers, now_ns: u64) -> Fate {
    // Of no interface: flows that only a certain one may bring packets of can't be meant.
    let arrival = Arrival { ifindex: 0, now_ns };
    let fate = icmp_error::icmp_error(packet, tables, headers, &arrival);
    match fate.forward() {
        // One that quotes no packet of a container's is the host's own business.
        Some(Forward::Kernel) => Fate::UNDECIDED,
        _ => fate,
    }
}

/// The packet goes on untouched.
const NOT_OURS: Fate = Fate::forwarded(Verdict::kernel(PathCount::ToKernel));

/// Opens a flow for a packet that asks for a published port. Undecided: the packet belongs to it now.
#[inline(never)]
fn begin<T: Tables>(tables: &mut T, headers: &Headers, flow: &mut NewFlow, arrival: &Arrival) -> Fate {
    Fate::from(try_begin(tables, headers, flow, arrival))
}

#[inline(always)]
fn try_begin<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    const NOT_OURS: Result<Option<Verdict>, DropReason> = Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    let key = &headers.key;
    if tables.config().opens_flows == 0 {
        return NOT_OURS;
    }
    let asked = Asked::ipv4(key.destination, key.destination_port);
    let Some(published) = from_socket::published(tables, &asked, key.protocol) else { return NOT_OURS };
    let Some(endpoint) = tables.endpoint(published.address) else { return NOT_OURS };
    let Some(hop) = tables.hop(endpoint.hop) else { return NOT_OURS };
    if endpoint.gateway == [0; 4] {
        return NOT_OURS;
    }
    if headers.wire_len > hop.mtu {
        // The loopback interface takes 64 KiB at once, a container's veth doesn't, and there is nobody who fragments.
        return Err(DropReason::TooBig);
    }
    flow.begin(FlowKind::Loopback as u8, key);
    flow.network = endpoint.network;
    flow.translated.source = endpoint.gateway;
    flow.translated.destination = published.address;
    flow.translated.destination_port = published.port;
    let hop_generation = generation(tables, endpoint.hop);
    flow.original = Way { hop: endpoint.hop, hop_generation, ingress_ifindex: HOST_IFINDEX };
    flow.reply = Way { ingress_ifindex: endpoint.ifindex, ..flow.original };
    open(tables, headers, flow, arrival)?;
    Ok(None)
}
