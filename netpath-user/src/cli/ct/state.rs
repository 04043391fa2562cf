//! What a connection is doing: the one place of `netpath ct` that asks the packet path for it.

use std::collections::BTreeMap;

use netpath_common::{
    abi::Seen,
    conntrack::{PairState, Shown, pair_state, state::SECOND_NS},
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

/// The state of a connection whose directions have shown this, where these timeouts hold; those that are missing are the
/// states' own.
pub(super) fn state(protocol: u8, original: &Shown, reply: &Shown, timeouts: &BTreeMap<PairState, u32>) -> State {
    let pair = pair_state(protocol, original, reply);
    let assured = match protocol {
        // The handshake was completed, whatever came then.
        protocol::TCP => original.seen & reply.seen & Seen::ACK != 0,
        protocol::UDP => pair == PairState::UdpStream,
        protocol::ICMP => false,
        _ => reply.seen != 0,
    };
    let timeout_s = timeouts.get(&pair).copied().unwrap_or(pair.default_timeout_s());
    State { name: pair.name(), timeout_ns: u64::from(timeout_s) * SECOND_NS, assured }
}

/// The names of all states; some stand for more than one.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PairState::ALL.iter().map(|state| state.name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use netpath_common::{abi::Seen, conntrack::Shown};

    use super::state;

    #[test]
    fn a_connection_is_assured_once_both_sides_have_agreed() {
        let (syn, open) = (Seen::PACKET | Seen::SYN, Seen::PACKET | Seen::SYN | Seen::ACK);
        for (protocol, original, reply, assured) in [
            (6, syn, 0, false),
            (6, syn, open, false),
            (6, open, open, true),
            (6, open | Seen::FIN, open | Seen::FIN, true),
            (6, open, open | Seen::RST, true),
            (6, syn, Seen::PACKET | Seen::RST, false),
            (17, Seen::PACKET, 0, false),
            (17, Seen::PACKET, Seen::PACKET, false),
            (17, Seen::PACKET | Seen::STREAM, Seen::PACKET, true),
            (1, Seen::PACKET, Seen::PACKET, false),
        ] {
            let shown = |seen| Shown { seen, ..Shown::default() };
            let state = state(protocol, &shown(original), &shown(reply), &BTreeMap::new());
            assert_eq!(state.assured, assured, "{protocol} {original:05b} {reply:05b}");
        }
    }

    #[test]
    fn configured_timeouts_count() {
        let shown = Shown { seen: Seen::PACKET, ..Shown::default() };
        let timeouts = [(netpath_common::conntrack::PairState::Echo, 7)].into();
        assert_eq!(state(1, &shown, &shown, &timeouts).timeout_ns, 7_000_000_000);
    }
}
