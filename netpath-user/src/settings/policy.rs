//! `[policy]`: who may open connections to published ports. An ordered list; the first rule that fits decides.
//!
//! Everything that an operator can get wrong is refused here, with the line, and without asking anybody: a file that is
//! read here can be put in force. Only whether a network exists is known later.

use std::{fmt, marker::PhantomData, net::Ipv4Addr, ops::Range, str::FromStr};

use netpath_common::abi::{self, Action, Origin};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::PortRange;
use crate::desired::model::Protocol;

/// The operator's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Table")]
pub struct Policy {
    /// For what no rule fits.
    pub default: Action,
    /// Counts what would be denied, and denies nothing.
    pub dry_run: bool,
    /// The rules in their order.
    pub rules: Vec<Rule>,
}

/// One rule; an empty list stands for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands in the file.
    pub line: usize,
    /// What becomes of what it fits.
    pub action: Action,
    /// Clients' addresses.
    pub source: Vec<Prefix>,
    /// Where clients are; none: everywhere.
    pub from: Option<Origin>,
    /// Names or ids of the networks that published ports lead to.
    pub network: Vec<String>,
    /// Ports of the host.
    pub port: Vec<PortRange>,
    /// Protocols.
    pub protocol: Vec<Protocol>,
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The first of them.
    pub address: Ipv4Addr,
    /// How many bits they share.
    pub length: u8,
}

impl Policy {
    /// Refuses what is more than the programs can hold, and turns places in the file's text into lines.
    pub(super) fn check(&mut self, text: &str) -> Result<(), String> {
        const MAX: usize = abi::Policy::RULES_MAX;
        let mut size = 0_usize;
        for rule in &mut self.rules {
            rule.line = text.bytes().take(rule.line).filter(|byte| *byte == b'\n').count() + 1;
            size = size.saturating_add(rule.size());
            if size > MAX {
                return Err(format!(
                    "the policy is too long at line {}: {size} rules by there, and there can be {MAX}; a rule counts once \
                     for each combination of its sources, networks, ports and protocols",
                    rule.line
                ));
            }
        }
        Ok(())
    }
}

impl Rule {
    /// How many rules it is to the programs.
    #[must_use]
    pub fn size(&self) -> usize {
        let lengths = [self.source.len(), self.network.len(), self.port.len(), self.protocol.len()];
        lengths.into_iter().map(|length| length.max(1)).fold(1, usize::saturating_mul)
    }
}

impl Prefix {
    /// Every address.
    pub const ANY: Self = Self { address: Ipv4Addr::UNSPECIFIED, length: 0 };

    /// The bits that the addresses share, as an address.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            32 => write!(formatter, "{}", self.address),
            length => write!(formatter, "{}/{length}", self.address),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        if address.contains(':') {
            return Err(format!("{text:?} is of IPv6; the policy is for IPv4, which is what netpath carries"));
        }
        let address: Ipv4Addr = address.parse().map_err(|_| format!("{address:?} isn't an IPv4 address"))?;
        let Ok(length @ 0..=32) = length.parse::<u8>() else {
            return Err(format!("{length:?} isn't the length of a prefix; lengths are 0 to 32"));
        };
        let prefix = Self { address, length };
        let first = Ipv4Addr::from_bits(address.to_bits() & prefix.mask().to_bits());
        if first != address {
            return Err(format!(
                "{text} has bits beyond its prefix of {length}; write {first}/{length} for all of them, or {address} for \
                 the one address"
            ));
        }
        Ok(prefix)
    }
}

/// `[policy]`, as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    default: Word<Action>,
    dry_run: bool,
    rule: Vec<Spanned<Entry>>,
}

/// `[[policy.rule]]`, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    action: Word<Action>,
    #[serde(default)]
    source: Many<Prefix>,
    #[serde(default)]
    from: Option<Word<Origin>>,
    #[serde(default)]
    network: Many<Name>,
    #[serde(default)]
    port: Many<PortRange>,
    #[serde(default)]
    protocol: Many<Protocol>,
}

impl From<Table> for Policy {
    fn from(table: Table) -> Self {
        let rules = table.rule.into_iter().map(|entry| {
            let Range { start, .. } = entry.span();
            let entry = entry.into_inner();
            Rule {
                // A place in the text, until the text is there to count lines in.
                line: start,
                action: entry.action.0,
                source: entry.source.0,
                from: entry.from.map(|from| from.0),
                network: entry.network.0.into_iter().map(|name| name.0).collect(),
                port: entry.port.0,
                protocol: entry.protocol.0,
            }
        });
        Self { default: table.default.0, dry_run: table.dry_run, rules: rules.collect() }
    }
}

/// A value that is written as a word, or a number.
trait Written: Sized {
    /// What is expected, for messages.
    const WHAT: &'static str;

    fn read(text: &str) -> Result<Self, String>;
}

impl Written for Action {
    const WHAT: &'static str = "\"allow\" or \"deny\"";

    fn read(text: &str) -> Result<Self, String> {
        [Self::Allow, Self::Deny].into_iter().find(|action| action.name() == text).ok_or_else(|| expected::<Self>(text))
    }
}

impl Written for Origin {
    const WHAT: &'static str = "\"wire\" or \"container\"";

    fn read(text: &str) -> Result<Self, String> {
        [Self::Wire, Self::Container].into_iter().find(|from| from.name() == text).ok_or_else(|| expected::<Self>(text))
    }
}

impl Written for Protocol {
    const WHAT: &'static str = "\"tcp\", \"udp\" or \"sctp\"";

    fn read(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|one| one.to_string() == text).ok_or_else(|| expected::<Self>(text))
    }
}

impl Written for Prefix {
    const WHAT: &'static str = "an address or a prefix such as \"203.0.113.0/24\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Written for PortRange {
    const WHAT: &'static str = "a port or a range such as \"8000-8100\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// A network's name or id.
struct Name(String);

impl Written for Name {
    const WHAT: &'static str = "a network's name or id";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(expected::<Self>(text)) } else { Ok(Self(text.to_owned())) }
    }
}

fn expected<T: Written>(text: &str) -> String {
    format!("{text:?} isn't {}", T::WHAT)
}

/// A single value.
#[derive(Default)]
struct Word<T>(T);

/// A value or a list of them.
struct Many<T>(Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Written> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Written> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ManyVisitor(PhantomData)).map(Self)
    }
}

struct WordVisitor<T>(PhantomData<T>);

impl<T: Written> de::Visitor<'_> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::WHAT)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::read(&number.to_string()).map_err(E::custom)
    }
}

struct ManyVisitor<T>(PhantomData<T>);

impl<'de, T: Written> de::Visitor<'de> for ManyVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, or a list of them", T::WHAT)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::read(text).map(|one| vec![one]).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Vec<T>, E> {
        T::read(&number.to_string()).map(|one| vec![one]).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut many = Vec::new();
        while let Some(Word(one)) = list.next_element()? {
            many.push(one);
        }
        if many.is_empty() {
            return Err(de::Error::custom("an empty list would fit nothing; leave the key out for any"));
        }
        Ok(many)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
