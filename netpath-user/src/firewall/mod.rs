//! The firewall's rules that somebody put there and that netpath's packets would pass by.
//!
//! What netpath carries never reaches netfilter. In takeover mode an operator's rules in DOCKER-USER, or before Docker's
//! own, would be without effect without a word: these modules find them. [`read`] asks the tools for the rules, [`save`] and
//! [`nft`] understand what they print, [`judge`] says which rules are bypassed and whose packets they may be about. Nothing
//! here changes a rule. IPv6 isn't looked at: netpath leaves it to the kernel and its rules.
//!
//! In doubt a rule counts: a condition that isn't understood is taken for one that may hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use self::{
    judge::{Effect, Finding, Scene, SceneNetwork, bypassed},
    output::of_host_sockets,
    translates::translating,
};
use crate::subnet::Subnet;

mod judge;
mod nft;
mod output;
pub mod read;
mod save;
pub mod stale;
mod translates;

/// All rules that could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Tables with rules or policies that may matter.
    pub tables: Vec<Table>,
    /// What couldn't be read.
    pub errors: Vec<String>,
}

/// Whose tables they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// iptables, as iptables-nft keeps it.
    IptablesNft,
    /// iptables of old.
    IptablesLegacy,
    /// nftables itself.
    Nft,
}

impl Backend {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nft => "nft",
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Whose it is.
    pub backend: Backend,
    /// Its name, with the family where it is nftables'.
    pub name: String,
    /// Its chains; of Docker's own only rules that Docker doesn't make.
    pub chains: BTreeMap<String, Chain>,
    /// Where Docker's own rules lead packets to, each place once; everywhere, if a rule in Docker's chains leads elsewhere
    /// than Docker's do.
    pub leads_to: BTreeSet<Subnet>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it, if they do.
    pub hook: Option<Hook>,
    /// Whether what no rule decides about is dropped.
    pub drops_by_default: bool,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where in a packet's way a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before any translation and routing.
    Prerouting,
    /// Between interfaces.
    Forward,
    /// On the way out.
    Postrouting,
    /// Where the host's own packets begin; none of containers' comes there.
    Output,
    /// Where a bridge's own ports are the interfaces.
    Bridge,
}

/// A rule, as far as it is understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// As its tool prints it.
    pub text: String,
    /// When it holds.
    pub conditions: Conditions,
    /// What it does then.
    pub action: Action,
}

/// When a rule holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The interface that packets come from.
    pub from: Option<Match<String>>,
    /// The interface that they leave by.
    pub to: Option<Match<String>>,
    /// Their source.
    pub source: Option<Match<Subnet>>,
    /// Their destination.
    pub destination: Option<Match<Subnet>>,
    /// Whether there are conditions that aren't understood.
    pub others: bool,
}

impl Conditions {
    /// Whether it always holds.
    #[must_use]
    pub const fn are_none(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.source.is_none() && self.destination.is_none() && !self.others
    }
}

/// One of several values, or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<T> {
    /// The values.
    pub values: Vec<T>,
    /// Whether it must be none of them.
    pub negated: bool,
}

/// What a rule does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    /// Counts, logs, or nothing at all.
    #[default]
    Count,
    /// Ends the packet's way through the hook; nothing that follows sees it.
    Accept,
    /// Ends its way through the chain.
    Return,
    /// Drops it, refuses it or asks somebody whether it may pass.
    Restrict,
    /// Does something to it.
    Change,
    /// What netpath does as well.
    Masquerade,
    /// Goes on in other chains and comes back.
    Jump(Vec<String>),
    /// Goes on in other chains and doesn't come back.
    Goto(Vec<String>),
}

/// Whether a chain is Docker's own. By the whole name: people call chains of theirs DOCKER-something too.
fn is_dockers_chain(name: &str) -> bool {
    DOCKER_CHAINS.contains(&name)
}

/// The chains of Docker 1.13 to 29, but for DOCKER-USER, which is the operator's.
const DOCKER_CHAINS: [&str; 9] = [
    "DOCKER",
    "DOCKER-BRIDGE",
    "DOCKER-CT",
    "DOCKER-FORWARD",
    "DOCKER-INGRESS",
    "DOCKER-INTERNAL",
    "DOCKER-ISOLATION",
    "DOCKER-ISOLATION-STAGE-1",
    "DOCKER-ISOLATION-STAGE-2",
];

/// The chain that Docker makes for the operator's rules.
const DOCKER_USER: &str = "DOCKER-USER";

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
