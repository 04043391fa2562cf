//! The differences that are meant: what netpath does otherwise than Docker's rules, and why.
//!
//! Each has a stable identifier, under which docs/nat-compliance.md gives the reason. A difference that none of them
//! explains fails the run.

use netpath_common::abi::Mode;

use super::compare::{Difference, Outcome};
use super::packet::Step;
use super::seen::Spot;

/// A difference that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KnownDifference {
    /// Netfilter lets what nf_conntrack calls invalid pass untranslated; netpath translates it with its flow or drops it.
    InvalidNotLeaked,
}

/// A step and what became of it on both sides.
#[derive(Debug, Clone, Copy)]
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
}

impl KnownDifference {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::InvalidNotLeaked];

    /// The identifier in docs/nat-compliance.md. It is never given another meaning.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::InvalidNotLeaked => "invalid-not-leaked",
        }
    }

    /// Whether it explains the differences of a step.
    #[must_use]
    pub fn explains(self, case: &Case<'_>) -> bool {
        match self {
            Self::InvalidNotLeaked => case.reference.invalid && !leaks(case.netpath),
        }
    }

    /// The first that explains the differences of a step.
    #[must_use]
    pub fn of(case: &Case<'_>) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.explains(case))
    }
}

/// Whether something left the host with a container's own address.
fn leaks(outcome: &Outcome) -> bool {
    outcome.seen.iter().any(|seen| seen.at == Spot::World && seen.packet.source.octets()[..2] == [172, 17])
}
