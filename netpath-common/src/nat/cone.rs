//! Endpoint-independent mapping and filtering, "full cone" (RFC 4787, REQ-1 and REQ-8), for UDP of networks that ask for it.
//!
//! A cone gives one of the host's ports to one address and port of a container: every flow that the container opens from
//! there leaves by it, and whoever sends to it reaches the container. Cones are looked at only when a flow is opened; what
//! belongs to a flow passes as ever, and refreshes its cone when its own entry is written, about once a second.
//!
//! A port has one owner. While there are networks with cones, flows without one claim their ports too, all of them
//! together, so that a cone never clashes with somebody's flow towards one destination.

use crate::{
    abi::{Address, Cone, ConeKey, ConeOwner, Direction, Flow, FlowKey, FlowKind},
    conntrack::{NewFlow, TOUCH_INTERVAL_NS, state::SECOND_NS},
    parse::{Headers, Transport},
    tables::{Published, Tables},
    wire::protocol,
};
use bytemuck::Zeroable as _;

/// Gives a new flow the port of its container's cone, if there is one, so that it is tried first.
#[inline(never)]
pub fn prefer<T: Tables>(tables: &T, arrived: &FlowKey, translated: &mut FlowKey) -> bool {
    let port = tables.cone_port(&owner(arrived, translated.source));
    translated.source_port = port.unwrap_or(arrived.source_port);
    port.is_some()
}

#[inline(always)]
const fn owner(arrived: &FlowKey, outside: Address) -> ConeOwner {
    ConeOwner { address: arrived.source, outside, port: arrived.source_port, protocol: arrived.protocol, reserved: 0 }
}

/// Whether a flow may look closer at a port: nobody has it, or others that claim it as well. One that has ended counts
/// until it is collected.
#[inline(always)]
pub fn is_open_to<T: Tables>(tables: &T, translated: &FlowKey, full_cone: u8) -> bool {
    match tables.cone(&ConeKey::of_source(translated)) {
        Some(cone) => cone.kind | full_cone == 0,
        None => true,
    }
}

/// Takes the port that a flow has been given: for its container's cone, or claims it with others. Gives whether the flow
/// may have it.
#[inline(never)]
pub fn hold<T: Tables>(tables: &mut T, arrived: &FlowKey, new: &NewFlow, now_ns: u64) -> bool {
    if new.translated.protocol != protocol::UDP || tables.config().cone_timeout_s == 0 {
        return true;
    }
    let key = ConeKey::of_source(&new.translated);
    if let Some(cone) = tables.cone(&key) {
        if is_in_force(tables, &cone, now_ns) {
            tables.touch_cone(&key, now_ns);
            return if new.full_cone == 0 {
                cone.is_shared()
            } else {
                cone.address == arrived.source && cone.port == arrived.source_port
            };
        }
        forget(tables, &key, &cone);
    }
    take(tables, arrived, new, &key, now_ns)
}

/// Takes a port that nobody has. Gives whether nobody else was faster. A frame of its own for the sake of the BPF stack.
#[inline(never)]
fn take<T: Tables>(tables: &mut T, arrived: &FlowKey, new: &NewFlow, key: &ConeKey, now_ns: u64) -> bool {
    let mut cone = Cone { last_seen_ns: now_ns, ..Cone::zeroed() };
    if new.full_cone != 0 {
        cone.address = arrived.source;
        cone.port = arrived.source_port;
        cone.hop = new.reply.hop;
        cone.hop_generation = new.reply.hop_generation;
        cone.kind = FlowKind::Cone as u8;
        tables.set_cone_port(&owner(arrived, key.address), key.port);
    }
    tables.insert_cone(key, &cone).is_ok()
}

/// The container's address and port that a datagram from outside reaches by a cone. Gives the number of [`FlowKind::Cone`],
/// or 0 when there is none.
///
/// What a socket of the host waits for is the host's.
#[inline(never)]
pub fn find<T: Tables>(tables: &T, headers: &Headers, now_ns: u64, target: &mut Published) -> u8 {
    if headers.transport != Transport::Udp || tables.config().cone_timeout_s == 0 {
        return 0;
    }
    let Some(cone) = tables.cone(&ConeKey::of_destination(&headers.key)) else { return 0 };
    if cone.is_shared() || !is_in_force(tables, &cone, now_ns) {
        return 0;
    }
    if tables.endpoint(cone.address).is_none_or(|endpoint| endpoint.full_cone == 0) {
        return 0;
    }
    if tables.host_socket_takes(&headers.key) {
        return 0;
    }
    target.address = cone.address;
    target.port = cone.port;
    cone.kind
}

/// Keeps the port of a flow alive with it. Packets from the world do so only where they may (RFC 4787, REQ-6).
#[inline(never)]
pub fn refresh<T: Tables>(tables: &mut T, flow: &Flow, key: &FlowKey, now_ns: u64) -> bool {
    if tables.config().cone_timeout_s == 0 {
        return false;
    }
    let outside = match (flow.kind(), flow.direction()) {
        (FlowKind::Masquerade | FlowKind::Loopback, Direction::Original)
        | (FlowKind::Cone, Direction::Reply)
        | (FlowKind::Hairpin, _) => {
            ConeKey { address: flow.source, port: flow.source_port, protocol: key.protocol, reserved: 0 }
        }
        _ if tables.config().inbound_refresh != 0 => ConeKey::of_destination(key),
        _ => return false,
    };
    tables.touch_cone(&outside, now_ns);
    true
}

/// Removes a cone that has ended, or a claim: the collector's step for one key. Gives whether it was removed.
#[inline(always)]
pub fn collect<T: Tables>(tables: &mut T, key: &ConeKey, now_ns: u64) -> bool {
    match tables.cone(key) {
        Some(cone) if !is_in_force(tables, &cone, now_ns) => {
            forget(tables, key, &cone);
            true
        }
        _ => false,
    }
}

/// Removes what holds a port, and the way to it from inside.
#[inline(never)]
fn forget<T: Tables>(tables: &mut T, key: &ConeKey, cone: &Cone) -> bool {
    tables.remove_cone(key);
    let owner = cone.owner(key);
    let leads_here = tables.cone_port(&owner) == Some(key.port);
    if leads_here {
        tables.remove_cone_port(&owner);
    }
    leads_here
}

/// Whether a cone or a claim holds its port: its container is still there, and it was refreshed within its time.
#[inline(always)]
fn is_in_force<T: Tables>(tables: &T, cone: &Cone, now_ns: u64) -> bool {
    // Its last packet may have come up to an interval later than is written.
    let timeout_ns = u64::from(tables.config().cone_timeout_s) * SECOND_NS + TOUCH_INTERVAL_NS;
    if now_ns.saturating_sub(cone.last_seen_ns) >= timeout_ns {
        return false;
    }
    cone.is_shared() || tables.hop(cone.hop).is_some_and(|hop| hop.generation == cone.hop_generation)
}
