//! Attaches the programs that lead the host's own sockets to published ports.
//!
//! They sit at the root of the machine's cgroups and are limited to the host's network namespace by its number
//! (`HOST_NETNS_COOKIE`). Links at a cgroup let others be: several netpaths in namespaces of their own get on beside each
//! other. As with other links the pin keeps a program attached, and a start puts its own program into a pinned link.

use std::{
    ffi::CString,
    fs::File,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};
use netpath_common::abi::names::program;

use super::{attach, bpf, cgroup, interface, layout::Layout};

/// Loads and attaches every program, or adopts its pinned link.
pub(super) fn attach(layout: &Layout, ebpf: &mut Ebpf) -> anyhow::Result<()> {
    interface::netns_cookie().context("the kernel doesn't number network namespaces; that came with Linux 5.14")?;
    let root = cgroup::open_root()?;
    for name in program::SOCKETS {
        let program = socket_program(ebpf, name)?;
        program.load().with_context(|| format!("the kernel refused the program {name}"))?;
        attach_one(program, name, &root, &layout.socket_link(name))?;
    }
    Ok(())
}

/// Whether every program is attached, by the pins.
pub(super) fn is_attached(layout: &Layout) -> bool {
    program::SOCKETS.iter().all(|name| layout.socket_link(name).exists())
}

/// Detaches the programs and gives how many there were.
pub(super) fn detach(layout: &Layout) -> anyhow::Result<usize> {
    let mut detached = 0;
    for name in program::SOCKETS {
        detached += usize::from(attach::remove_link(&layout.socket_link(name))?);
    }
    Ok(detached)
}

fn attach_one(program: &mut CgroupSockAddr, name: &str, root: &File, pin: &Path) -> anyhow::Result<()> {
    if pin.exists() {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        match bpf::update_link(&path, program.fd()?.as_fd()) {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::debug!(pin = %pin.display(), %error, "a pinned link takes no other program; replacing it");
            }
        }
        attach::remove_link(pin)?;
    }
    let what = || format!("can't attach {name} to the root of the cgroups");
    // A link always lets others be, whatever the mode says.
    let id = program.attach(root, CgroupAttachMode::Single).with_context(what)?;
    let link: FdLink = program.take_link(id).with_context(what)?.try_into().with_context(what)?;
    link.pin(pin).with_context(|| format!("can't pin {}", pin.display()))?;
    Ok(())
}

fn socket_program<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut CgroupSockAddr> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("the eBPF object lacks the program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no program of sockets"))
}
