//! What a flow is doing, seen from both directions, and how long it may be silent.
//!
//! States and timeouts are nf_conntrack's (net/netfilter/nf_conntrack_proto_{tcp,udp,icmp,generic}.c, kernel 6.18). They
//! are read off what each direction has shown, so a packet never writes into the other direction's entry to say so.

use crate::{
    abi::{Flow, Seen},
    counted::counted,
    wire::protocol,
};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

counted! {
    /// What a pair of entries is doing. The number is the index in the map `TIMEOUTS`, the name what `ct ls` shows, for
    /// TCP conntrack's.
    PairState:

    /// TCP: asked for, not answered.
    SynSent = 0, "SYN_SENT";
    /// TCP: answered, not confirmed.
    SynReceived = 1, "SYN_RECV";
    /// TCP: open.
    Established = 2, "ESTABLISHED";
    /// TCP: one side has closed.
    FinWait = 3, "FIN_WAIT";
    /// TCP: one side has closed, and the other knows.
    CloseWait = 4, "CLOSE_WAIT";
    /// TCP: both sides have closed.
    LastAck = 5, "LAST_ACK";
    /// TCP: both sides have closed, and both know.
    TimeWait = 6, "TIME_WAIT";
    /// TCP: reset.
    Close = 7, "CLOSE";
    /// UDP: no answer so far.
    UdpUnreplied = 8, "UNREPLIED";
    /// UDP: answered.
    UdpReplied = 9, "REPLIED";
    /// UDP: answered, and more than one exchange.
    UdpStream = 10, "STREAM";
    /// ICMP echo.
    Echo = 11, "ECHO";
    /// Another protocol: no answer so far.
    OtherUnreplied = 12, "UNREPLIED";
    /// Another protocol: answered.
    OtherReplied = 13, "REPLIED";
}

impl PairState {
    /// Slots of the map of timeouts: more than states, so that a later version can add some to a pinned map.
    pub const SLOTS: u32 = 32;

    /// How long the pair may be silent, in seconds, unless the map of timeouts says otherwise: nf_conntrack's defaults.
    #[inline(always)]
    #[must_use]
    pub const fn default_timeout_s(self) -> u32 {
        match self {
            Self::Established => 5 * 24 * 3600,
            Self::OtherUnreplied | Self::OtherReplied => 600,
            Self::SynSent | Self::FinWait | Self::TimeWait | Self::UdpStream => 120,
            Self::SynReceived | Self::CloseWait => 60,
            Self::LastAck | Self::UdpUnreplied | Self::UdpReplied | Self::Echo => 30,
            Self::Close => 10,
        }
    }

    /// Whether a pair in this state may give way to a new one: it is half open, closed, or nobody has answered.
    #[inline(always)]
    #[must_use]
    pub const fn is_expendable(self) -> bool {
        match self {
            Self::SynSent
            | Self::SynReceived
            | Self::LastAck
            | Self::TimeWait
            | Self::Close
            | Self::UdpUnreplied
            | Self::Echo
            | Self::OtherUnreplied => true,
            Self::Established
            | Self::FinWait
            | Self::CloseWait
            | Self::UdpReplied
            | Self::UdpStream
            | Self::OtherReplied => false,
        }
    }

    /// Whether a pair in this state may make room for a new one when the table is full, though not for the sake of a
    /// port: it is expendable, or a question that has had its answer. Otherwise questions with forged senders would fill
    /// the table by way of any server that answers. As with nf_conntrack, whose entry stands safe ("assured") once the
    /// conversation is a stream.
    #[inline(always)]
    #[must_use]
    pub const fn may_make_room(self) -> bool {
        self.is_expendable() || matches!(self, Self::UdpReplied)
    }
}

const _: () = assert!(PairState::ALL.len() <= PairState::SLOTS as usize, "every state has a timeout");

/// What one direction has shown: of a [`Flow`], the part that makes the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// Bits of [`Seen`].
    pub seen: u8,
    /// [`Flow::sequence_end`].
    pub sequence_end: u32,
    /// [`Flow::acknowledged`].
    pub acknowledged: u32,
}

impl Shown {
    /// What a direction has shown.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow) -> Self {
        Self { seen: flow.seen, sequence_end: flow.sequence_end, acknowledged: flow.acknowledged }
    }

    #[inline(always)]
    const fn has(&self, bits: u8) -> bool {
        self.seen & bits != 0
    }

    /// Whether `other` has acknowledged all that this direction has sent.
    #[inline(always)]
    const fn is_known_to(&self, other: &Self) -> bool {
        !is_before(other.acknowledged, self.sequence_end)
    }
}

/// Whether one sequence number comes before another, in TCP's circular arithmetic (RFC 9293, section 3.4).
#[inline(always)]
#[must_use]
pub const fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The state of a pair, from what each direction has shown.
#[inline(always)]
#[must_use]
pub const fn pair_state(protocol: u8, original: &Shown, reply: &Shown) -> PairState {
    let is_replied = reply.seen != 0;
    match protocol {
        protocol::TCP => tcp_state(original, reply),
        protocol::UDP if !is_replied => PairState::UdpUnreplied,
        protocol::UDP if (original.seen | reply.seen) & Seen::STREAM != 0 => PairState::UdpStream,
        protocol::UDP => PairState::UdpReplied,
        protocol::ICMP => PairState::Echo,
        _ if is_replied => PairState::OtherReplied,
        _ => PairState::OtherUnreplied,
    }
}

/// The states that a pair may be in, as far as one of its directions tells by its bits of [`Seen`]: what a look at one
/// entry alone must reckon with.
#[must_use]
pub const fn possible_states(protocol: u8, seen: u8) -> &'static [PairState] {
    use PairState::{
        Close, CloseWait, Echo, Established, FinWait, LastAck, OtherReplied, OtherUnreplied, SynReceived, SynSent,
        TimeWait, UdpReplied, UdpStream, UdpUnreplied,
    };
    match protocol {
        protocol::TCP if seen & (Seen::RST | Seen::PEER_RST) != 0 => &[Close],
        protocol::TCP if seen & Seen::FIN != 0 => &[FinWait, CloseWait, LastAck, TimeWait],
        protocol::TCP if seen & Seen::ACK != 0 => &[SynSent, SynReceived, Established, FinWait, CloseWait],
        protocol::TCP => &[SynSent, SynReceived, Established, FinWait, CloseWait, Close],
        protocol::UDP => &[UdpUnreplied, UdpReplied, UdpStream],
        protocol::ICMP => &[Echo],
        _ => &[OtherUnreplied, OtherReplied],
    }
}

/// A reset ends whatever was; then come the closes; a connection picked up in mid-stream, without a SYN, is open as soon
/// as both sides have sent.
#[inline(always)]
const fn tcp_state(original: &Shown, reply: &Shown) -> PairState {
    if original.has(Seen::RST) || reply.has(Seen::RST) {
        return PairState::Close;
    }
    match (original.has(Seen::FIN), reply.has(Seen::FIN)) {
        (true, true) if original.is_known_to(reply) && reply.is_known_to(original) => return PairState::TimeWait,
        (true, true) => return PairState::LastAck,
        (true, false) if original.is_known_to(reply) => return PairState::CloseWait,
        (false, true) if reply.is_known_to(original) => return PairState::CloseWait,
        (true, false) | (false, true) => return PairState::FinWait,
        (false, false) => {}
    }
    if reply.seen == 0 {
        return PairState::SynSent;
    }
    if original.has(Seen::ACK) { PairState::Established } else { PairState::SynReceived }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = Seen::PACKET | Seen::SYN;
    const OPEN: u8 = Seen::PACKET | Seen::SYN | Seen::ACK;

    const fn shown(seen: u8, sequence_end: u32, acknowledged: u32) -> Shown {
        Shown { seen, sequence_end, acknowledged }
    }

    #[test]
    fn a_tcp_connection_goes_through_its_states() {
        let open = shown(OPEN, 1000, 2000);
        let open_back = shown(OPEN, 2000, 1000);
        let nothing = Shown::default();
        let rows = [
            ("syn", shown(SYN, 1, 0), nothing, PairState::SynSent),
            ("syn answered", shown(SYN, 1, 0), shown(OPEN, 1, 1), PairState::SynReceived),
            ("simultaneous open", shown(SYN, 1, 0), shown(SYN, 1, 0), PairState::SynReceived),
            ("handshake done", open, open_back, PairState::Established),
            ("opener closes", shown(OPEN | Seen::FIN, 1001, 2000), open_back, PairState::FinWait),
            ("the other knows", shown(OPEN | Seen::FIN, 1001, 2000), shown(OPEN, 2000, 1001), PairState::CloseWait),
            ("other side closes", open, shown(OPEN | Seen::FIN, 2001, 1000), PairState::FinWait),
            (
                "and the opener knows",
                shown(OPEN, 1000, 2001),
                shown(OPEN | Seen::FIN, 2001, 1000),
                PairState::CloseWait,
            ),
            (
                "both have closed",
                shown(OPEN | Seen::FIN, 1001, 2000),
                shown(OPEN | Seen::FIN, 2001, 1001),
                PairState::LastAck,
            ),
            (
                "both know",
                shown(OPEN | Seen::FIN, 1001, 2001),
                shown(OPEN | Seen::FIN, 2001, 1001),
                PairState::TimeWait,
            ),
            ("reset", open, shown(OPEN | Seen::RST, 2000, 1000), PairState::Close),
            ("refused", shown(SYN, 1, 0), shown(Seen::PACKET | Seen::RST | Seen::ACK, 0, 1), PairState::Close),
            ("picked up, one side so far", shown(Seen::PACKET | Seen::ACK, 1, 1), nothing, PairState::SynSent),
            (
                "picked up in mid-stream",
                shown(Seen::PACKET | Seen::ACK, 1, 1),
                shown(Seen::PACKET | Seen::ACK, 1, 1),
                PairState::Established,
            ),
        ];
        for (description, original, reply, expected) in rows {
            assert_eq!(pair_state(protocol::TCP, &original, &reply), expected, "{description}");
        }
    }

    #[test]
    fn udp_lives_longer_once_it_is_a_stream() {
        let state = |original, reply| pair_state(protocol::UDP, &shown(original, 0, 0), &shown(reply, 0, 0));
        assert_eq!(state(Seen::PACKET | Seen::STREAM, 0), PairState::UdpUnreplied);
        assert_eq!(state(Seen::PACKET, Seen::PACKET), PairState::UdpReplied);
        assert_eq!(state(Seen::PACKET, Seen::PACKET | Seen::STREAM), PairState::UdpStream);
        assert_eq!(state(Seen::PACKET | Seen::STREAM, Seen::PACKET), PairState::UdpStream);
    }

    #[test]
    fn what_one_direction_tells_leaves_the_pairs_state_possible() {
        let bits = [Seen::SYN, Seen::ACK, Seen::FIN, Seen::RST, Seen::AGED, Seen::STREAM];
        let all: Vec<u8> = (0..1 << bits.len())
            .map(|set: usize| {
                let chosen = bits.iter().enumerate().filter(|(index, _)| set >> index & 1 == 1);
                chosen.fold(0, |seen, (_, bit)| seen | bit)
            })
            .flat_map(|seen| [seen, seen | Seen::PACKET])
            .collect();
        for protocol in [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::SCTP] {
            for original in &all {
                for reply in &all {
                    // A reset is noted in both directions.
                    let of = |own: u8, other: u8| own | if other & Seen::RST != 0 { Seen::PEER_RST } else { 0 };
                    let (original, reply) = (of(*original, *reply), of(*reply, *original));
                    let state = pair_state(protocol, &shown(original, 5, 5), &shown(reply, 5, 5));
                    for seen in [original, reply] {
                        assert!(possible_states(protocol, seen).contains(&state), "{protocol} {seen:#x}: {state:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn sequence_numbers_are_a_circle() {
        assert!(is_before(1, 2) && !is_before(2, 2) && !is_before(3, 2));
        assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX));
    }
}
