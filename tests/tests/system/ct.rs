//! Connections on the command line: listed, chosen, counted, followed and removed, while they are really there.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::icmp::EchoSocket;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::report::Flow;
use netpath_tests::server::Server;
use netpath_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("ct ls shows the connections that fit its filters, and no others", filters).own_netpath(),
    Case::new("ct ls -o conntrack writes the lines of conntrack -L", lines).own_netpath(),
    Case::new("the lines of ct ls have the shape of those of the real conntrack", real_lines).own_netpath().takeover(),
    Case::new("ct rm ends one connection and leaves the others alone", removes_one).own_netpath(),
    Case::new("ct flush ends all connections, without a daemon too", flushes).own_netpath(),
    Case::new("ct stats counts what ct ls lists", counts).own_netpath(),
    Case::new("ct events tells of a connection's beginning and end", tells).own_netpath(),
    Case::new("one ct events at a time listens, and the next one may when it is killed", one_listener).own_netpath(),
    Case::new("ct events says how many events it was too slow for", loses).own_netpath(),
    Case::new("what ct can't make sense of ends with 2 and removes nothing", wrong_usage).own_netpath(),
];

/// How soon an event must be told.
const TOLD: Duration = Duration::from_secs(5);

/// A masqueraded TCP and a UDP connection, a ping, and a published TCP connection, held open.
struct Traffic {
    tcp: TcpClient,
    udp: UdpClient,
    published: TcpClient,
    lan_tcp: SocketAddrV4,
    lan_udp: SocketAddrV4,
    client: Ipv4Addr,
    server: Ipv4Addr,
    /// The identifier of the ping.
    echo: u16,
    _containers: [Container; 2],
    _servers: [Server; 2],
}

impl Traffic {
    fn start(lab: &mut Lab) -> Result<Self> {
        lab.start_netpath(Options::default())?;
        let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8090:80"))?;
        let client = lab.start(lab.docker().idle())?;
        let ((tcp_server, lan_tcp), (udp_server, lan_udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
        let place = client.place()?;
        let mut tcp = TcpClient::connect(&*place, lan_tcp)?;
        tcp.echo("hello")?;
        let udp = UdpClient::connect(&*place, lan_udp)?;
        udp.ask("hello")?;
        let echo = EchoSocket::open(&*place)?;
        // Another one each time: what a test before pinged with may be nf_conntrack's now, and stay there.
        static PINGS: AtomicU16 = AtomicU16::new(4000);
        let identifier = PINGS.fetch_add(1, Ordering::Relaxed);
        echo.request(LAN, identifier, 1, b"hello")?;
        echo.answer(identifier)?;
        let published = connect(lab, SocketAddrV4::new(HOST, 8090))?;
        Ok(Self {
            tcp,
            udp,
            published,
            lan_tcp,
            lan_udp,
            client: client.address()?,
            server: server.address()?,
            echo: identifier,
            _containers: [server, client],
            _servers: [tcp_server, udp_server],
        })
    }
}

/// What `ct ls` lists with these filters, as protocols and source ports.
fn listed(netpath: &Netpath, filters: &[&str]) -> Result<Vec<(String, u16)>> {
    let flows: Vec<Flow> = netpath.json(&[&["ct", "ls"], filters].concat())?;
    let mut ends: Vec<_> = flows.into_iter().map(|flow| (flow.protocol, flow.original.source_port)).collect();
    ends.sort();
    Ok(ends)
}

fn filters(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let (tcp, udp) = (traffic.tcp.local().port(), traffic.udp.local().port());
    let published = traffic.published.local().port();
    let (icmp, tcp, udp) = (("icmp", traffic.echo), ("tcp", tcp), ("udp", udp));
    let client = traffic.client.to_string();
    let (tcp_port, udp_port) = (traffic.lan_tcp.port().to_string(), traffic.lan_udp.port().to_string());
    let either = format!("{tcp_port},{udp_port}");
    let sport = tcp.1.to_string();
    let rows: [(&[&str], &[(&str, u16)]); 12] = [
        (&["--src", &client], &[icmp, tcp, udp]),
        (&["--src", "172.17.0.0/16"], &[icmp, tcp, udp]),
        (&["--src", &client, "--proto", "tcp"], &[tcp]),
        (&["--src", &client, "--proto", "udp,icmp"], &[icmp, udp]),
        (&["--src", &client, "--proto", "udp", "--proto", "1"], &[icmp, udp]),
        (&["--dst", "192.0.2.1", "--dport", &either], &[tcp, udp]),
        (&["--sport", &sport, "--src", &client], &[tcp]),
        (&["--src", &client, "--state", "established"], &[tcp]),
        (&["--src", &client, "--network", "bridge", "--proto", "tcp"], &[tcp]),
        (&["--dst", "192.0.2.2", "--dport", "8090", "--state", "ESTABLISHED"], &[("tcp", published)]),
        (&["--src", &client, "--proto", "sctp"], &[]),
        (&["--src", "10.0.0.0/8"], &[]),
    ];
    let netpath = lab.netpath()?;
    for (filters, expected) in rows {
        let found = listed(netpath, filters)?;
        let found: Vec<_> = found.iter().map(|(protocol, port)| (protocol.as_str(), *port)).collect();
        // Attempts before the published port was ready may have left connections of their own.
        let fits = if filters.contains(&"8090") { found.contains(&expected[0]) } else { found == expected };
        ensure!(fits, "ct ls {filters:?} lists {found:?}, not {expected:?}");
    }
    let unknown = netpath.expect_code(&["ct", "ls", "--network", "no-such-network"], 1)?;
    ensure!(unknown.stderr.contains("no-such-network"), "it doesn't say which: {}", unknown.stderr);
    let wide = netpath.expect_code(&["ct", "ls", "-o", "wide", "--sport", &sport], 0)?.stdout;
    ensure!(wide.contains("REPLY SOURCE") && wide.contains("ASSURED") && wide.contains("eth0/"), "wide: {wide}");
    let all: Vec<Value> = netpath.json(&["ct", "ls", "--src", &client])?;
    let number = all[0]["network_number"].to_string();
    lab.netpath()?.kill()?;
    let netpath = lab.netpath()?;
    let found = listed(netpath, &["--src", &client, "--network", &number])?;
    ensure!(found.len() == 3, "of network {number}, without a daemon: {found:?}");
    let unnamed = netpath.expect_code(&["ct", "ls", "--network", "bridge"], 3)?;
    ensure!(unnamed.stderr.contains("without a daemon"), "ct ls says {:?}", unnamed.stderr);
    Ok(())
}

/// The line of `ct ls -o conntrack` with these filters, without its time.
fn line(netpath: &Netpath, filters: &[&str]) -> Result<String> {
    let text = netpath.expect_code(&[&["ct", "ls", "-o", "conntrack"], filters].concat(), 0)?.stdout;
    ensure!(text.lines().count() == 1, "ct ls -o conntrack {filters:?} printed {text:?}");
    let mut words = text.trim_end().split(' ').filter(|word| !word.is_empty());
    let head: Vec<_> = words.by_ref().take(2).collect();
    let seconds: u64 = words.next().context("the line has no time")?.parse().context("read the time")?;
    ensure!(seconds > 0, "the connection has no time left: {text}");
    Ok(format!("{} {}", head.join(" "), words.collect::<Vec<_>>().join(" ")))
}

fn lines(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let (client, server, lan, echo) = (traffic.client, traffic.server, LAN, traffic.echo);
    let (tcp, udp, published) = (traffic.tcp.local().port(), traffic.udp.local().port(), traffic.published.local());
    let (to_tcp, to_udp) = (traffic.lan_tcp.port(), traffic.lan_udp.port());
    let source = client.to_string();
    let from = |protocol| vec!["--src", source.as_str(), "--proto", protocol];
    let published_port = published.port().to_string();
    let netpath = lab.netpath()?;
    for (filters, expected) in [
        (
            from("tcp"),
            format!(
                "tcp 6 ESTABLISHED src={client} dst={lan} sport={tcp} dport={to_tcp} \
                 src={lan} dst={HOST} sport={to_tcp} dport={tcp} [ASSURED] mark=0 use=1"
            ),
        ),
        (
            from("udp"),
            format!(
                "udp 17 src={client} dst={lan} sport={udp} dport={to_udp} \
                 src={lan} dst={HOST} sport={to_udp} dport={udp} [ASSURED] mark=0 use=1"
            ),
        ),
        (
            from("icmp"),
            format!(
                "icmp 1 src={client} dst={lan} type=8 code=0 id={echo} \
                 src={lan} dst={HOST} type=0 code=0 id={echo} mark=0 use=1"
            ),
        ),
        (
            vec!["--dport", "8090", "--sport", &published_port],
            format!(
                "tcp 6 ESTABLISHED src={lan} dst={HOST} sport={published_port} dport=8090 \
                 src={server} dst={lan} sport=80 dport={published_port} [ASSURED] mark=0 use=1"
            ),
        ),
    ] {
        let line = line(netpath, &filters)?;
        ensure!(line == expected, "ct ls -o conntrack {filters:?} printed\n{line}, not\n{expected}");
    }
    Ok(())
}

/// A line with every number made one: what is left is its shape, padding included.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for letter in line.trim_end().chars() {
        match letter {
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            other => shape.push(other),
        }
    }
    shape
}

fn real_lines(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    // The host's own connections are the kernel's; Docker's rules make it track them.
    let mut tcp = TcpClient::connect(lab.host(), traffic.lan_tcp)?;
    tcp.echo("hello")?;
    let echo = EchoSocket::open(lab.host())?;
    echo.request(LAN, 77, 1, b"hello")?;
    echo.answer(77)?;
    let client = traffic.client.to_string();
    for protocol in ["tcp", "icmp"] {
        let real = lab.host().run(&["conntrack", "-L", "-s", "192.0.2.2", "-d", "192.0.2.1", "-p", protocol])?;
        let real = real.lines().find(|line| !line.contains("TIME_WAIT")).context("conntrack lists no connection")?;
        let words = ["ct", "ls", "-o", "conntrack", "--src", &client, "--proto", protocol];
        let ours = lab.netpath()?.expect_code(&words, 0)?.stdout;
        ensure!(shape(real) == shape(&ours), "conntrack prints\n{real}\nand netpath\n{ours}");
    }
    Ok(())
}

fn removes_one(lab: &mut Lab) -> Result<()> {
    let mut traffic = Traffic::start(lab)?;
    let client = traffic.client.to_string();
    let opened = lab.netpath()?.traffic("flows_opened")?.packets;
    let removed = lab.netpath()?.expect_code(&["ct", "rm", "--src", &client, "--proto", "udp"], 0)?;
    ensure!(removed.stdout == "removed 1 connection\n", "ct rm printed {:?}", removed.stdout);
    ensure!(listed(lab.netpath()?, &["--proto", "udp"])?.is_empty(), "the connection is still there");
    traffic.udp.ask("again")?;
    let found = listed(lab.netpath()?, &["--src", &client, "--proto", "udp"])?;
    ensure!(found == [("udp".to_owned(), traffic.udp.local().port())], "after another packet: {found:?}");
    let now = lab.netpath()?.traffic("flows_opened")?.packets;
    ensure!(now == opened + 1, "the packet opened {} flows, the others none", now - opened);
    traffic.tcp.echo("still there")?;
    traffic.published.echo("still there")?;
    let none: Value = lab.netpath()?.json(&["ct", "rm", "--src", "10.0.0.1"])?;
    ensure!(none["removed"] == 0, "ct rm of nothing printed {none}");
    Ok(())
}

fn flushes(lab: &mut Lab) -> Result<()> {
    let mut traffic = Traffic::start(lab)?;
    for daemon in ["with", "without"] {
        let count = lab.netpath()?.expect_code(&["ct", "count"], 0)?.stdout.trim().to_owned();
        ensure!(count != "0", "there is nothing to flush {daemon} a daemon");
        let flushed: Value = lab.netpath()?.json(&["ct", "flush"])?;
        ensure!(flushed["removed"].to_string() == count, "{count} were there, flush printed {flushed}");
        let left = lab.netpath()?.expect_code(&["ct", "count"], 0)?.stdout;
        ensure!(left.trim() == "0", "{left} are left {daemon} a daemon");
        // A connection in its middle is picked up by who may open it.
        traffic.tcp.echo("picked up")?;
        traffic.udp.ask("again")?;
        if daemon == "with" {
            lab.netpath()?.kill()?;
        }
    }
    Ok(())
}

fn counts(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let netpath = lab.netpath()?;
    let stats: Value = netpath.json(&["ct", "stats"])?;
    let flows = netpath.flows()?;
    let count = netpath.expect_code(&["ct", "count"], 0)?.stdout;
    ensure!(stats["count"].to_string() == count.trim() && flows.len().to_string() == count.trim(), "{stats}, {count}");
    for protocol in ["tcp", "udp", "icmp"] {
        let expected = flows.iter().filter(|flow| flow.protocol == protocol).count();
        ensure!(stats["by_protocol"][protocol] == expected, "{expected} of {protocol}: {stats}");
    }
    let established = flows.iter().filter(|flow| flow.state == "ESTABLISHED").count();
    ensure!(stats["by_state"]["tcp"]["ESTABLISHED"] == established, "{established} are established: {stats}");
    ensure!(stats["capacity"] == 262_144, "{stats}");
    ensure!(stats["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 262_144 * 100), "{stats}");
    ensure!(stats["opened"] == netpath.traffic("flows_opened")?.packets, "{stats}");
    netpath.expect_code(&["ct", "rm", "--proto", "udp", "--src", &traffic.client.to_string()], 0)?;
    let stats: Value = netpath.json(&["ct", "stats"])?;
    ensure!(stats["removed"] == 1 && stats["by_protocol"].get("udp").is_none(), "after a removal: {stats}");
    for field in ["collected", "evicted", "events_lost", "halves"] {
        ensure!(stats[field].is_u64(), "no {field}: {stats}");
    }
    ensure!(stats["drops"]["flow_table_full"] == 0 && stats["drops"]["ports_exhausted"] == 0, "{stats}");
    let table = netpath.expect_code(&["ct", "stats"], 0)?.stdout;
    ensure!(table.contains("Connections:") && table.contains("ESTABLISHED"), "{table}");
    Ok(())
}

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
            let dump: Value =
                serde_json::from_str(&netpath_tests::shell::run_words(&words)?).context("read the map")?;
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
        Ok(netpath_tests::shell::code(netpath_tests::shell::wait_for_exit(&mut self.child, TOLD)?))
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
    counted(lab, &client, target)
}

/// `--count`, `--timeout` and JSON, without a daemon.
fn counted(lab: &mut Lab, client: &Container, target: SocketAddrV4) -> Result<()> {
    lab.netpath()?.kill()?;
    let mut events = Events::start(lab.netpath()?, &["--count", "1", "-o", "json"])?;
    Events::wait_until_it_listens(lab.netpath()?)?;
    let first = TcpClient::connect(&*client.place()?, target)?;
    let second = TcpClient::connect(&*client.place()?, target)?;
    let line = events.expect("event", |_| true)?;
    let told: Value = serde_json::from_str(&line).context("read the event")?;
    ensure!(told["event"] == "new" && told["protocol"] == "tcp" && told["kind"] == "masquerade", "{told}");
    ensure!(told["original"]["source_port"] == first.local().port() && told["reason"].is_null(), "{told}");
    let status = netpath_tests::shell::wait_for_exit(&mut events.child, TOLD)?;
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

fn wrong_usage(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let netpath = lab.netpath()?;
    for words in [
        &["ct", "rm"][..],
        &["ct", "rm", "--proto", "tpc"],
        &["ct", "ls", "--state", "OPEN"],
        &["ct", "ls", "--src", "172.17.0.0/40"],
        &["ct", "events", "--count", "none"],
        &["status", "-o", "conntrack"],
    ] {
        let output = netpath.expect_code(words, 2)?;
        ensure!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?} printed {output:?}");
    }
    let found = listed(netpath, &["--src", &traffic.client.to_string()])?;
    ensure!(found.len() == 3, "after refusals only {found:?} are left");
    Ok(())
}
