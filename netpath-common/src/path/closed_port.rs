//! Datagrams to ports of the host that nobody listens on.
//!
//! The kernel answers some of them, with an ICMP error "port unreachable": one in a second to one sender, a thousand in
//! all (`net.ipv4.icmp_ratelimit`, `icmp_msgs_per_sec`). The others it drops without a word, after a long way. What it may
//! answer it gets here too, and more than that, of each sender; of the others nobody hears, so they are dropped at once.
//!
//! Nobody hears of them: no socket takes the tuple, no flow and no published port has it, and neither does any translation
//! of the kernel's. The last can't be asked for. So the daemon looks whether there are rules that translate, or others that
//! wait for packets without a socket, and allows it for some seconds only when there are none
//! ([`ClosedPorts`](crate::abi::ClosedPorts)). What remains are Docker's own rules, which translate what
//! containers' packets netpath leaves to the kernel: whom those are sent to is noted ([`note`]), and answers to connections
//! from before netpath are known as handed over.

use super::published::published;
use crate::{
    abi::{ConeKey, Mode, PathCount, Refusal, Sender},
    conntrack::{TOUCH_INTERVAL_NS, state::SECOND_NS},
    drop::DropReason,
    forward::{Fate, Forward},
    parse::{Fragment, Headers, Transport},
    tables::{Arrival, Tables},
    wire::protocol,
};

/// For how long somebody whom a container has asked by the kernel's way may answer: longer than any time that UDP flows of
/// nf_conntrack are usually given. Each answer prolongs it.
const ASKED_NS: u64 = 600 * SECOND_NS;
/// The ports of DHCP (RFC 2131, section 4.1): clients read what comes to theirs before they have a socket.
const DHCP: [[u8; 2]; 2] = [67_u16.to_be_bytes(), 68_u16.to_be_bytes()];

/// What becomes of a frame at XDP that no flow knows, and that wasn't refused just before. Undecided: it isn't such a
/// datagram, or the kernel gets it.
#[inline(always)]
pub(super) fn at_xdp<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    if !is_allowed(tables, headers, arrival.now_ns) {
        return Fate::UNDECIDED;
    }
    let fate = asked_at_xdp(tables, headers, arrival);
    remember(tables, headers, arrival, fate);
    fate
}

/// [`is_repeated`], as a function of its own for the sake of the BPF stack.
#[inline(never)]
pub(super) fn was_refused<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> bool {
    is_repeated(tables, headers, arrival)
}

/// Whether a datagram was refused a moment ago: a flood repeats itself, and for some milliseconds nothing has to be asked
/// anew, not even whether there is a flow: who opens one that waits for such datagrams has the refusal forgotten
/// ([`crate::conntrack::open`]).
#[inline(always)]
pub(super) fn is_repeated<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> bool {
    if !is_allowed(tables, headers, arrival.now_ns) {
        return false;
    }
    let (place, refusal) = Refusal::of(tables.config().port_seed, &headers.key, arrival.now_ns);
    refusal.repeats(tables.refusal(place))
}

/// Notes what was decided.
#[inline(always)]
fn remember<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival, fate: Fate) {
    let (place, refusal) = Refusal::of(tables.config().port_seed, &headers.key, arrival.now_ns);
    if fate == REFUSED {
        tables.set_refusal(place, refusal);
    } else if tables.refusal(place).0 != 0 {
        // So that none is ever taken for one of today when the count of the time comes round.
        tables.set_refusal(place, Refusal(0));
    }
}

/// The port is closed.
pub(super) const REFUSED: Fate = Fate::dropped(DropReason::PortClosed);

#[inline(always)]
fn asked_at_xdp<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    if published(tables, headers).is_some() {
        return Fate::UNDECIDED;
    }
    if tables.config().cone_timeout_s != 0 && tables.cone(&ConeKey::of_destination(&headers.key)).is_some() {
        // Whether it is somebody's cone, tc finds out.
        return Fate::UNDECIDED;
    }
    refuse(tables, headers, arrival)
}

/// The same at tc, where it is known that nothing is published, no cone open, and nothing was refused just before.
#[inline(always)]
pub(super) fn at_tc<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    if !is_allowed(tables, headers, arrival.now_ns) {
        return Fate::UNDECIDED;
    }
    let fate = refuse(tables, headers, arrival);
    remember(tables, headers, arrival, fate);
    fate
}

/// Whether the packet is a datagram of the kind, and may be dropped as far as the daemon knows.
#[inline(always)]
fn is_allowed<T: Tables>(tables: &T, headers: &Headers, now_ns: u64) -> bool {
    headers.transport == Transport::Udp
        && headers.fragment == Fragment::Whole
        && !DHCP.contains(&headers.key.destination_port)
        && tables.closed_ports().is_some_and(|closed| now_ns < closed.until_ns)
        && tables.config().opens_flows != 0
}

/// Drops the datagram if the port is closed and the kernel has had its share. A function of its own for the sake of the
/// BPF stack.
#[inline(never)]
fn refuse<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival) -> Fate {
    let key = &headers.key;
    if !tables.is_host_address(key.destination) {
        return Fate::UNDECIDED;
    }
    let places = Sender::places(tables.config().port_seed, key.source);
    let sender = tables.sender(places[0]);
    let answers_for_ns = arrival.now_ns.saturating_sub(sender.asked_at_ns);
    if sender.asked_at_ns != 0 && answers_for_ns < ASKED_NS {
        if answers_for_ns >= TOUCH_INTERVAL_NS {
            tables.ask_sender(places[0], arrival.now_ns);
        }
        return Fate::UNDECIDED;
    }
    // Of connections that the kernel has from before, also alone: others than Docker may have begun them.
    if tables.is_handed_over(key, arrival.now_ns) || tables.host_socket_takes(key) {
        return Fate::UNDECIDED;
    }
    if has_share(tables, places, arrival.now_ns) {
        return Fate::UNDECIDED;
    }
    REFUSED
}

/// Whether the kernel gets one more of this sender, and one more at all; if so, it does.
///
/// A sender has two places that he shares with others by chance, and is out of luck only when both are used up: so a flood
/// from one address doesn't take the answers of another.
#[inline(always)]
fn has_share<T: Tables>(tables: &mut T, places: [u32; 2], now_ns: u64) -> bool {
    let Some(closed) = tables.closed_ports() else { return true };
    let (of_sender, of_all) = (closed.sender, closed.all);
    let mut number = 0;
    while number < places.len() {
        let mut full_at_ns = tables.sender(places[number]).full_at_ns;
        if of_sender.spend(&mut full_at_ns, now_ns) {
            tables.spend_of_sender(places[number], full_at_ns);
            return tables.may_ask_kernel(&of_all, now_ns);
        }
        number += 1;
    }
    false
}

/// Notes whom a container sends a datagram to that is left to the kernel, whose rules (Docker's) may translate it: the
/// answers find no socket, and must not be dropped for that. Gives the packet's fate.
#[inline(never)]
pub(super) fn note<T: Tables>(tables: &mut T, headers: &Headers, arrival: &Arrival, fate: Fate) -> Fate {
    let is_kernels = fate.forward() == Some(Forward::Kernel) && fate.counter() != PathCount::ContainerToHost as u32;
    if is_kernels && headers.key.protocol == protocol::UDP && tables.config().mode() == Mode::Takeover {
        let [place, _] = Sender::places(tables.config().port_seed, headers.key.destination);
        if arrival.now_ns.saturating_sub(tables.sender(place).asked_at_ns) >= TOUCH_INTERVAL_NS {
            tables.ask_sender(place, arrival.now_ns);
        }
    }
    fate
}
