//! Legacy links (`docker run --link`) where dockerd keeps the containers of its default network apart (`--icc=false`): a link
//! opens the ports that the linked container exposes, and nothing else.
//!
//! dockerd refuses to start with `--icc=false` and `--iptables=false`. So it has its rules here, and three times somebody else
//! decides: the rules; netpath, since the bridge doesn't ask them; netpath in sole mode, which it is told to take.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::dockerd::Restart;
use netpath_tests::icmp::ping;
use netpath_tests::lab::Lab;
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::wait;

use super::reach::expect_silence;

pub(crate) const CASES: &[Case] =
    &[Case::new("with --icc=false a link opens the linked container's exposed ports, and nothing else", links)
        .own_netpath()
        .takeover()
        .minutes(5)];

/// Whether the bridge asks Docker's rules.
const SWITCH: &str = "net/bridge/bridge-nf-call-iptables";

/// How long it takes to believe that no answer comes.
const PATIENCE: Duration = Duration::from_millis(300);

/// How soon a link works after `docker run`.
const SOON: Duration = Duration::from_secs(5);

fn at(container: &Container, port: u16) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(container.address()?, port))
}

fn expect_no_answer(place: &Place, target: SocketAddrV4) -> Result<()> {
    let client = UdpClient::connect(place, target)?;
    client.give_up_after(PATIENCE)?;
    ensure!(client.ask("anybody?").is_err(), "{} has got an answer of {target} by UDP", place.label());
    Ok(())
}

fn links(lab: &mut Lab) -> Result<()> {
    lab.restart_dockerd(Restart::WithoutIcc, |_| Ok(()))?;
    let outcome = by_turns(lab);
    lab.host().sysctl(SWITCH, "1")?;
    lab.remove_containers()?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    outcome
}

fn by_turns(lab: &mut Lab) -> Result<()> {
    lab.host().sysctl(SWITCH, "1")?;
    lab.start_netpath(Options::default())?;
    play(lab, Decides::Docker).context("Docker's rules decide")?;
    if !lab.tests_netpath() {
        return Ok(());
    }
    lab.host().sysctl(SWITCH, "0")?;
    lab.start_netpath(Options::default())?;
    play(lab, Decides::Netpath).context("the bridge doesn't ask Docker's rules")?;
    lab.start_netpath(Options::new(&["--mode", "sole"]))?;
    play(lab, Decides::Netpath).context("in sole mode")
}

/// Who decides what passes between neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decides {
    Docker,
    Netpath,
}

fn play(lab: &mut Lab, decides: Decides) -> Result<()> {
    let serving = lab.docker().serving(&["tcp:80", "udp:80", "tcp:81", "udp:81"]).option("--name", "linked-db");
    let server = lab.start(serving.option("--expose", "80/tcp").option("--expose", "80/udp"))?;
    let linked = lab.start(lab.docker().idle().option("--link", "linked-db:db"))?;
    let stranger = lab.start(lab.docker().idle())?;
    let (place, others) = (linked.place()?, stranger.place()?);

    wait::until("the link to open", SOON, || TcpClient::connect_within(&place, 0, at(&server, 80)?, PATIENCE))?
        .echo("over the link")?;
    UdpClient::connect(&place, at(&server, 80)?)?.ask("over the link").context("by UDP")?;
    expect_silence(&place, at(&server, 81)?).context("a port that isn't exposed")?;
    expect_no_answer(&place, at(&server, 81)?)?;
    ensure!(ping(&place, server.address()?).is_err(), "a link opens no ping");
    expect_silence(&others, at(&server, 80)?).context("who isn't linked")?;
    expect_no_answer(&others, at(&server, 80)?)?;
    // The other way round it is closed, but for answers.
    let _listens = place.enter(|| netpath_tests::server::Server::tcp(netpath_tests::server::any(80)))?;
    expect_silence(&*server.place()?, at(&linked, 80)?).context("back over the link")?;
    if decides == Decides::Netpath {
        ensure!(lab.netpath()?.drops("icc_off")? >= 4, "nothing was counted");
        ensure!(lab.netpath()?.traffic("local")?.packets > 0, "netpath doesn't carry what is linked");
    }
    drop(linked);
    let next = lab.start(lab.docker().idle())?;
    expect_silence(&*next.place()?, at(&server, 80)?).context("a container at the linked one's address")
}
