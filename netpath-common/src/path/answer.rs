//! Who is told that a packet was dropped: its sender, by an ICMP error in the packet's place, where that ends a wait.

use crate::{
    drop::DropReason,
    forward::Fate,
    nat::answer::{Told, answer, may_be_told},
    packet::Packet,
    parse::Headers,
    tables::{Arrival, Route, RouteQuery, Tables},
};

const EXPIRED: Fate = Fate::dropped(DropReason::TtlExpired);
const NO_PORT: Fate = Fate::dropped(DropReason::PortsExhausted);
const NO_ROOM: Fate = Fate::dropped(DropReason::FlowTableFull);
const TOO_BIG: Fate = Fate::dropped(DropReason::TooBig);

/// Tells a container, from its gateway, that its flow can't be opened, that its packet's time is over, or that it must send
/// smaller ones.
#[inline(always)]
pub(super) fn to_container<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
    fate: Fate,
) -> Fate {
    // Constants, where one number would do: the verifier goes through what follows for each value that it doesn't know.
    let (reason, told) = if fate == NO_PORT {
        (DropReason::PortsExhausted, Told::PROHIBITED)
    } else if fate == NO_ROOM {
        (DropReason::FlowTableFull, Told::PROHIBITED)
    } else if fate == EXPIRED {
        (DropReason::TtlExpired, Told::TIME_EXCEEDED)
    } else if fate == TOO_BIG {
        let mtu = mtu_towards(tables, headers) as u16;
        if mtu == 0 {
            return fate;
        }
        (DropReason::TooBig, Told::too_big(mtu))
    } else {
        return fate;
    };
    let gateway = match tables.endpoint(headers.key.source) {
        Some(source) if source.gateway != [0; 4] => source.gateway,
        _ => return fate,
    };
    if !may_be_told(packet, headers)
        || !tables.may_answer(arrival.now_ns)
        || answer(packet, headers, gateway, told).is_err()
    {
        return fate;
    }
    Fate::answered_into(reason, arrival.ifindex)
}

/// The largest IPv4 packet for the uplink towards a container's destination; 0: there is none.
#[inline(never)]
fn mtu_towards<T: Tables>(tables: &T, headers: &Headers) -> u32 {
    let Some(source) = tables.endpoint(headers.key.source) else { return 0 };
    let Route::Via { ifindex, .. } = tables.route(&RouteQuery::of(headers, source.bridge_ifindex)) else { return 0 };
    let Some(uplink) = tables.uplink(ifindex) else { return 0 };
    tables.hop(uplink.hop).map_or(0, |hop| hop.mtu)
}

/// Tells a machine of the world that its packet's time is over, from the address that it had sent it to, which is one of the
/// host's or stands for a container. The answer goes back to the router that brought the packet.
#[inline(always)]
pub(super) fn to_wire<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
    fate: Fate,
) -> Fate {
    if fate != EXPIRED
        || !may_be_told(packet, headers)
        || !tables.may_answer(arrival.now_ns)
        || answer(packet, headers, headers.key.destination, Told::TIME_EXCEEDED).is_err()
    {
        return fate;
    }
    Fate::answered_out(DropReason::TtlExpired, arrival.ifindex)
}
