//! What a flow is doing, seen from both directions, and how long it may be silent.
//!
//! States and timeouts are nf_conntrack's (net/netfilter/nf_conntrack_proto_{tcp,udp,icmp}.c, kernel 6.18). They are
//! read off what each direction has shown, so no direction writes into the other's entry.

use crate::{abi::Seen, wire::protocol};

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// What a pair of entries is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PairState {
    /// TCP: asked for, not answered.
    SynSent,
    /// TCP: answered, not confirmed.
    SynReceived,
    /// TCP: open.
    Established,
    /// TCP: the opener has closed its side.
    FinWait,
    /// TCP: the other side has closed.
    CloseWait,
    /// TCP: both sides have closed.
    TimeWait,
    /// TCP: reset.
    Close,
    /// UDP: no answer so far.
    UdpUnreplied,
    /// UDP: answered.
    UdpReplied,
    /// ICMP echo.
    Echo,
}

impl PairState {
    /// The name that `ct ls` shows; for TCP conntrack's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::UdpUnreplied => "UNREPLIED",
            Self::UdpReplied => "REPLIED",
            Self::Echo => "ECHO",
        }
    }

    /// How long the pair may be silent, in nanoseconds: nf_conntrack's defaults.
    #[inline(always)]
    #[must_use]
    pub const fn timeout_ns(self) -> u64 {
        SECOND_NS
            * match self {
                Self::Established => 5 * 24 * 3600,
                Self::SynSent | Self::FinWait | Self::TimeWait | Self::UdpReplied => 120,
                Self::SynReceived | Self::CloseWait => 60,
                Self::UdpUnreplied | Self::Echo => 30,
                Self::Close => 10,
            }
    }
}

/// The state of a pair, from what each direction has shown (bits of [`Seen`]).
#[inline(always)]
#[must_use]
pub const fn pair_state(protocol: u8, original: u8, reply: u8) -> PairState {
    match protocol {
        protocol::TCP => tcp_state(original, reply),
        protocol::UDP if reply == 0 => PairState::UdpUnreplied,
        protocol::UDP => PairState::UdpReplied,
        _ => PairState::Echo,
    }
}

/// A reset ends whatever was; then come the closes; a connection picked up in mid-stream, without a SYN, is open as soon
/// as both sides have sent.
#[inline(always)]
const fn tcp_state(original: u8, reply: u8) -> PairState {
    if (original | reply) & Seen::RST != 0 {
        return PairState::Close;
    }
    match (original & Seen::FIN != 0, reply & Seen::FIN != 0) {
        (true, true) => return PairState::TimeWait,
        (true, false) => return PairState::FinWait,
        (false, true) => return PairState::CloseWait,
        (false, false) => {}
    }
    if reply == 0 {
        return PairState::SynSent;
    }
    if original & Seen::ACK != 0 { PairState::Established } else { PairState::SynReceived }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = Seen::PACKET | Seen::SYN;
    const SYN_ACK: u8 = Seen::PACKET | Seen::SYN | Seen::ACK;

    #[test]
    fn a_tcp_connection_goes_through_its_states() {
        let rows = [
            ("syn", SYN, 0, PairState::SynSent),
            ("syn answered", SYN, SYN_ACK, PairState::SynReceived),
            ("handshake done", SYN_ACK, SYN_ACK, PairState::Established),
            ("opener closes", SYN_ACK | Seen::FIN, SYN_ACK, PairState::FinWait),
            ("other side closes first", SYN_ACK, SYN_ACK | Seen::FIN, PairState::CloseWait),
            ("both closed", SYN_ACK | Seen::FIN, SYN_ACK | Seen::FIN, PairState::TimeWait),
            ("reset", SYN_ACK, SYN_ACK | Seen::RST, PairState::Close),
            ("refused", SYN, Seen::PACKET | Seen::RST | Seen::ACK, PairState::Close),
            ("picked up in mid-stream", Seen::PACKET | Seen::ACK, Seen::PACKET | Seen::ACK, PairState::Established),
            ("picked up, one side so far", Seen::PACKET | Seen::ACK, 0, PairState::SynSent),
        ];
        for (description, original, reply, expected) in rows {
            assert_eq!(pair_state(protocol::TCP, original, reply), expected, "{description}");
        }
    }

    #[test]
    fn udp_lives_longer_once_answered() {
        assert_eq!(pair_state(protocol::UDP, Seen::PACKET, 0), PairState::UdpUnreplied);
        assert_eq!(pair_state(protocol::UDP, Seen::PACKET, Seen::PACKET), PairState::UdpReplied);
        assert!(PairState::UdpReplied.timeout_ns() > PairState::UdpUnreplied.timeout_ns());
    }

    #[test]
    fn no_timeout_is_shorter_than_what_counts_as_fresh() {
        for state in [
            PairState::SynSent,
            PairState::SynReceived,
            PairState::Established,
            PairState::FinWait,
            PairState::CloseWait,
            PairState::TimeWait,
            PairState::Close,
            PairState::UdpUnreplied,
            PairState::UdpReplied,
            PairState::Echo,
        ] {
            assert!(state.timeout_ns() >= crate::conntrack::FRESH_NS, "{}", state.name());
        }
    }
}
