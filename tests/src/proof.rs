//! Proof of who carried the packets: what netfilter has seen of them, and which programs are attached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::loaded_maps;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use serde_json::Value;

use crate::netns::Place;

/// The packet counters of the NAT rules of a namespace.
///
/// Only rules, not the chains' policies: those also count what a host sends by itself, such as IGMP reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatCounters {
    save: &'static str,
    packets: BTreeMap<String, u64>,
}

impl NatCounters {
    /// Reads the counters. A rule that stands twice counts as one.
    ///
    /// # Errors
    /// When iptables fails or prints something that can't be read.
    pub fn read(place: &Place) -> Result<Self> {
        Self::read_by("iptables-save", place)
    }

    /// The same of the kernel's older tables.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn read_legacy(place: &Place) -> Result<Self> {
        Self::read_by("iptables-legacy-save", place)
    }

    fn read_by(save: &'static str, place: &Place) -> Result<Self> {
        let mut packets = BTreeMap::new();
        for line in place.run(&[save, "--counters", "--table", "nat"])?.lines() {
            // "[12:720] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"
            let Some((counters, rule)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
                continue;
            };
            let (count, _bytes) = counters.split_once(':').with_context(|| format!("read {line:?}"))?;
            *packets.entry(rule.to_owned()).or_insert(0) += count.parse::<u64>().context("read a packet count")?;
        }
        Ok(Self { save, packets })
    }

    /// Fails when a rule has counted a packet since these counters were read.
    ///
    /// # Errors
    /// With the rules that moved.
    pub fn expect_unmoved(&self, place: &Place) -> Result<()> {
        let moved = self.moved(place)?;
        ensure!(moved.is_empty(), "iptables' NAT rules have seen packets that netpath should have carried: {moved:?}");
        Ok(())
    }

    /// Fails when no rule has counted a packet since these counters were read.
    ///
    /// # Errors
    /// When none moved.
    pub fn expect_moved(&self, place: &Place) -> Result<()> {
        ensure!(!self.moved(place)?.is_empty(), "iptables' NAT rules have seen no packet");
        Ok(())
    }

    fn moved(&self, place: &Place) -> Result<Vec<String>> {
        let now = Self::read_by(self.save, place)?;
        let moved =
            now.packets.into_iter().filter(|(rule, count)| self.packets.get(rule).copied().unwrap_or(0) != *count);
        Ok(moved.map(|(rule, count)| format!("{rule}: {count}")).collect())
    }
}

/// Fails when a namespace's nf_conntrack has a flow that began with a packet from one address to another.
///
/// # Errors
/// With what it has.
pub fn expect_untracked(place: &Place, source: SocketAddrV4, destination: SocketAddrV4) -> Result<()> {
    let found = tracked(place, source, destination)?;
    ensure!(found.is_empty(), "nf_conntrack has a flow that netpath should have carried: {found:?}");
    Ok(())
}

/// Fails when nf_conntrack has no such flow.
///
/// # Errors
/// When it hasn't.
pub fn expect_tracked(place: &Place, source: SocketAddrV4, destination: SocketAddrV4) -> Result<()> {
    let found = tracked(place, source, destination)?;
    ensure!(!found.is_empty(), "nf_conntrack has no flow from {source} to {destination}");
    Ok(())
}

fn tracked(place: &Place, source: SocketAddrV4, destination: SocketAddrV4) -> Result<Vec<String>> {
    let words = [
        format!("src={}", source.ip()),
        format!("sport={}", source.port()),
        format!("dst={}", destination.ip()),
        format!("dport={}", destination.port()),
    ];
    let listed = place.run(&["conntrack", "--dump"])?;
    let has_all = |line: &&str| words.iter().all(|word| line.split_whitespace().any(|found| found == word));
    Ok(listed.lines().filter(has_all).map(str::to_owned).collect())
}

/// A program attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// `tcx ingress`, `tcx egress`, `clsact ingress`, `clsact egress` or `xdp`.
    pub hook: String,
    /// The program's name.
    pub program: String,
    /// The program's number in the kernel.
    pub id: u32,
}

/// Every program attached to an interface of a namespace, asked of the kernel itself.
///
/// # Errors
/// When the kernel or `ip` or `tc` can't be asked.
pub fn attached(place: &Place) -> Result<Vec<Attached>> {
    let mut all = Vec::new();
    for link in json(place, &["ip", "-json", "-details", "link", "show"])? {
        let name = link["ifname"].as_str().context("read an interface's name")?;
        if let Some(id) = link["xdp"]["prog"]["id"].as_u64() {
            let program = link["xdp"]["prog"]["name"].as_str().unwrap_or_default().to_owned();
            all.push(Attached { interface: name.to_owned(), hook: "xdp".to_owned(), program, id: u32::try_from(id)? });
        }
        all.extend(attached_tcx(place, name)?);
        all.extend(attached_clsact(place, name, "ingress")?);
        all.extend(attached_clsact(place, name, "egress")?);
    }
    all.sort();
    Ok(all)
}

/// Fails when a hook of an interface runs two programs, or one of the interfaces given runs none.
///
/// # Errors
/// With what is attached.
pub fn expect_attached_once(place: &Place, interfaces: &[&str]) -> Result<()> {
    let all = attached(place)?;
    let mut hooks = BTreeSet::new();
    for one in &all {
        ensure!(
            hooks.insert((&one.interface, &one.hook)),
            "{} has two programs at {}: {all:?}",
            one.interface,
            one.hook
        );
    }
    for interface in interfaces {
        ensure!(all.iter().any(|one| one.interface == *interface), "{interface} has no program: {all:?}");
    }
    Ok(())
}

/// The maps that attached programs use, by their numbers in the kernel.
///
/// # Errors
/// When the kernel can't be asked.
pub fn maps_of(attached: &[Attached]) -> Result<BTreeSet<u32>> {
    let mut maps = BTreeSet::new();
    for program in loaded_programs() {
        let Some(program) = existing(program)? else { continue };
        if attached.iter().any(|one| one.id == program.id()) {
            maps.extend(program.map_ids().context("ask for a program's maps")?.unwrap_or_default());
        }
    }
    Ok(maps)
}

/// Fails while one of the programs or maps is still in the kernel.
///
/// # Errors
/// With their numbers.
pub fn expect_unloaded(programs: &[Attached], maps: &BTreeSet<u32>) -> Result<()> {
    for program in loaded_programs() {
        let Some(program) = existing(program)? else { continue };
        let left = programs.iter().find(|one| one.id == program.id());
        ensure!(left.is_none(), "a program is still loaded: {left:?}");
    }
    for map in loaded_maps() {
        let Ok(map) = map else { continue };
        ensure!(!maps.contains(&map.id()), "the map {:?}, number {}, is still there", map.name_as_str(), map.id());
    }
    Ok(())
}

/// Programs of others come and go while they are listed.
fn existing(program: Result<ProgramInfo, aya::programs::ProgramError>) -> Result<Option<ProgramInfo>> {
    match program {
        Ok(program) => Ok(Some(program)),
        Err(aya::programs::ProgramError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => bail!("list the loaded programs: {error}"),
    }
}

fn attached_tcx(place: &Place, interface: &str) -> Result<Vec<Attached>> {
    place.enter(|| {
        let mut all = Vec::new();
        for (attach_type, hook) in [(TcAttachType::Ingress, "tcx ingress"), (TcAttachType::Egress, "tcx egress")] {
            let (_revision, programs) = SchedClassifier::query_tcx(interface, attach_type)
                .with_context(|| format!("ask for {interface}'s programs at {hook}"))?;
            all.extend(programs.iter().map(|program| Attached {
                interface: interface.to_owned(),
                hook: hook.to_owned(),
                program: program.name_as_str().unwrap_or_default().to_owned(),
                id: program.id(),
            }));
        }
        Ok(all)
    })
}

fn attached_clsact(place: &Place, interface: &str, direction: &str) -> Result<Vec<Attached>> {
    let filters = json(place, &["tc", "-json", "filter", "show", "dev", interface, direction])?;
    let programs = filters.iter().filter_map(|filter| {
        let program = &filter["options"]["prog"];
        Some((program["id"].as_u64()?, program["name"].as_str().unwrap_or_default().to_owned()))
    });
    programs
        .map(|(id, program)| {
            let (interface, hook) = (interface.to_owned(), format!("clsact {direction}"));
            Ok(Attached { interface, hook, program, id: u32::try_from(id)? })
        })
        .collect()
}

fn json(place: &Place, words: &[&str]) -> Result<Vec<Value>> {
    let text = place.run(words)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).with_context(|| format!("read what {words:?} printed: {text:?}"))
}
