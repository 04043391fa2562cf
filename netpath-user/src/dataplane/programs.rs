//! Has the kernel verify the programs, on all CPUs at once, or takes those that a start of the same build has left pinned.
//!
//! Verifying takes seconds. A program is bound to its maps and to constants that were set when it was loaded, so one is
//! taken only if it comes from the same object for the same network namespace and flow table, and works on the maps that are pinned
//! now.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    thread,
    time::Instant,
};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use netpath_common::abi::names::{map, program};

use super::{bpf, flows, layout::Layout};

/// What is attached to interfaces or run by the daemon. The programs of sockets are small, and loaded by who attaches them.
const NAMES: [&str; 10] = [
    program::UPLINK,
    program::EGRESS,
    program::CONTAINER,
    program::BRIDGE,
    program::LOOPBACK,
    program::COLLECT,
    program::COLLECT_CONES,
    program::REMOVE,
    program::XDP_UPLINK,
    program::XDP_GENERIC,
];

/// The kernel cuts a map's name off here (`BPF_OBJ_NAME_LEN`, less the zero).
const MAP_NAME_MAX: usize = 15;

/// What a program depends on but its maps.
pub(super) fn build_of(object: &[u8], netns_cookie: u64, table: flows::Shape) -> u64 {
    // Fixed keys: the same numbers in each process of the same netpath.
    let mut hasher = DefaultHasher::new();
    (object, netns_cookie, table).hash(&mut hasher);
    hasher.finish()
}

/// Brings every program into the kernel, and pins what had to be verified for the next start.
///
/// # Errors
///
/// When the kernel refuses one.
pub(super) fn load(layout: &Layout, ebpf: &mut Ebpf, build: u64) -> anyhow::Result<()> {
    // The programs of a debugging build write to a log that is each daemon's own.
    let may_adopt = cfg!(not(feature = "trace"));
    let maps = pinned_maps(layout);
    let mut missing = Vec::new();
    for (name, program) in ebpf.programs_mut().filter(|(name, _)| NAMES.contains(name)) {
        let pin = layout.built_program(name, build);
        if may_adopt && pin.exists() {
            match adopt(program, &pin, &maps) {
                Ok(()) => continue,
                Err(error) => tracing::debug!(name, error = %format!("{error:#}"), "a pinned program isn't taken"),
            }
            fs::remove_file(&pin).with_context(|| format!("can't remove the pin {}", pin.display()))?;
        }
        missing.push((name, program, pin));
    }
    let begun = Instant::now();
    // One thread for each: the kernel verifies as many as there are CPUs.
    thread::scope(|scope| {
        let verifying: Vec<_> =
            missing.iter_mut().map(|(name, program, _)| (*name, scope.spawn(|| verify(program)))).collect();
        for (name, thread) in verifying {
            let outcome = thread.join().map_err(|_| anyhow!("the thread that loads {name} panicked"))?;
            outcome.with_context(|| format!("the kernel refused the program {name}"))?;
        }
        anyhow::Ok(())
    })?;
    if !missing.is_empty() {
        let took_ms = begun.elapsed().as_millis();
        tracing::info!(programs = missing.len(), took_ms, "the kernel has verified the programs");
    }
    if may_adopt {
        for (_, program, pin) in &missing {
            let path = CString::new(pin.as_os_str().as_bytes())?;
            bpf::pin_object(program.fd()?.as_fd(), &path).with_context(|| format!("can't pin {}", pin.display()))?;
        }
    }
    layout.remove_other_builds(build)
}

fn verify(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(classifier) => classifier.load(),
        Program::Xdp(xdp) => xdp.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn adopt(program: &mut Program, pin: &Path, maps: &BTreeSet<u32>) -> anyhow::Result<()> {
    let info = ProgramInfo::from_pin(pin)?;
    for id in info.map_ids()?.unwrap_or_default() {
        let used = MapInfo::from_id(id)?;
        if !maps.contains(&id) && is_pinned_name(used.name_as_str().unwrap_or_default()) {
            bail!("its map {} isn't the one that is pinned", used.name_as_str().unwrap_or_default());
        }
    }
    *program = match program {
        Program::SchedClassifier(_) => Program::SchedClassifier(SchedClassifier::from_pin(pin)?),
        Program::Xdp(_) => Program::Xdp(Xdp::from_pin(pin, XdpAttachType::Interface)?),
        _ => bail!("it has an unexpected type"),
    };
    Ok(())
}

fn pinned_maps(layout: &Layout) -> BTreeSet<u32> {
    map::ALL.iter().filter_map(|name| MapInfo::from_pin(layout.map(name)).ok()).map(|info| info.id()).collect()
}

fn is_pinned_name(name: &str) -> bool {
    map::ALL.iter().any(|pinned| pinned[..pinned.len().min(MAP_NAME_MAX)] == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_object_namespace_or_flow_table_is_another_build() {
        let table = flows::Shape { seed: 1, entries_max: 2048, regions: 4 };
        let build = build_of(b"object", 1, table);
        assert_eq!(build, build_of(b"object", 1, table));
        assert_ne!(build, build_of(b"objecu", 1, table));
        assert_ne!(build, build_of(b"object", 2, table));
        assert_ne!(build, build_of(b"object", 1, flows::Shape { seed: 2, ..table }));
    }

    #[test]
    fn a_map_is_known_by_as_much_of_its_name_as_the_kernel_keeps() {
        assert!(map::ALL.iter().all(|name| is_pinned_name(&name[..name.len().min(MAP_NAME_MAX)])));
        assert!(!is_pinned_name(".rodata"));
        assert!(!is_pinned_name(""));
    }
}
