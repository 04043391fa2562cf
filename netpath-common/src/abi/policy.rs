//! The operator's policy: who may open flows to published ports.
//!
//! A whole list is one value of the map `POLICIES`, which has two; `POLICY_IN_FORCE` says which of them counts. So a new
//! list is written where nobody looks, and one write puts it in force.

use super::{Address, abi};

abi! {
    /// What a rule is asked about: the packet that would open a flow. Compared as one word.
    #[repr(align(8))]
    pub struct PolicyKey[8] {
        /// The client's own address.
        pub source: Address,
        /// Number of the network that the published port leads to; never 0.
        pub network: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// Where the packet came from: [`Origin`].
        pub origin: u8,
    }
}

abi! {
    /// One rule. Fits a packet whose key is `wanted` in all bits of `mask`, and whose port is in the range.
    pub struct PolicyRule[24] {
        /// The key that is wanted; zero where the mask is.
        pub wanted: PolicyKey,
        /// Which bits of the key count.
        pub mask: PolicyKey,
        /// First host port, in host order.
        pub port_first: u16,
        /// Last host port, in host order. Before the first: the rule fits nothing.
        pub port_last: u16,
        /// Index in the map `POLICY_HITS`. Rules that an operator wrote as one share it.
        pub counter: u16,
        /// [`Action`].
        pub action: u8,
        /// Zero.
        pub reserved: u8,
    }
}

abi! {
    /// A whole list. All zero, as the map begins: no rules, everything is allowed.
    pub struct Policy[3080] {
        /// How many of `rules` are set.
        pub rule_count: u16,
        /// Index in the map `POLICY_HITS` of what no rule fits.
        pub default_counter: u16,
        /// [`Action`] for what no rule fits.
        pub default_action: u8,
        /// 1: what would be denied is counted and let through.
        pub dry_run: u8,
        /// Zero.
        pub reserved: [u8; 2],
        /// The rules in their order: the first that fits decides.
        pub rules: [PolicyRule; Policy::RULES_MAX],
    }
}

impl PolicyKey {
    /// Nothing of a packet.
    pub const ZERO: Self = Self { source: [0; 4], network: 0, protocol: 0, origin: 0 };
}

impl PolicyRule {
    /// A rule that isn't set.
    pub const UNSET: Self = Self {
        wanted: PolicyKey::ZERO,
        mask: PolicyKey::ZERO,
        port_first: 0,
        port_last: 0,
        counter: 0,
        action: Action::Allow as u8,
        reserved: 0,
    };
}

impl Policy {
    /// How many rules a list has at most. The verifier goes through each of them, and so does the packet that opens a flow.
    pub const RULES_MAX: usize = 128;

    /// Places in the map `POLICY_HITS`: for the rules of the list in force and for those of the next one, which may all be
    /// others, each with its default.
    pub const COUNTERS: usize = 2 * (Self::RULES_MAX + 1);

    /// Places in the map `POLICIES`.
    pub const PLACES: usize = 2;

    /// No rules, everything is allowed: what stands before there is a policy.
    pub const NONE: Self = Self {
        rule_count: 0,
        default_counter: 0,
        default_action: Action::Allow as u8,
        dry_run: 0,
        reserved: [0; 2],
        rules: [PolicyRule::UNSET; Self::RULES_MAX],
    };
}

/// What becomes of a packet that a rule fits.
#[repr(u8)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It may open a flow.
    #[default]
    Allow = 0,
    /// It is dropped.
    Deny = 1,
}

impl Action {
    /// The action with this number.
    #[must_use]
    pub const fn numbered(number: u8) -> Self {
        if number == Self::Deny as u8 { Self::Deny } else { Self::Allow }
    }

    /// The name that the configuration takes and commands show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Where a packet came from that asks for a published port.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// From the world.
    Wire = 1,
    /// From a container, by one of the host's addresses.
    Container = 2,
}

impl Origin {
    /// The origin with this number.
    #[must_use]
    pub const fn numbered(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Wire),
            2 => Some(Self::Container),
            _ => None,
        }
    }

    /// The name that the configuration takes and commands show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Container => "container",
        }
    }
}
