//! What a connection is doing: the one place of `netpath ct` that asks the packet path for it.

use netpath_common::{
    abi::Seen,
    conntrack::{PairState, pair_state},
    wire::protocol,
};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) name: &'static str,
    /// How long it may be silent.
    pub(super) timeout_ns: u64,
    /// Whether both sides have agreed to it, which conntrack calls assured.
    pub(super) assured: bool,
}

/// Every state, for those who name one.
const STATES: [PairState; 10] = [
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
];

/// The state of a connection whose directions have shown these bits.
pub(super) fn state(protocol: u8, original_seen: u8, reply_seen: u8) -> State {
    let pair = pair_state(protocol, original_seen, reply_seen);
    let assured = match protocol {
        // The handshake was completed, whatever came then.
        protocol::TCP => original_seen & Seen::ACK != 0 && reply_seen != 0 && reply_seen != REFUSED,
        protocol::ICMP => false,
        // It lives as long as what conntrack calls a stream.
        _ => reply_seen != 0,
    };
    State { name: pair.name(), timeout_ns: pair.timeout_ns(), assured }
}

/// What a direction has shown that has only refused.
const REFUSED: u8 = Seen::PACKET | Seen::RST | Seen::ACK;

/// The names of all states.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    STATES.into_iter().map(PairState::name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use netpath_common::abi::Seen;

    use super::{names, state};

    #[test]
    fn every_state_that_can_be_has_its_name_on_the_list() {
        let listed: BTreeSet<_> = names().collect();
        for protocol in 0..=u8::MAX {
            for original in 0..32 {
                for reply in 0..32 {
                    let name = state(protocol, original, reply).name;
                    assert!(listed.contains(name), "{name} of protocol {protocol}");
                }
            }
        }
    }

    #[test]
    fn a_connection_is_assured_once_both_sides_have_agreed() {
        let (syn, open) = (Seen::PACKET | Seen::SYN, Seen::PACKET | Seen::SYN | Seen::ACK);
        let refusal = Seen::PACKET | Seen::RST | Seen::ACK;
        for (protocol, original, reply, assured) in [
            (6, syn, 0, false),
            (6, syn, open, false),
            (6, open, open, true),
            (6, open | Seen::FIN, open | Seen::FIN, true),
            (6, open, open | Seen::RST, true),
            (6, syn, refusal, false),
            (17, Seen::PACKET, 0, false),
            (17, Seen::PACKET, Seen::PACKET, true),
            (1, Seen::PACKET, Seen::PACKET, false),
        ] {
            assert_eq!(state(protocol, original, reply).assured, assured, "{protocol} {original:05b} {reply:05b}");
        }
    }
}
