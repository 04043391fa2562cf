//! Connections told of as they begin and end: `netpath ct events`.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddrV4, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::container::Container;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::{shell, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub(crate) const CASES: &[Case] = &[
    Case::new("ct events tells of a connection's beginning and end", tells).own_netpath(),
    Case::new("one ct events at a time listens, and the next one may when it is killed", one_listener).own_netpath(),
    Case::new("ct events says how many events it was too slow for", loses).own_netpath(),
];

/// How soon an event must be told.
const TOLD: Duration = Duration::from_secs(5);

/// A `netpath ct events` that runs.
struct Events {
    child: Child,
    lines: Receiver<String>,
}

impl Events {
    fn start(netpath: &Netpath, words: &[&str]) -> Result<Self> {
        let mut command = netpath.command(&[&["ct", "events"], words].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start ct events")?;
        let stdout = child.stdout.take().context("ct events has no stdout")?;
        let (send, lines) = channel();
        thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
        Ok(Self { child, lines })
    }

    /// Waits until a packet would be told of: the listener's word is in the map from its first moment on.
    fn wait_until_it_listens(netpath: &Netpath) -> Result<()> {
        let map = netpath.pins().join("maps");
        wait::until("ct events to listen", TOLD, || {
            let name = std::fs::read_dir(&map).context("list the maps")?.filter_map(Result::ok);
            let pin = name.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("LISTENER"));
            let pin = pin.context("LISTENER isn't pinned")?;
            let words = ["bpftool", "-j", "map", "dump", "pinned", &pin.to_string_lossy()];
            let dump: Value = serde_json::from_str(&shell::run_words(&words)?).context("read the map")?;
            let bytes = dump[0]["value"].as_array().context("the map has no value")?;
            ensure!(bytes.iter().any(|byte| byte != "0x00"), "nobody listens: {dump}");
            Ok(())
        })
    }

    fn expect(&self, what: &str, mut fits: impl FnMut(&str) -> bool) -> Result<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(TOLD).with_context(|| format!("no {what} after {seen:?}"))?;
            if fits(&line) {
                return Ok(line);
            }
            seen.push(line);
        }
    }

    fn end(mut self, signal: Signal) -> Result<i32> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context("signal ct events")?;
        Ok(shell::code(shell::wait_for_exit(&mut self.child, TOLD)?))
    }
}

fn tells(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let client = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_tcp()?;
    let events = Events::start(lab.netpath()?, &[])?;
    Events::wait_until_it_listens(lab.netpath()?)?;
    let mut tcp = TcpClient::connect(&*client.place()?, target)?;
    tcp.echo("hello")?;
    let (address, port, to) = (client.address()?, tcp.local().port(), target.port());
    let original = format!("src={address} dst={LAN} sport={port} dport={to}");
    let reply = format!("src={LAN} dst={HOST} sport={to} dport={port}");
    let new = events.expect("[NEW]", |line| line.contains(&original))?;
    ensure!(new == format!("    [NEW] tcp      6 120 SYN_SENT {original} [UNREPLIED] {reply}"), "{new:?}");
    let source = address.to_string();
    lab.netpath()?.expect_code(&["ct", "rm", "--src", &source, "--sport", &port.to_string()], 0)?;
    let gone = events.expect("[DESTROY]", |line| line.contains("[DESTROY]") && line.contains(&original))?;
    ensure!(gone.starts_with("[DESTROY] tcp      6 43") && gone.ends_with(&format!("{reply} [ASSURED]")), "{gone:?}");
    let code = events.end(Signal::SIGINT)?;
    ensure!(code == 0, "after Ctrl-C ct events ended with {code}");
    ends_by_itself(lab, &client, target)
}

/// `--count`, `--timeout` and JSON, without a daemon.
fn ends_by_itself(lab: &mut Lab, client: &Container, target: SocketAddrV4) -> Result<()> {
    lab.netpath()?.kill()?;
    let mut events = Events::start(lab.netpath()?, &["--count", "1", "-o", "json"])?;
    Events::wait_until_it_listens(lab.netpath()?)?;
    let first = TcpClient::connect(&*client.place()?, target)?;
    let second = TcpClient::connect(&*client.place()?, target)?;
    let line = events.expect("event", |_| true)?;
    let told: Value = serde_json::from_str(&line).context("read the event")?;
    ensure!(told["event"] == "new" && told["protocol"] == "tcp" && told["kind"] == "masquerade", "{told}");
    ensure!(told["original"]["source_port"] == first.local().port() && told["reason"].is_null(), "{told}");
    let status = shell::wait_for_exit(&mut events.child, TOLD)?;
    ensure!(status.success(), "ct events --count 1 ended with {status}");
    ensure!(events.lines.recv_timeout(TOLD).is_err(), "--count 1 printed more than one event");
    drop(second);
    let none = lab.netpath()?.expect_code(&["ct", "events", "--timeout", "300ms"], 0)?;
    ensure!(none.stdout.is_empty(), "events of nothing, or of before: {}", none.stdout);
    Ok(())
}

fn one_listener(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let first = Events::start(lab.netpath()?, &[])?;
    Events::wait_until_it_listens(lab.netpath()?)?;
    let second = lab.netpath()?.expect_code(&["ct", "events", "--timeout", "1"], 1)?;
    ensure!(second.stderr.contains("another"), "the second one says {:?}", second.stderr);
    first.end(Signal::SIGKILL)?;
    lab.netpath()?.expect_code(&["ct", "events", "--timeout", "100ms"], 0).map(drop)
}

fn loses(lab: &mut Lab) -> Result<()> {
    /// More than the ring of 256 KiB holds.
    const FLOWS: u16 = 6000;
    lab.start_netpath(Options::default())?;
    let client = lab.start(lab.docker().idle())?;
    let events = Events::start(lab.netpath()?, &["-o", "json"])?;
    Events::wait_until_it_listens(lab.netpath()?)?;
    let child = Pid::from_raw(events.child.id().cast_signed());
    kill(child, Signal::SIGSTOP).context("stop ct events")?;
    client.place()?.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").context("open a socket")?;
        for port in 10_000..10_000 + FLOWS {
            // What a port that nobody listens on answers comes back as an error of a later send.
            socket.send_to(b"hello", SocketAddrV4::new(LAN, port)).ok();
        }
        Ok(())
    })?;
    kill(child, Signal::SIGCONT).context("continue ct events")?;
    let mut told = 0;
    let line = events.expect("word of lost events", |line| {
        told += usize::from(line.contains("\"new\""));
        line.contains("\"lost\"")
    })?;
    let lost: Value = serde_json::from_str(&line).context("read how many were lost")?;
    let stats: Value = lab.netpath()?.json(&["ct", "stats"])?;
    ensure!(lost["events"] == stats["events_lost"] && lost["events"] != 0, "{lost}, {stats}");
    let (told, lost) = (told as u64, lost["events"].as_u64().unwrap_or_default());
    ensure!(told > 4000 && stats["opened"].as_u64() == Some(told + lost), "{told} were told, {lost} lost: {stats}");
    ensure!(events.end(Signal::SIGTERM)? == 0, "after SIGTERM ct events didn't end with 0");
    Ok(())
}
