//! What the host itself sends to the world, as it leaves by an uplink.
//!
//! It has a tuple of its own choice, which may be one that a container's flow has been given before: the kernel knows
//! nothing of that, and the answers would be taken for the container's. Then the host's flow gets another source port, as
//! netfilter's null binding gives it one (net/netfilter/nf_nat_core.c), and its answers are translated back before the
//! host's stack sees them. All else goes on untouched: this is the way of every packet of the host's own.
//!
//! Not of those to published ports: the host's sockets are led there when they connect ([`super::from_socket`]), and those that
//! can't be by the loopback interface ([`super::bound_to_loopback`]).

use super::{HOST_IFINDEX, Workspace, generation, icmp_error, known_flow};
use crate::{
    abi::{Direction, FlowKind, PathCount},
    conntrack::{NewFlow, Way, has_ended, open, opens},
    drop::DropReason,
    forward::{Fate, Verdict},
    packet::Packet,
    parse::{Fragment, Headers, NetworkLayer, Transport, parse},
    tables::{Arrival, Tables},
};

/// Looks at a packet of the host's own that leaves by the uplink `arrival.ifindex`. Undecided: it is not netpath's.
///
/// `work` is memory to work in; what it holds doesn't matter.
#[inline(always)]
pub fn from_host_to_wire<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    work: &mut Workspace,
    arrival: &Arrival,
) -> Fate {
    let Workspace { headers, flow, next_hop } = work;
    // A later fragment has no port to change, and what is malformed the host may send all the same.
    if parse(packet, headers) != Ok(NetworkLayer::Ipv4) || headers.fragment == Fragment::Later {
        return Fate::UNDECIDED;
    }
    let origin = Arrival { ifindex: HOST_IFINDEX, now_ns: arrival.now_ns };
    if headers.transport == Transport::IcmpError {
        return about_own_flow(packet, tables, headers, &origin);
    }
    let fate = known_flow(packet, tables, headers, &origin, next_hop);
    if fate.is_decided() {
        return fate;
    }
    if !is_taken(tables, headers, arrival.now_ns) {
        return Fate::UNDECIDED;
    }
    let fate = avoid_clash(tables, headers, flow, arrival);
    if fate.is_decided() { fate } else { known_flow(packet, tables, headers, &origin, next_hop) }
}

/// An error of the host's about what it was sent: it quotes the host's own port, of which the world knows nothing.
#[inline(always)]
fn about_own_flow<T: Tables>(packet: &mut impl Packet, tables: &mut T, headers: &Headers, origin: &Arrival) -> Fate {
    const TRANSLATED: Fate = Fate::forwarded(Verdict::kernel(PathCount::IcmpError));
    let fate = icmp_error::icmp_error(packet, tables, headers, origin);
    // One that quotes nothing of netpath's is the host's own business.
    if fate == TRANSLATED { fate } else { Fate::UNDECIDED }
}

/// Whether the answers to the packet would be taken for those of another flow.
#[inline(always)]
fn is_taken<T: Tables>(tables: &T, headers: &Headers, now_ns: u64) -> bool {
    let may_open = match headers.transport {
        // A connection that is there was there first: no container is given its tuple.
        Transport::Tcp { flags } => opens(flags),
        Transport::Udp | Transport::EchoRequest => true,
        _ => false,
    };
    if !may_open {
        return false;
    }
    let reply_key = headers.key.reversed();
    let Some(holder) = tables.flow(&reply_key) else { return false };
    // The original direction is a client's of a published port, whom the host may answer by docker-proxy.
    tables.load(holder).direction() == Direction::Reply && !has_ended(tables, holder, reply_key.protocol, now_ns)
}

/// Opens a flow with another source port for a packet whose own is taken. Undecided: the packet belongs to it now.
#[inline(never)]
fn avoid_clash<T: Tables>(tables: &mut T, headers: &Headers, flow: &mut NewFlow, arrival: &Arrival) -> Fate {
    Fate::from(try_avoid_clash(tables, headers, flow, arrival))
}

#[inline(always)]
fn try_avoid_clash<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    flow: &mut NewFlow,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    if tables.config().opens_flows == 0 {
        return Ok(Some(Verdict::kernel(PathCount::Handover)));
    }
    let Some(uplink) = tables.uplink(arrival.ifindex) else {
        return Ok(Some(Verdict::kernel(PathCount::ToKernel)));
    };
    flow.begin(FlowKind::Host as u8, &headers.key);
    let hop_generation = generation(tables, uplink.hop);
    flow.original = Way { hop: uplink.hop, hop_generation, ingress_ifindex: HOST_IFINDEX };
    flow.reply = Way { ingress_ifindex: 0, ..flow.original };
    open(tables, headers, flow, arrival)?;
    Ok(None)
}
