//! How long the host's way lasts: beyond the daemon, and not beyond detach.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use netpath_common::abi::Mode;
use netpath_common::abi::names::program;
use netpath_tests::client::TcpClient;
use netpath_tests::lab::Lab;
use netpath_tests::netpath::Options;
use netpath_tests::proof::{Attached, expect_unloaded};
use netpath_tests::traffic::{BackgroundTransfer, Direction};
use netpath_tests::wait;

use super::{PORT, ask_unconnected, connect, ready, who};

pub(super) fn survives(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:53"]).publish("8080:80").publish("8080:53/udp"))?;
    ready(lab)?;
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    let mut transfers = Vec::new();
    for direction in [Direction::Download, Direction::Upload] {
        transfers.push(BackgroundTransfer::start(TcpClient::connect(lab.host(), local)?, direction)?);
    }
    let idle = lab.host().enter(|| Ok(TcpStream::connect(local)?))?;
    let mut expect_alive = |when: &str, lab: &Lab| {
        transfers.iter_mut().try_for_each(BackgroundTransfer::expect_alive).context(when.to_owned())?;
        who(&idle).context(when.to_owned())?;
        ensure!(idle.peer_addr()? == local.into(), "{when} the peer is {:?}", idle.peer_addr());
        connect(lab.host(), local.into()).context(when.to_owned())?;
        ask_unconnected(lab.host(), local.into()).context(when.to_owned())
    };
    expect_alive("with the daemon", lab)?;
    let before = programs(lab)?;
    lab.netpath()?.kill()?;
    expect_alive("without the daemon", lab)?;
    lab.netpath()?.start_again()?;
    expect_alive("after the restart", lab)?;
    let after = programs(lab)?;
    let swapped = before.iter().zip(&after).all(|(before, after)| before.link == after.link && before.id != after.id);
    ensure!(swapped, "links {before:?} became {after:?}, not the same with other programs");
    transfers.into_iter().try_for_each(BackgroundTransfer::finish)
}

pub(super) fn detached(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    ready(lab)?;
    let access = lab.netpath()?.status()?.host_access;
    ensure!(access.attached && access.error.is_none(), "status shows {access:?}");
    let stream = lab.host().enter(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?))?;
    who(&stream)?;
    lab.netpath()?.kill()?;
    let dead = lab.netpath()?.status()?.host_access;
    ensure!(dead.attached, "without a daemon status shows {dead:?}");
    let programs = programs(lab)?;
    let loaded: Vec<_> = programs
        .into_iter()
        .map(|program| Attached {
            interface: "cgroup".to_owned(),
            hook: "cgroup".to_owned(),
            program: program.name,
            id: program.id,
        })
        .collect();
    lab.netpath()?.detach()?;
    wait::until("the programs to go", Duration::from_secs(5), || expect_unloaded(&loaded, &Default::default()))?;
    // What was led to the container stays there: a plain connection between the bridge's address and the container's.
    who(&stream)?;
    if lab.mode() == Mode::Takeover {
        // docker-proxy serves again.
        connect(lab.host(), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))?;
    }
    Ok(())
}

/// A program of the host's sockets that is attached.
#[derive(Debug)]
struct Program {
    name: String,
    link: u32,
    id: u32,
}

fn programs(lab: &mut Lab) -> Result<Vec<Program>> {
    let links = lab.netpath()?.pins().join("links");
    let read = |name: &&str| {
        let link = FdLink::from(PinnedLink::from_pin(links.join(format!("cgroup_{name}")))?);
        let info = link.info()?;
        Ok(Program { name: (*name).to_owned(), link: info.id(), id: info.program_id() })
    };
    program::SOCKETS.iter().map(read).collect()
}
