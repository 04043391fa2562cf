//! What turns a TCP connection: SYN, FIN and RST, and a packet that shows that a reset wasn't believed.
//!
//! A close or a reset counts only when its sequence number lies between what the other side has acknowledged and what
//! this side has sent: somebody who doesn't see the connection can't end it here (RFC 5961 has the ends do the same). No
//! packet is dropped for its sequence number: the receiver judges better, and a dropped or untranslated segment is what
//! cuts connections.

use super::state::{PairState, Shown, is_before, pair_state};
use crate::{
    abi::{Direction, Flow, Seen},
    parse::{Headers, Transport},
    tables::{Arrival, Tables},
    wire::{protocol, tcp},
};

/// By how much a FIN may be ahead of what was seen: segments before it may have been lost on their way here.
const LOST_MAX: u32 = 1 << 20;

/// Whether a TCP packet asks for a new connection: SYN and nothing that answers or ends one.
#[inline(always)]
#[must_use]
pub const fn opens(flags: u8) -> bool {
    flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether a packet may turn its connection.
#[inline(always)]
#[must_use]
pub const fn turns(headers: &Headers, flow: &Flow) -> bool {
    match headers.transport {
        Transport::Tcp { flags } => flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 || flow.seen & Seen::PEER_RST != 0,
        _ => false,
    }
}

/// Notes what a packet that [`turns`] its connection has shown. Gives whether the flow goes on: a SYN against the flow's
/// direction, when both sides know that it is closed, belongs to another connection.
#[inline(never)]
pub fn turn<T: Tables>(tables: &mut T, entry: T::Entry, headers: &Headers, arrival: &Arrival) -> bool {
    let Transport::Tcp { flags } = headers.transport else { return true };
    let own = tables.load(entry);
    let Some(other_entry) = tables.flow(&own.reply_key(headers.key.protocol)) else { return true };
    let other = tables.load(other_entry);
    let (own_side, other_side) = (Shown::of(&own), Shown::of(&other));
    if flags & tcp::RST != 0 {
        if is_plausible_reset(&own_side, &other_side, headers, flags) {
            tables.touch(entry, arrival.now_ns, own.seen | Seen::PACKET | Seen::RST);
            tables.touch(other_entry, other.last_seen_ns, other.seen | Seen::PEER_RST);
        }
        return true;
    }
    if own.seen & Seen::PEER_RST != 0 {
        // Who goes on talking didn't believe the reset.
        tables.touch(entry, arrival.now_ns, own.seen & !Seen::PEER_RST);
        tables.touch(other_entry, other.last_seen_ns, other.seen & !Seen::RST);
    }
    if flags & tcp::SYN != 0 {
        return syn(tables, entry, other_entry, headers, arrival);
    }
    if flags & tcp::FIN != 0 && is_plausible_close(&own_side, &other_side, headers.sequence) {
        let seen = tables.load(entry).seen;
        tables.touch(entry, arrival.now_ns, seen | Seen::PACKET | Seen::FIN);
    }
    true
}

/// A SYN, or the answer to one. See [`turn`].
#[inline(always)]
fn syn<T: Tables>(
    tables: &mut T,
    entry: T::Entry,
    other_entry: T::Entry,
    headers: &Headers,
    arrival: &Arrival,
) -> bool {
    let Transport::Tcp { flags } = headers.transport else { return true };
    let own = tables.load(entry);
    let other = tables.load(other_entry);
    let has_ended = (own.seen | other.seen) & (Seen::FIN | Seen::RST) != 0;
    if opens(flags) && has_ended {
        if own.direction() == Direction::Reply {
            return pair_state(protocol::TCP, &Shown::of(&other), &Shown::of(&own)) != PairState::TimeWait;
        }
        // A new connection with the same mapping (RFC 6191; nf_conntrack does the same).
        tables.touch(other_entry, arrival.now_ns, 0);
        tables.follow(other_entry, 0, 0);
        tables.touch(entry, arrival.now_ns, Seen::PACKET | Seen::SYN);
        tables.follow(entry, headers.sequence_end(), 0);
        return true;
    }
    if own.seen & other.seen & Seen::ACK != 0 {
        // Open already: the ends sort it out among themselves (challenge ACK, RFC 5961, section 4).
        return true;
    }
    let acknowledged = if flags & tcp::ACK != 0 { headers.acknowledgement } else { 0 };
    tables.touch(entry, arrival.now_ns, own.seen | Seen::PACKET | Seen::SYN);
    tables.follow(entry, headers.sequence_end(), acknowledged);
    true
}

/// Whether the receiver may believe a reset.
#[inline(always)]
const fn is_plausible_reset(own: &Shown, other: &Shown, headers: &Headers, flags: u8) -> bool {
    if own.seen == 0 {
        // Refused: nothing but the acknowledgement tells it (RFC 9293, section 3.5.3).
        return flags & tcp::ACK != 0 && headers.acknowledgement == other.sequence_end;
    }
    is_between(own, other, headers.sequence, 0)
}

#[inline(always)]
const fn is_plausible_close(own: &Shown, other: &Shown, sequence: u32) -> bool {
    is_between(own, other, sequence, LOST_MAX)
}

/// Whether a sequence number lies between what the other side has acknowledged and what this side has sent.
#[inline(always)]
const fn is_between(own: &Shown, other: &Shown, sequence: u32, ahead_max: u32) -> bool {
    let first = if other.seen & Seen::ACK != 0 { other.acknowledged } else { own.sequence_end };
    !is_before(sequence, first) && !is_before(own.sequence_end.wrapping_add(ahead_max), sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn side(seen: u8, sequence_end: u32, acknowledged: u32) -> Shown {
        Shown { seen, sequence_end, acknowledged }
    }

    #[test]
    fn a_reset_counts_only_where_the_receiver_waits_or_the_sender_is() {
        let open = Seen::PACKET | Seen::SYN | Seen::ACK;
        let rows = [
            ("what the other waits for", 1000, true),
            ("behind data under way", 1500, true),
            ("between", 1200, true),
            ("old", 999, false),
            ("not sent yet", 1501, false),
            ("far away", 1_u32.wrapping_sub(1 << 30), false),
        ];
        for (description, sequence, expected) in rows {
            let headers = Headers { sequence, ..Headers::EMPTY };
            let own = side(open, 1500, 7);
            let other = side(open, 7, 1000);
            assert_eq!(is_plausible_reset(&own, &other, &headers, tcp::RST), expected, "{description}");
        }
    }

    #[test]
    fn a_refusal_must_acknowledge_the_syn() {
        let other = side(Seen::PACKET | Seen::SYN, 501, 0);
        for (acknowledgement, flags, expected) in
            [(501, tcp::RST | tcp::ACK, true), (501, tcp::RST, false), (500, tcp::RST | tcp::ACK, false)]
        {
            let headers = Headers { acknowledgement, ..Headers::EMPTY };
            assert_eq!(is_plausible_reset(&Shown::default(), &other, &headers, flags), expected);
        }
    }
}
