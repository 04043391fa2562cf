//! What nf_conntrack calls invalid, packet by packet: evidence for the differences that come from it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::netns::Place;

/// A table of its own that only takes note. The chain comes after nf_conntrack and before the translation.
const TABLE: &str = "table ip netpath_differential {
    set invalid { typeof ip saddr . ip daddr . ip id; flags dynamic; size 262144; }
    chain note {
        type filter hook prerouting priority -150;
        ct state invalid add @invalid { ip saddr . ip daddr . ip id }
    }
}";

const LIST: &[&str] = &["nft", "--json", "list", "set", "ip", "netpath_differential", "invalid"];
const FLUSH: &[&str] = &["nft", "flush", "set", "ip", "netpath_differential", "invalid"];

/// Source, destination and identification of a packet.
pub type Id = (Ipv4Addr, Ipv4Addr, u16);

/// The watch over a namespace.
#[derive(Debug)]
pub struct Invalid {
    _private: (),
}

#[derive(Deserialize)]
struct Answer {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    concat: (Ipv4Addr, Ipv4Addr, u16),
}

impl Invalid {
    /// Starts it.
    ///
    /// # Errors
    /// When nft is missing or fails.
    pub fn watch(place: &Place) -> Result<Self> {
        place.run(&["nft", TABLE]).context("watch what nf_conntrack calls invalid")?;
        Ok(Self { _private: () })
    }

    /// What it has seen since it was asked last.
    ///
    /// # Errors
    /// When nft fails or answers with what can't be read.
    pub fn take(&self, place: &Place) -> Result<BTreeSet<Id>> {
        let text = place.run(LIST)?;
        place.run(FLUSH)?;
        let answer: Answer = serde_json::from_str(&text).with_context(|| format!("read nft's {text:.200}"))?;
        let elements = answer.nftables.into_iter().filter_map(|object| object.set).flat_map(|set| set.elem);
        Ok(elements.map(|element| element.concat).collect())
    }
}
