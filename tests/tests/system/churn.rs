//! Containers come and go by the hundred while others talk: nobody notices, ports work at once, also a thousand of one
//! container, nothing is left.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use netpath_common::abi::names::{SCHEMA, map};
use netpath_common::abi::{FlowRegion, FlowTable};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, Docker};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::traffic::{BackgroundTransfer, Direction, UdpStream};
use netpath_tests::{run, shell, wait};
use serde_json::Value;

use super::reach::{ask, connect, connect_from};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "containers come and go by the dozen: others lose nothing, ports work at once, the maps are empty then",
        churn,
    )
    .own_netpath()
    .minutes(20),
    Case::new("a thousand ports work a tenth of a second after Docker tells of their container", thousand)
        .sole()
        .minutes(10),
];

/// How many containers come and go, unless `NETPATH_CHURN` says otherwise: dockerd needs most of a second for each.
const CONTAINERS: usize = 60;

/// How many are started and removed at the same time.
const AT_ONCE: usize = 3;

/// How long after Docker's event of a container's start its ports may still not work, of 99 in 100; of 90 where there
/// are too few to tell, and one that the machine was too busy for would decide.
const REACTION: Duration = Duration::from_millis(50);

/// From so many on, the 99th of a hundred is more than the last one.
const ENOUGH: usize = 200;

/// How long after Docker's event of a container's start all of a thousand ports may still not work.
const REACTION_OF_THOUSAND: Duration = Duration::from_millis(100);

/// How many containers may try for that: what else the machine does would decide about a single one.
const TRIES: usize = 3;

/// How often a new port is tried.
const PROBES: Duration = Duration::from_millis(2);

/// A port that doesn't work then never will; what takes long but not so long shows in the percentiles.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the others ask.
const PACE: Duration = Duration::from_millis(5);

/// How soon nothing is left.
const EMPTY: Duration = Duration::from_secs(15);

/// What must be as before when the containers are gone, and empty when all are.
const CONTAINERS_MAPS: [&str; 2] = ["ENDPOINTS", "PUBLISHED"];

fn churn(lab: &mut Lab) -> Result<()> {
    let count = match std::env::var("NETPATH_CHURN") {
        Ok(text) => text.parse().with_context(|| format!("NETPATH_CHURN is {text:?}, which is no number"))?,
        Err(_) => CONTAINERS,
    };
    lab.start_netpath(Options::default())?;
    let others = Others::start(lab)?;
    let maps = Maps::of(lab.netpath()?);
    let (before, links) = (maps.entries()?, links(lab.netpath()?)?);
    let events = Starts::follow(lab)?;
    let worked = come_and_go(lab, count)?;
    let started = events.end()?;
    report(lab.mode().name(), &worked, &started)?;
    wait::until("the maps to be as before", EMPTY, || {
        let now = maps.entries()?;
        ensure!(now == before, "before: {before:?}, after: {now:?}");
        Ok(())
    })?;
    wait::until("the links to be as before", EMPTY, || {
        let now = self::links(lab.netpath_ref()?)?;
        ensure!(now == links, "before: {links:?}, after: {now:?}");
        Ok(())
    })?;
    others.finish()?;
    wait::until("the maps to be empty", EMPTY, || {
        for map in CONTAINERS_MAPS {
            let left = maps.dump(map)?;
            ensure!(left.is_empty(), "{map} has {} entries left, such as {}", left.len(), left[0]);
        }
        let (counted, tagged) = maps.flow_entries()?;
        ensure!((counted, tagged) == (0, 0), "of flows {counted} entries are counted and {tagged} are there");
        Ok(())
    })
}

/// Those who talk meanwhile.
struct Others {
    transfers: Vec<BackgroundTransfer>,
    streams: Vec<UdpStream>,
    idle: Vec<TcpClient>,
    _containers: [Container; 2],
    _servers: [netpath_tests::server::Server; 2],
}

impl Others {
    fn start(lab: &mut Lab) -> Result<Self> {
        let server = lab.docker().serving(&["tcp:80", "udp:80"]).publish("8100:80").publish("8100:80/udp");
        let (server, client) = (lab.start(server)?, lab.start(lab.docker().idle())?);
        let ((tcp, lan_tcp), (udp, lan_udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
        let (target, place) = (SocketAddrV4::new(HOST, 8100), client.place()?);
        let inside = SocketAddrV4::new(server.address()?, 80);
        connect(lab, target)?;
        let streams = vec![
            UdpStream::paced(ask(lab, target)?, PACE),
            UdpStream::paced(UdpClient::connect(&place, lan_udp)?, PACE),
            UdpStream::paced(UdpClient::connect(&place, inside)?, PACE),
        ];
        let transfers = vec![
            BackgroundTransfer::start(connect(lab, target)?, Direction::Download)?,
            BackgroundTransfer::start(connect_from(&place, lan_tcp)?, Direction::Upload)?,
        ];
        let idle = vec![connect(lab, target)?, connect_from(&place, lan_tcp)?];
        Ok(Self { transfers, streams, idle, _containers: [server, client], _servers: [tcp, udp] })
    }

    fn finish(mut self) -> Result<()> {
        self.idle.iter_mut().try_for_each(|idle| idle.echo("still there")).context("an idle connection")?;
        self.streams.drain(..).try_for_each(UdpStream::finish)?;
        self.transfers.drain(..).try_for_each(BackgroundTransfer::finish)?;
        Ok(())
    }
}

/// Starts and removes so many containers, and gives when each one's port first worked.
fn come_and_go(lab: &Lab, count: usize) -> Result<BTreeMap<String, Duration>> {
    let next = AtomicUsize::new(0);
    let worked = Mutex::new(BTreeMap::new());
    let (lan, docker) = (lab.lan(), lab.docker().patient());
    let work = |docker: &Docker| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let (id, when) = one(docker, lan, number).with_context(|| format!("container {number}"))?;
            worked.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?.insert(id, when);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| work(&docker))).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    worked.into_inner().context("a worker panicked")
}

fn one(docker: &Docker, lan: &Place, number: usize) -> Result<(String, Duration)> {
    let port = u16::try_from(20_000 + number)?;
    let probe = Probe::start(lan, SocketAddrV4::new(HOST, port))?;
    let request = docker.serving(&["tcp:80", "udp:80"]);
    let container = request.publish(&format!("{port}:80")).publish(&format!("{port}:80/udp")).start()?;
    let worked = probe.end()?;
    // The other one as well.
    connect_from(lan, SocketAddrV4::new(HOST, port))?.forget()?;
    Ok((container.id().to_owned(), worked))
}

/// Asks at a port without an end, from a new socket each time, until there is an answer.
struct Probe {
    thread: JoinHandle<Result<Duration>>,
    given_up: std::sync::Arc<AtomicBool>,
}

impl Probe {
    fn start(lan: &Place, target: SocketAddrV4) -> Result<Self> {
        let given_up = std::sync::Arc::new(AtomicBool::new(false));
        let stop = std::sync::Arc::clone(&given_up);
        let place = Place::open("lan", std::path::Path::new(&lan.path()))?;
        Ok(Self { thread: thread::spawn(move || place.enter(|| first_answer(target, &stop))), given_up })
    }

    /// When the port first worked.
    fn end(self) -> Result<Duration> {
        let ended = wait::until_true("an answer of the port", ANSWER, || Ok(self.thread.is_finished()));
        self.given_up.store(true, Ordering::Relaxed);
        let Ok(result) = self.thread.join() else { bail!("the probe panicked") };
        ended.and(result)
    }
}

fn first_answer(target: SocketAddrV4, given_up: &AtomicBool) -> Result<Duration> {
    loop {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(PROBES))?;
        socket.send(b"there?")?;
        match socket.recv(&mut [0; 64]) {
            Ok(_) => return Ok(SystemTime::now().duration_since(UNIX_EPOCH)?),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // Before dockerd has the port, and before the container listens.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(PROBES),
            Err(error) => return Err(error).context("ask at the new port"),
        }
        ensure!(!given_up.load(Ordering::Relaxed), "there was no answer");
    }
}

/// Docker's events of containers that start, and when: it remembers only the latest itself.
struct Starts {
    child: Child,
    thread: JoinHandle<Result<BTreeMap<String, Duration>>>,
}

impl Starts {
    fn follow(lab: &Lab) -> Result<Self> {
        let mut command = Command::new("docker");
        command.args(["--host", &lab.docker_host(), "events", "--filter", "event=start", "--format", "{{json .}}"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = run::mark(&mut command).spawn().context("start docker events")?;
        let stdout = child.stdout.take().context("docker events has no stdout")?;
        let thread = thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.map(|line| start_of(&line).with_context(|| format!("read {line:?}"))).collect()
        });
        // Until it follows: what starts before that has no time.
        wait::until("docker events to follow", EMPTY, || {
            let sockets = shell::run_words(&["ss", "--unix", "--processes", "--no-header"])?;
            let own = format!("pid={},", child.id());
            ensure!(sockets.lines().any(|line| line.contains(&own)), "it has no connection yet");
            Ok(())
        })?;
        Ok(Self { child, thread })
    }

    fn end(mut self) -> Result<BTreeMap<String, Duration>> {
        self.child.kill().context("end docker events")?;
        self.child.wait().context("reap docker events")?;
        let Ok(result) = self.thread.join() else { bail!("the reader panicked") };
        result
    }
}

fn start_of(line: &str) -> Result<(String, Duration)> {
    let event: Value = serde_json::from_str(line)?;
    let id = event["id"].as_str().context("it has no id")?;
    Ok((id.to_owned(), Duration::from_nanos(event["timeNano"].as_u64().context("it has no time")?)))
}

/// Ports that are no range, so each stands for itself. Nobody but netpath serves them: dockerd has no rules here.
fn thousand(lab: &mut Lab) -> Result<()> {
    let ports: Vec<u16> = (0..1000).map(|number| 30_000 + 2 * number).collect();
    let events = Starts::follow(lab)?;
    let mut worked = Vec::new();
    for _ in 0..TRIES {
        let ends = [ports[0], ports[999]].map(|port| Probe::start(lab.lan(), SocketAddrV4::new(HOST, port)));
        let request = lab.docker().patient().serving(&["udp:80"]);
        let request = ports.iter().fold(request, |request, port| request.publish(&format!("{port}:80/udp")));
        let container = request.start()?;
        let when = ends.into_iter().map(|probe| probe?.end()).collect::<Result<Vec<_>>>()?;
        worked.push((container.id().to_owned(), when.into_iter().max().context("there are two probes")?));
        for port in &ports {
            ask(lab, SocketAddrV4::new(HOST, *port))?;
        }
    }
    let started = events.end()?;
    let since = |(id, worked): &(String, Duration)| {
        let started = started.get(id).with_context(|| format!("Docker told of no start of container {id}"))?;
        Ok(worked.saturating_sub(*started))
    };
    let reactions = worked.iter().map(since).collect::<Result<Vec<_>>>()?;
    println!("from Docker's event to 1,000 working ports: {reactions:?}");
    let best = reactions.iter().min().context("no container has started")?;
    ensure!(*best < REACTION_OF_THOUSAND, "1,000 ports never worked sooner than {best:?}");
    Ok(())
}

fn report(mode: &str, worked: &BTreeMap<String, Duration>, started: &BTreeMap<String, Duration>) -> Result<()> {
    let mut reactions = Vec::new();
    for (id, worked) in worked {
        let started = started.get(id).with_context(|| format!("Docker told of no start of container {id}"))?;
        // Docker's own rules may serve the port before Docker tells of it.
        reactions.push(worked.saturating_sub(*started));
    }
    reactions.sort_unstable();
    let at = |percent: usize| reactions[(reactions.len() * percent).div_ceil(100).clamp(1, reactions.len()) - 1];
    println!(
        "{mode}: {} containers; from Docker's event to the working port: 50 % {:?}, 90 % {:?}, 99 % {:?}, all {:?}",
        reactions.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    let percent = if reactions.len() < ENOUGH { 90 } else { 99 };
    ensure!(at(percent) < REACTION, "{percent} of 100 ports work after {:?}; all: {reactions:?}", at(percent));
    Ok(())
}

/// netpath's maps, as they are in the kernel.
pub(super) struct Maps {
    directory: PathBuf,
}

impl Maps {
    pub(super) fn of(netpath: &Netpath) -> Self {
        Self { directory: netpath.pins().join("maps") }
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}_v{SCHEMA}"))
    }

    /// A map's entries as bpftool shows them.
    pub(super) fn dump(&self, name: &str) -> Result<Vec<Value>> {
        let pin = self.pin(name);
        let text = shell::run_words(&["bpftool", "-j", "map", "dump", "pinned", &pin.to_string_lossy()])?;
        serde_json::from_str(&text).with_context(|| format!("read the map {name}"))
    }

    /// How many entries of flows the programs have counted, and how many there are: places with a tag, whatever lies there.
    fn flow_entries(&self) -> Result<(u64, usize)> {
        let open = |name| MapData::from_pin(self.pin(name)).map(Map::Array).with_context(|| format!("open {name}"));
        let table: Array<_, FlowTable> = open(map::FLOW_TABLE)?.try_into()?;
        let regions: Array<_, FlowRegion> = open(map::FLOW_TAGS)?.try_into()?;
        let tagged = |region: FlowRegion| region.tags.iter().map(|tags| tags.taken().count()).sum::<usize>();
        let tagged = regions.iter().map(|region| Ok(tagged(region?))).sum::<Result<_>>()?;
        Ok((table.get(&0, 0)?.entries, tagged))
    }

    /// Keys and values of the containers' maps.
    fn entries(&self) -> Result<Vec<String>> {
        let dumps = CONTAINERS_MAPS.iter().map(|map| self.dump(map)).collect::<Result<Vec<_>>>()?;
        let mut entries: Vec<_> =
            dumps.concat().iter().map(|entry| format!("{}{}", entry["key"], entry["value"])).collect();
        entries.sort();
        Ok(entries)
    }
}

/// The pinned links' names: what is attached to which interface.
fn links(netpath: &Netpath) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![netpath.pins().join("links")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}
