//! Attaches the programs that lead the host's own sockets to published ports, and ends the sockets that can't be led on.
//!
//! They sit at the root of the machine's cgroups and are limited to the host's network namespace by its number
//! (`HOST_NETNS_COOKIE`). Links at a cgroup let others be: several netpaths in namespaces of their own get on beside each
//! other. As with other links the pin keeps a program attached, and a start puts its own program into a pinned link.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddrV4},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};
use netpath_common::{
    abi::{
        Asked, AskedKey, Mode,
        names::{map, program},
    },
    path::from_socket,
    wire::protocol,
};

use super::{attach, bpf, cgroup, interface, layout::Layout, pins, socket_diag};
use crate::desired::{
    model::{Change, Protocol, State},
    ports::{PortBlock, PublishedTarget},
};

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

/// What the kernel must be told before it takes a packet with addresses of 127.0.0.0/8 that a program has put on the loopback
/// interface: one that a socket has sent there by itself has been routed before and isn't asked again.
const ON_LOOPBACK: [&str; 2] = ["route_localnet", "accept_local"];

/// In sole mode lets the answers to sockets that are bound to 127.0.0.0/8 in: see `path::bound_to_loopback`. The settings are of
/// the loopback interface alone, by which nobody but the host sends; so they stay when netpath goes.
pub(super) fn let_answers_in(mode: Mode) {
    for name in ON_LOOPBACK.into_iter().filter(|_| mode == Mode::Sole) {
        let path = format!("/proc/sys/net/ipv4/conf/lo/{name}");
        let is_set = fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
        if !is_set && let Err(error) = fs::write(&path, "1") {
            tracing::warn!(%path, %error, "sockets that are bound to 127.0.0.1 won't reach published ports: can't write 1");
        }
    }
}

/// The containers' ports of UDP to which sockets of the host were led and, after a change, aren't any more.
pub(super) fn left(state: &State, change: &Change) -> BTreeSet<SocketAddrV4> {
    let blocks: Vec<(&PortBlock, Option<&PublishedTarget>)> = match change {
        Change::SetPublished(blocks) => blocks.iter().map(|(block, target)| (block, Some(target))).collect(),
        Change::RemovePublished(blocks) => blocks.iter().map(|block| (block, None)).collect(),
        _ => Vec::new(),
    };
    let udp = blocks.into_iter().filter(|(block, _)| block.first.protocol == Protocol::Udp);
    udp.filter_map(|(block, target)| Some((block, state.published.get(block).filter(|old| Some(*old) != target)?)))
        .flat_map(|(block, old)| block.ports(*old))
        .map(|(_, old)| SocketAddrV4::new(old.address, old.port))
        .collect()
}

/// Ends the connected UDP sockets that were led to containers' ports: what they send would be lost, or another's.
pub(super) fn end_sockets(layout: &Layout, left: &BTreeSet<SocketAddrV4>) {
    if left.is_empty() {
        return;
    }
    let ended = open_asked(layout).and_then(|asked| end_led(asked, Protocol::Udp, left));
    tell(ended, Protocol::Udp);
}

/// Ends the TCP connections that were led to a container's address which is nobody's any more: nothing would answer what they
/// send, and who only waits would wait for ever.
pub(super) fn end_connections(layout: &Layout, address: Ipv4Addr) {
    let ended = open_asked(layout).and_then(|asked| {
        let mut targets = BTreeSet::new();
        pins::walk::<AskedKey, Asked>(&asked, map::ASKED, |key, _| {
            if key.address == address.octets() && key.protocol == protocol::TCP {
                targets.insert(SocketAddrV4::new(address, u16::from_be_bytes(key.port)));
            }
        })?;
        end_led(asked, Protocol::Tcp, &targets)
    });
    tell(ended, Protocol::Tcp);
}

fn open_asked(layout: &Layout) -> anyhow::Result<MapData> {
    MapData::from_pin(layout.map(map::ASKED)).context("can't open the map of what sockets asked for")
}

/// Ends the sockets that are connected to a target and were led there, and gives how many there were.
fn end_led(asked: MapData, protocol: Protocol, targets: &BTreeSet<SocketAddrV4>) -> anyhow::Result<usize> {
    let asked = HashMap::<_, AskedKey, Asked>::try_from(Map::LruHashMap(asked))?;
    targets.iter().try_fold(0, |ended, target| {
        let (address, port) = (target.ip().octets(), target.port().to_be_bytes());
        let was_led = |cookie| asked.get(&from_socket::key(cookie, address, port, protocol.number()), 0).is_ok();
        Ok(ended + socket_diag::end(protocol, *target, was_led)?)
    })
}

fn tell(ended: anyhow::Result<usize>, protocol: Protocol) {
    match ended {
        Ok(0) => {}
        Ok(sockets) => {
            tracing::debug!(sockets, %protocol, "ended connected sockets of the host whose container is gone");
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, %protocol, "sockets of the host may go on sending to a container that is gone");
        }
    }
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
