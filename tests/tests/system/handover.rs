//! A live host moves from Docker's rules to netpath and back, and keeps its connections.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::Lab;
use netpath_tests::netpath::Options;
use netpath_tests::proof::{NatCounters, attached, expect_unloaded, expect_untracked, maps_of};
use netpath_tests::wait;

use super::live::Live;
use super::reach;

pub(crate) const CASES: &[Case] = &[
    Case::new("attaching in the middle of traffic breaks nothing, and new connections are netpath's", attach)
        .own_netpath()
        .takeover(),
    Case::new("detaching in the middle of traffic breaks nothing, and Docker's rules carry on", |lab| {
        detach(lab, Options::default())
    })
    .own_netpath()
    .takeover(),
    Case::new("with clsact, detaching in the middle of traffic breaks nothing", |lab| {
        detach(lab, Options::new(&["--tc", "clsact"]))
    })
    .own_netpath()
    .takeover(),
    Case::new("attaching, detaching and attaching again breaks nothing", there_and_back).own_netpath().takeover(),
    Case::new("detaching leaves no program, map or pin", |lab| leaves_nothing(lab, Options::default())).own_netpath(),
    Case::new("with clsact and XDP, detaching leaves no program, map or pin", |lab| {
        leaves_nothing(lab, Options::new(&["--tc", "clsact", "--xdp", "generic"]))
    })
    .own_netpath(),
    Case::new("a dead daemon's pins are detached without it", detach_after_kill).own_netpath(),
];

/// Programs and maps are freed by the kernel a moment after their last user has gone.
const FREE_DEADLINE: Duration = Duration::from_secs(5);

fn attach(lab: &mut Lab) -> Result<()> {
    let mut live = Live::start(lab)?;
    live.expect_alive().context("before netpath")?;
    lab.start_netpath(Options::default())?;
    live.expect_alive().context("with netpath")?;
    expect_carried_by_netpath(lab, &live).context("new connections")?;
    live.expect_alive().context("after new connections")?;
    live.finish()
}

fn detach(lab: &mut Lab, options: Options) -> Result<()> {
    lab.start_netpath(options)?;
    let mut live = Live::start(lab)?;
    live.expect_alive().context("with netpath")?;
    let counters = NatCounters::read(lab.host())?;
    lab.netpath()?.detach()?;
    live.expect_alive().context("after detaching")?;
    live.expect_new(lab).context("after detaching")?;
    counters.expect_moved(lab.host()).context("new connections after detaching")?;
    live.finish()
}

fn there_and_back(lab: &mut Lab) -> Result<()> {
    let mut live = Live::start(lab)?;
    lab.start_netpath(Options::default())?;
    live.expect_alive().context("after attaching")?;
    lab.netpath()?.detach()?;
    live.expect_alive().context("after detaching")?;
    lab.netpath()?.start_again()?;
    live.expect_alive().context("after attaching again")?;
    live.expect_new(lab)?;
    live.finish()
}

fn leaves_nothing(lab: &mut Lab, options: Options) -> Result<()> {
    lab.start_netpath(options)?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8100:80"))?;
    reach::connect(lab, super::live::published())?.echo("in use")?;
    let programs = attached(lab.host())?;
    let maps = maps_of(&programs)?;
    ensure!(
        programs.len() >= 3 && !maps.is_empty(),
        "expected uplink, bridge and container to be attached: {programs:?}"
    );
    lab.netpath()?.detach()?;
    expect_nothing(lab)?;
    wait::until("programs and maps to be freed", FREE_DEADLINE, || expect_unloaded(&programs, &maps))
}

fn detach_after_kill(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8100:80"))?;
    reach::connect(lab, super::live::published())?;
    lab.netpath()?.kill()?;
    lab.netpath()?.detach()?;
    expect_nothing(lab)?;
    if lab.mode() == Mode::Takeover {
        reach::connect(lab, super::live::published()).context("through Docker's rules")?;
    }
    lab.netpath()?.expect_code(&["status"], 3).map(drop)
}

fn expect_nothing(lab: &mut Lab) -> Result<()> {
    let left = attached(lab.host())?;
    ensure!(left.is_empty(), "still attached: {left:?}");
    let pins = lab.netpath()?.pins();
    ensure!(!pins.exists(), "{} is still there", pins.display());
    Ok(())
}

/// New connections of every kind, with proof that netfilter has no part in them.
fn expect_carried_by_netpath(lab: &mut Lab, live: &Live) -> Result<()> {
    let counters = NatCounters::read(lab.host())?;
    live.expect_new(lab)?;
    let mut published = TcpClient::connect(lab.lan(), super::live::published())?;
    published.echo("published")?;
    let masqueraded = UdpClient::connect(&*live.clients[1].place()?, live.lan_udp)?;
    masqueraded.ask("masqueraded")?;
    counters.expect_unmoved(lab.host())?;
    expect_untracked(lab.host(), published.local(), published.remote())?;
    expect_untracked(lab.host(), masqueraded.local(), masqueraded.remote())
}
