//! The differences that are meant: what netpath does otherwise than Docker's rules, and why.
//!
//! Each has a stable identifier, under which docs/nat-compliance.md gives the reason. A difference that none of them
//! explains fails the run.

use netpath_common::abi::Mode;

use super::compare::{Difference, Outcome, PORT_IS_KEPT, is_containers};
use super::packet::{Damage, End, Payload, Side, Step};
use super::seen::{Seen, Spot, Sum, reassemble};
use crate::lab::GATEWAY;

/// How much of a packet behind its IPv4 header netpath's own errors quote.
const QUOTED: usize = 8;

/// A difference that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KnownDifference {
    /// Netfilter lets what nf_conntrack calls invalid pass untranslated; netpath translates it with its flow or drops it.
    InvalidNotLeaked,
    /// Netfilter collects all fragments of a datagram before it sends any; netpath sends each as it comes.
    FragmentsOneByOne,
    /// The kernel drops a packet whose IPv4 header's checksum is wrong; netpath passes it on, as wrong as it was.
    HeaderSumNotVerified,
    /// Which port stands for a container's is chosen otherwise, and may be kept where netfilter chooses another.
    PortChoice,
    /// Netfilter hides the host's own errors behind an address of a flow; with netpath they come from the gateway.
    OwnErrorsFromGateway,
    /// netpath's own errors quote as much as they must, the kernel's as much as they may.
    ErrorQuotesLess,
    /// Source quench, redirects and errors that quote less than eight bytes aren't translated: from the world they go to the
    /// host, from a container they are dropped.
    ErrorNotTranslated,
    /// Netfilter forgets a connection that is reset before it was answered; netpath remembers it for ten seconds.
    ResetRemembered,
    /// Docker's rules translate a hairpin flow inside the bridge, which counts no hop; netpath counts one.
    HairpinCountsHop,
    /// Docker lets neighbours reach a published container by its own address until 28.0; netpath doesn't.
    DirectAccessDropped,
    /// A flow that finds no place is refused with an ICMP error; netfilter drops its packet without a word.
    RefusalIsTold,
}

/// A step and what became of it on both sides.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// netpath's mode.
    pub mode: Mode,
    /// What was sent.
    pub step: &'a Step,
    /// What Docker's rules made of it.
    pub reference: &'a Outcome,
    /// What netpath made of it.
    pub netpath: &'a Outcome,
    /// In what these differ.
    pub differences: &'a [Difference],
    /// Whether the same conversation has seen a reset before.
    pub reset: bool,
    /// Whether the same conversation has shown a known difference before.
    pub earlier: &'a dyn Fn(KnownDifference) -> bool,
}

impl KnownDifference {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::InvalidNotLeaked,
        Self::FragmentsOneByOne,
        Self::HeaderSumNotVerified,
        Self::PortChoice,
        Self::OwnErrorsFromGateway,
        Self::ErrorQuotesLess,
        Self::ErrorNotTranslated,
        Self::ResetRemembered,
        Self::HairpinCountsHop,
        Self::DirectAccessDropped,
        Self::RefusalIsTold,
    ];

    /// The identifier in docs/nat-compliance.md. It is never given another meaning.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::InvalidNotLeaked => "invalid-not-leaked",
            Self::FragmentsOneByOne => "fragments-one-by-one",
            Self::HeaderSumNotVerified => "header-sum-not-verified",
            Self::PortChoice => "port-choice",
            Self::OwnErrorsFromGateway => "own-errors-from-gateway",
            Self::ErrorQuotesLess => "error-quotes-less",
            Self::ErrorNotTranslated => "error-not-translated",
            Self::ResetRemembered => "reset-remembered",
            Self::HairpinCountsHop => "hairpin-counts-hop",
            Self::DirectAccessDropped => "direct-access-dropped",
            Self::RefusalIsTold => "refusal-is-told",
        }
    }

    /// Whether it explains the differences of a step.
    #[must_use]
    pub fn explains(self, case: &Case<'_>) -> bool {
        let (reference, netpath) = (case.reference, case.netpath);
        match self {
            // What the one has taken note of and the other hasn't shows later, too.
            Self::InvalidNotLeaked => (reference.invalid || (case.earlier)(self)) && !leaks(netpath),
            // Its first fragment has opened a flow, of which netfilter knows nothing.
            Self::FragmentsOneByOne => {
                let collecting = is_incomplete(netpath) && reference.seen.is_empty();
                (collecting || (case.earlier)(self)) && !leaks(netpath)
            }
            Self::HeaderSumNotVerified => {
                let wrong = netpath.seen.iter().all(|seen| seen.packet.header_sum == Sum::Wrong);
                (case.step.damage == Some(Damage::HeaderChecksum) && wrong) || (case.earlier)(self)
            }
            Self::PortChoice => case.differs_only_in(&[PORT_IS_KEPT]),
            Self::OwnErrorsFromGateway => {
                let from_gateway = netpath.seen.iter().any(|seen| seen.packet.source == GATEWAY);
                from_gateway && case.differs_only_in(&["source address"])
            }
            Self::ErrorQuotesLess => {
                let expired = |seen: &Seen| seen.packet.icmp() == Some((11, 0));
                let quoted = |seen: &Seen| seen.packet.quote.as_ref().map_or(0, |quote| quote.rest.len());
                let least = netpath.seen.iter().all(|seen| expired(seen) && quoted(seen) == QUOTED);
                least && case.differs_only_in(&["quoted transport header and data", "quoted transport checksum"])
            }
            Self::ErrorNotTranslated => {
                let kept = netpath.seen.iter().all(|seen| seen.at == Spot::Host);
                is_untranslatable(&case.step.datagram.payload) && kept
            }
            Self::ResetRemembered => case.reset && !leaks(netpath),
            Self::RefusalIsTold => {
                let refused = |seen: &Seen| seen.packet.source == GATEWAY && seen.packet.icmp() == Some((3, 13));
                reference.seen.is_empty() && netpath.seen.iter().all(refused)
            }
            Self::DirectAccessDropped => {
                let direct = matches!(case.step.datagram.destination, End::Container(_));
                direct && case.step.from == Side::World && netpath.seen.is_empty()
            }
            Self::HairpinCountsHop => {
                let inside = |seen: &Seen| matches!(seen.at, Spot::Container(_));
                let hairpin = matches!(case.step.from, Side::Container(_)) && netpath.seen.iter().all(inside);
                hairpin && case.differs_only_in(&["time to live", PORT_IS_KEPT])
            }
        }
    }

    /// The first that explains the differences of a step.
    #[must_use]
    pub fn of(case: &Case<'_>) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.explains(case))
    }
}

impl Case<'_> {
    fn differs_only_in(&self, what: &[&str]) -> bool {
        self.differences.iter().all(|difference| what.contains(&difference.what))
    }
}

/// Whether something left the host with a container's own address.
fn leaks(outcome: &Outcome) -> bool {
    outcome.seen.iter().any(|seen| seen.at == Spot::World && is_containers(seen.packet.source))
}

/// Whether what was sent makes no whole datagram.
fn is_incomplete(outcome: &Outcome) -> bool {
    let sent = outcome.sent.iter().map(|bytes| (Spot::Host, bytes.clone())).collect();
    reassemble(sent).iter().any(|seen| seen.packet.is_fragment())
}

fn is_untranslatable(payload: &Payload) -> bool {
    matches!(payload, Payload::Error { kind: 4 | 5, .. } | Payload::Error { quoted: ..8, .. })
}
