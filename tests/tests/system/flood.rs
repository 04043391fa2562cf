//! Too many flows at once: floods of clients that don't exist fill the table and are swept out again, and whoever talks
//! goes on talking.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpath::dataplane::Pins;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::flood::{Flood, Kind};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netpath::Options;
use netpath_tests::traffic::{BackgroundTransfer, Direction, UdpStream};
use netpath_tests::wait;
use tempfile::NamedTempFile;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "under a flood of SYNs transfers go on, new connections find room, and a warning comes and goes",
        |lab| flood(lab, Kind::Syn, Answers::Some),
    )
    .own_netpath(),
    Case::new("under a flood of unanswered datagrams transfers go on, and new connections find room", |lab| {
        flood(lab, Kind::Datagram, Answers::None)
    })
    .own_netpath(),
    Case::new("under a flood of answered datagrams transfers go on, and new connections find room", |lab| {
        flood(lab, Kind::Datagram, Answers::All)
    })
    .own_netpath(),
    Case::new("10,000 new flows a second are collected in pairs, and no living one with them", collected).own_netpath(),
];

/// The flooded port.
const FLOODED: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);
/// A port of another container.
const SERVED: SocketAddrV4 = SocketAddrV4::new(HOST, 8090);

/// How long a flood lasts: every place in the table is fought for many times.
const DURATION: Duration = Duration::from_secs(5);

/// How long flows are opened for the collector.
const LOAD: Duration = Duration::from_secs(7);

/// A client that finds no room tries again after a second, then two.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the flooded container answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Not at all: its socket only listens.
    None,
    /// As its kernel answers SYNs.
    Some,
    /// Each datagram.
    All,
}

/// Transfers through a published port and out of a container, and what they need.
struct Transfers {
    all: Vec<BackgroundTransfer>,
    _ends: (netpath_tests::container::Container, netpath_tests::container::Container, netpath_tests::server::Server),
}

impl Transfers {
    fn start(lab: &mut Lab) -> Result<Self> {
        let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8090:80"))?;
        let client = lab.start(lab.docker().idle())?;
        let (lan_server, lan) = lab.lan_tcp()?;
        let published = connect(lab, SERVED)?;
        let masqueraded = TcpClient::connect(&*client.place()?, lan)?;
        let all = vec![
            BackgroundTransfer::start(published, Direction::Download)?,
            BackgroundTransfer::start(masqueraded, Direction::Upload)?,
        ];
        Ok(Self { all, _ends: (server, client, lan_server) })
    }

    fn expect_alive(&mut self) -> Result<()> {
        self.all.iter_mut().try_for_each(BackgroundTransfer::expect_alive)
    }

    fn finish(self) -> Result<()> {
        self.all.into_iter().try_for_each(BackgroundTransfer::finish)
    }
}

/// Starts netpath with a table of a size and short times for what floods leave behind. The file must outlive the test.
fn start(lab: &mut Lab, flows_max: &str) -> Result<NamedTempFile> {
    const SHORT: &[&str] = &["syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close"];
    let mut file = NamedTempFile::new().context("make a file")?;
    let tcp: String = SHORT.iter().map(|state| format!("tcp_{state} = 1\n")).collect();
    write!(file, "[timeouts]\nudp_unreplied = 1\nudp_replied = 1\nudp_stream = 5\n{tcp}").context("write the file")?;
    let path = file.path().to_string_lossy().into_owned();
    lab.start_netpath(Options::new(&["--flows-max", flows_max, "--config", &path]))?;
    Ok(file)
}

fn flood(lab: &mut Lab, kind: Kind, answers: Answers) -> Result<()> {
    const CAPACITY: u64 = 2048;
    let _configuration = start(lab, &CAPACITY.to_string())?;
    let log_before = lab.netpath()?.log()?.len();
    let ports: &[&str] = if answers == Answers::None { &["tcp:80"] } else { &["tcp:80", "udp:80"] };
    let victim = lab.start(lab.docker().serving(ports).publish("8080:80").publish("8080:80/udp"))?;
    let _silent = match answers {
        Answers::None => Some(victim.place()?.enter(|| Ok(UdpSocket::bind("0.0.0.0:80")?))?),
        Answers::Some | Answers::All => None,
    };
    let mut transfers = Transfers::start(lab)?;

    let flood = Flood::start(lab.lan(), kind, FLOODED, None)?;
    let begun = Instant::now();
    let mut fullest = 0;
    while begun.elapsed() < DURATION {
        transfers.expect_alive().with_context(|| format!("in the flood, {:.0} packets/s", flood.rate()))?;
        let flows = lab.netpath()?.status()?.flows;
        ensure!(flows.capacity == CAPACITY, "the table holds {flows:?}");
        // Counted while it changes, it may seem to hold a little more than it can.
        ensure!(flows.used <= CAPACITY * 11 / 10, "the table holds {flows:?}");
        ensure!(flows.nearly_full == (flows.used * 10 >= CAPACITY * 9), "status doesn't warn as it should: {flows:?}");
        fullest = fullest.max(flows.used);
    }
    wait::until("a new connection in the flood", PATIENCE, || {
        TcpClient::connect_within(lab.lan(), 0, SERVED, PATIENCE / 3)?.echo("hello")
    })?;
    let rate = flood.rate();
    let sent = flood.end()?;
    let (evicted, refused) =
        (lab.netpath()?.traffic("flows_evicted")?.packets, lab.netpath()?.drops("flow_table_full")?);
    println!("{kind:?}: {sent} packets, {rate:.0}/s; {evicted} flows evicted, {refused} packets found no room");
    ensure!(fullest * 10 >= CAPACITY * 9, "only {fullest} of {CAPACITY} places were ever used, by {sent} packets");
    ensure!(evicted > CAPACITY, "only {evicted} flows made room for {sent}");
    transfers.expect_alive().context("after the flood")?;
    transfers.finish()?;
    expect_told(lab, log_before)
}

/// Fails unless the daemon has told once that the table was nearly full, and tells once that there is room again.
fn expect_told(lab: &mut Lab, log_before: usize) -> Result<()> {
    wait::until("the daemon to tell that there is room again", PATIENCE, || {
        let log = lab.netpath()?.log()?;
        let told = |text| log[log_before..].matches(text).count();
        let counts = (told("the flow table is nearly full"), told("the flow table has room again"));
        ensure!(counts == (1, 1), "it has told {counts:?}");
        Ok(())
    })
}

/// Entries of the flow table, and how many of them lack their other half.
fn entries(lab: &mut Lab) -> Result<(usize, usize)> {
    let flows = Pins::open(lab.netpath()?.pins())?.flows()?;
    let keys: BTreeSet<_> = flows.iter().map(|(key, _)| *key).collect();
    let halves = flows.iter().filter(|(key, flow)| !keys.contains(&flow.reply_key(key.protocol))).count();
    Ok((flows.len(), halves))
}

/// Waits until the table holds so many flows and nothing else.
fn expect_flows(lab: &mut Lab, flows: usize) -> Result<()> {
    wait::until(&format!("{flows} flows to be left"), PATIENCE, || {
        let (entries, halves) = entries(lab)?;
        ensure!((entries, halves) == (2 * flows, 0), "there are {entries} entries, {halves} of them half a flow");
        Ok(())
    })
}

fn collected(lab: &mut Lab) -> Result<()> {
    /// What the collector must keep up with, and what is sent for it.
    const RATE: u32 = 10_000;
    const SENT: u32 = RATE + RATE / 10;
    const IDLE: usize = 20;
    let _configuration = start(lab, "262144")?;
    let victim = lab.start(lab.docker().idle().publish("8080:80/udp"))?;
    let _silent = victim.place()?.enter(|| Ok(UdpSocket::bind("0.0.0.0:80")?))?;
    let server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8090:80").publish("8090:80/udp"))?;
    let (_lan_server, lan) = lab.lan_tcp()?;
    connect(lab, SERVED)?;
    expect_flows(lab, 0).context("at the beginning")?;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpClient::connect(lab.lan(), SERVED)?);
        idle.push(TcpClient::connect(&*server.place()?, lan)?);
    }
    let questions = [UdpStream::start(UdpClient::connect(lab.lan(), SERVED)?)];
    let living = idle.len() + questions.len();

    let opened = |lab: &mut Lab| anyhow::Ok(lab.netpath()?.traffic("flows_opened")?.packets);
    let before = opened(lab)?;
    let flood = Flood::start(lab.lan(), Kind::Datagram, FLOODED, Some(SENT))?;
    let begun = Instant::now();
    // The load itself; a second more than the shortest time that a flow lives.
    thread::sleep(LOAD);
    let rate = (opened(lab)? - before) as f64 / begun.elapsed().as_secs_f64();
    let used = lab.netpath()?.status()?.flows.used;
    let sent = flood.end()?;
    let dropped = lab.netpath()?.drops("flow_table_full")?;
    println!("{rate:.0} flows opened a second for {LOAD:?}; {used} were in the table when {sent} had been sent");
    ensure!(rate >= f64::from(RATE), "this machine opened {rate:.0} flows a second, {RATE} were to be collected");
    ensure!(dropped == 0, "{dropped} packets found no room: the collector didn't keep up");

    expect_flows(lab, living).context("when the flood has ended")?;
    idle.iter_mut().try_for_each(|connection| connection.echo("still there"))?;
    let [questions] = questions;
    questions.finish()?;
    let collected = lab.netpath()?.traffic("flows_collected")?.packets;
    ensure!(collected >= sent, "{sent} flows were opened, {collected} collected");
    drop(idle);
    expect_flows(lab, 0).context("at the end")
}
