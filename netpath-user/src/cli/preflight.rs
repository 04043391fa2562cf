//! What must hold before netpath touches anything: capabilities, the kernel's version, interfaces that exist.
//!
//! Reading the system and deciding are apart, so that the decisions are tested without a system.

use std::fs;

use anyhow::Context as _;

/// Why netpath can't run here.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreflightError {
    /// No such interface.
    #[error("there is no interface {0:?}; `ip link` lists those that there are")]
    Interface(String),
    /// `RUST_LOG` can't be read.
    #[error("RUST_LOG isn't a log filter: {0}")]
    LogFilter(String),
    /// Capabilities that the process doesn't have.
    #[error("this needs root, or these capabilities, which are missing: {}", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// The kernel is too old.
    #[error("kernel {release} is too old for netpath: {feature}")]
    Kernel {
        /// The kernel that runs.
        release: String,
        /// What it lacks.
        feature: &'static str,
    },
}

impl PreflightError {
    pub(super) fn kernel(release: &str, feature: &'static str) -> Self {
        Self::Kernel { release: release.to_owned(), feature }
    }
}

/// Whether the tcx links must be there, or clsact will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tcx {
    Demanded,
    Optional,
}

/// A capability's bit (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// `bpf_redirect_peer` and `bpf_redirect_neigh`, both of Linux 5.10, carry packets past the host's stack.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// The first kernel with tcx.
const TCX_KERNEL: (u32, u32) = (6, 6);

/// Refuses a system that the daemon can't run on.
///
/// # Errors
///
/// [`PreflightError`], or that /proc can't be read.
pub(super) fn check_system(uplinks: &[String], tcx: Tcx) -> anyhow::Result<()> {
    check_privileges()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading /proc/sys/kernel/osrelease")?;
    check_kernel(release.trim(), tcx)?;
    uplinks.iter().try_for_each(|name| check_interface(name))?;
    Ok(())
}

/// Refuses a caller who may not change what is attached.
///
/// # Errors
///
/// [`PreflightError::Capabilities`], or that /proc can't be read.
pub(super) fn check_privileges() -> anyhow::Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    check_capabilities(effective_capabilities(&status).context("/proc/self/status says no CapEff")?)?;
    Ok(())
}

fn effective_capabilities(proc_status: &str) -> Option<u64> {
    let hexadecimal = proc_status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hexadecimal.trim(), 16).ok()
}

fn check_capabilities(effective: u64) -> Result<(), PreflightError> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    // CAP_SYS_ADMIN includes the other two; it is needed besides, to enter containers' network namespaces and to adopt
    // programs by id.
    let needed = [
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_SYS_ADMIN", has(CAP_SYS_ADMIN)),
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ];
    let missing: Vec<_> = needed.into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::Capabilities(missing)) }
}

fn check_kernel(release: &str, tcx: Tcx) -> Result<(), PreflightError> {
    // A release that can't be read is no reason to refuse: the loader says what is missing.
    let Some(version) = kernel_version(release) else { return Ok(()) };
    if version < OLDEST_KERNEL {
        return Err(PreflightError::kernel(
            release,
            "it needs bpf_redirect_peer and bpf_redirect_neigh, from Linux 5.10 on",
        ));
    }
    if version < TCX_KERNEL && tcx == Tcx::Demanded {
        return Err(PreflightError::kernel(release, "--tc tcx needs Linux 6.6; use --tc auto or --tc clsact"));
    }
    Ok(())
}

/// The first two numbers of a release such as `6.1.0-13-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn check_interface(name: &str) -> Result<(), PreflightError> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(PreflightError::Interface(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{PreflightError, Tcx, check_capabilities, check_interface, check_kernel, effective_capabilities};

    #[test]
    fn capabilities_are_read_from_proc() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x01ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |effective| match check_capabilities(effective) {
            Err(PreflightError::Capabilities(missing)) => missing,
            _ => Vec::new(),
        };
        assert_eq!(missing(u64::MAX), Vec::<&str>::new());
        assert_eq!(missing(1 << 12 | 1 << 21), Vec::<&str>::new());
        assert_eq!(missing(1 << 12 | 1 << 39), ["CAP_SYS_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn old_kernels_are_refused_with_what_they_lack() {
        for (release, tcx, refused) in [
            ("5.4.0-216-generic", Tcx::Optional, Some("bpf_redirect_peer")),
            ("5.9.16", Tcx::Optional, Some("bpf_redirect_peer")),
            ("5.10.0", Tcx::Optional, None),
            ("6.1.0-13-amd64", Tcx::Optional, None),
            ("6.1.0-13-amd64", Tcx::Demanded, Some("6.6")),
            ("6.6", Tcx::Demanded, None),
            ("6.18.5+", Tcx::Demanded, None),
            ("strange", Tcx::Demanded, None),
        ] {
            let message = check_kernel(release, tcx).err().map(|error| error.to_string());
            match (&message, refused) {
                (None, None) => {}
                (Some(message), Some(part)) => {
                    assert!(message.contains(part) && message.contains(release), "{message}");
                }
                _ => panic!("{release}: {message:?}"),
            }
        }
    }

    #[test]
    fn only_interfaces_that_exist_are_uplinks() {
        assert!(check_interface("lo").is_ok());
        assert!(check_interface("no-such-if").is_err());
        assert!(check_interface("").is_err());
    }
}
