//! Connections on the command line: listed, chosen, counted and removed, while they are really there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::icmp::EchoSocket;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::report::Flow;
use netpath_tests::server::Server;
use serde_json::Value;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("ct ls shows the connections that fit its filters, and no others", filters).own_netpath(),
    Case::new("ct ls -o conntrack writes the lines of conntrack -L", lines).own_netpath(),
    Case::new("the lines of ct ls have the shape of those of the real conntrack", real_lines).own_netpath().takeover(),
    Case::new("ct rm ends one connection and leaves the others alone", removes_one).own_netpath(),
    Case::new("ct flush ends all connections, without a daemon too", flushes).own_netpath(),
    Case::new("ct stats counts what ct ls lists", counts).own_netpath(),
    Case::new("what ct can't make sense of ends with 2 and removes nothing", wrong_usage).own_netpath(),
];

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
        let mut tcp = TcpClient::connect(&place, lan_tcp)?;
        tcp.echo("hello")?;
        let udp = UdpClient::connect(&place, lan_udp)?;
        udp.ask("hello")?;
        let echo = EchoSocket::open(&place)?;
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

/// Filters, and what fits them.
type Row<'row> = (&'row [&'row str], &'row [(&'row str, u16)]);

fn filters(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let (tcp, udp) = (traffic.tcp.local().port(), traffic.udp.local().port());
    let published = traffic.published.local().port();
    let (icmp, tcp, udp) = (("icmp", traffic.echo), ("tcp", tcp), ("udp", udp));
    let client = traffic.client.to_string();
    let (tcp_port, udp_port) = (traffic.lan_tcp.port().to_string(), traffic.lan_udp.port().to_string());
    let either = format!("{tcp_port},{udp_port}");
    let sport = tcp.1.to_string();
    let rows: [Row<'_>; 12] = [
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
                 src={lan} dst={HOST} sport={to_udp} dport={udp} mark=0 use=1"
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
        let count = counted(lab.netpath()?)?;
        ensure!(count > 0, "there is nothing to flush {daemon} a daemon");
        let flushed: Value = lab.netpath()?.json(&["ct", "flush"])?;
        ensure!(flushed["removed"] == count, "{count} were there, flush printed {flushed}");
        let left = counted(lab.netpath()?)?;
        ensure!(left == 0, "{left} are left {daemon} a daemon");
        // A connection in its middle is picked up by who may open it.
        traffic.tcp.echo("picked up")?;
        traffic.udp.ask("again")?;
        if daemon == "with" {
            lab.netpath()?.kill()?;
        }
    }
    Ok(())
}

/// What `ct count` prints.
fn counted(netpath: &Netpath) -> Result<u64> {
    netpath.expect_code(&["ct", "count"], 0)?.stdout.trim().parse().context("read the count")
}

fn counts(lab: &mut Lab) -> Result<()> {
    let traffic = Traffic::start(lab)?;
    let netpath = lab.netpath()?;
    let stats: Value = netpath.json(&["ct", "stats"])?;
    let flows = netpath.flows()?;
    let count = counted(netpath)?;
    ensure!(
        stats["count"] == count && flows.len() as u64 == count,
        "{count} are counted, {} listed: {stats}",
        flows.len()
    );
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
