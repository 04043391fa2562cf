//! The operator's policy: who gets to published ports and who doesn't, and what becomes of that when the list changes or the
//! daemon dies.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::flood::{Flood, Kind, SOURCES};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{FAR, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::reach::{ask, connect, connect_from, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new("a policy judges clients by their own address, and by network, port and protocol", judges).own_netpath(),
    Case::new("a policy that denies by default leaves alone what isn't published", denies_by_default).own_netpath(),
    Case::new("a dry run of a policy counts, and putting it in force ends what it denies", dry_run).own_netpath(),
    Case::new("a policy outlives the daemon, and no packet gets past it meanwhile", outlives).own_netpath(),
    Case::new("while policies take turns no packet sees some of each", never_a_mixture).own_netpath(),
    Case::new("a policy for a network that comes later stands before its first container", late_network).own_netpath(),
    Case::new("a policy that is wrong is refused with its line, and the one in force stays", refused).own_netpath(),
];

const WEB: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);
const SECOND: SocketAddrV4 = SocketAddrV4::new(HOST, 8081);

/// How long an answer takes at most that comes.
const ANSWER: Duration = Duration::from_millis(500);

/// How long lists take turns.
const TURNS: Duration = Duration::from_secs(5);

/// Every packet of the flood opens a flow, or would: more than that, and the sender is busier than who is tested.
const FLOOD_RATE: u32 = 20_000;

fn file(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("make a file")?;
    file.write_all(text.as_bytes()).context("write the file")?;
    Ok(file)
}

fn path(file: &NamedTempFile) -> String {
    file.path().to_string_lossy().into_owned()
}

/// Starts netpath with a configuration file of this text.
fn start(lab: &mut Lab, text: &str) -> Result<NamedTempFile> {
    let file = file(text)?;
    lab.start_netpath(Options::new(&["--config", &path(&file)]))?;
    Ok(file)
}

fn expect_no_answer(place: &Place, target: SocketAddrV4) -> Result<()> {
    let client = UdpClient::connect(place, target)?;
    client.give_up_after(ANSWER)?;
    let Err(error) = client.ask("anybody there?") else { bail!("{} got an answer of {target}", place.label()) };
    let timeouts = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    ensure!(kind.is_some_and(|kind| timeouts.contains(&kind)), "{} of {target}: {error:#}", place.label());
    Ok(())
}

/// Packets that a rule fitted, by its place in the list.
fn packets(policy: &Value, rule: usize) -> u64 {
    policy["rules"][rule]["packets"].as_u64().unwrap_or(0)
}

fn judges(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&[])?;
    let text = format!(
        r#"
        [policy]
        [[policy.rule]]
        action = "allow"
        source = "{FAR}"
        port = 8082
        [[policy.rule]]
        action = "deny"
        source = ["{FAR}", "203.0.113.0/24"]
        port = "8080-8082"
        protocol = "tcp"
        [[policy.rule]]
        action = "deny"
        source = "198.51.100.0/24"
        network = "{}"
        [[policy.rule]]
        action = "deny"
        source = "{LAN}"
        protocol = "udp"
        "#,
        network.name()
    );
    let _file = start(lab, &text)?;
    let ports = ["8080:80", "8081:80", "8082:80", "8083:80"];
    let request = ports.iter().fold(lab.docker().serving(&["tcp:80", "udp:53"]), |request, port| request.publish(port));
    let _web = lab.start(request.publish("8053:53/udp"))?;
    let other = lab.docker().serving(&["tcp:80", "udp:53"]).network(network.name());
    let _other = lab.start(other.publish("8090:80").publish("8091:53/udp"))?;
    let at = |port| SocketAddrV4::new(HOST, port);

    for port in [8080, 8081, 8082, 8083, 8090] {
        let mut client = connect(lab, at(port))?;
        ensure!(client.who()? == client.local(), "port {port} doesn't see the client's address");
    }
    for port in [8082, 8083] {
        let mut client = TcpClient::connect(lab.far(), at(port))?;
        ensure!(client.who()? == client.local(), "port {port} doesn't see the client's address");
    }
    for port in [8080, 8081, 8090] {
        expect_silence(lab.far(), at(port))?;
    }
    expect_no_answer(lab.lan(), at(8053))?;
    expect_no_answer(lab.lan(), at(8091))?;
    expect_no_answer(lab.far(), at(8091))?;
    UdpClient::connect(lab.far(), at(8053))?.ask("hello")?;

    let netpath = lab.netpath()?;
    let policy: Value = netpath.json(&["policy", "show"])?;
    let counted: Vec<_> = (0..4).map(|rule| packets(&policy, rule)).collect();
    ensure!(counted.iter().all(|packets| *packets > 0), "every rule has fitted: {policy}");
    // The first rule allows, the others deny.
    let denied: u64 = counted.iter().skip(1).sum();
    ensure!(netpath.drops("policy_denied")? == denied, "{denied} packets were denied: {policy}");
    ensure!(policy["default_packets"].as_u64() >= Some(6), "no rule fitted six connections: {policy}");
    let table = netpath.expect_code(&["policy", "show"], 0)?.stdout;
    ensure!(table.contains(network.name()) && table.contains("8080-8082"), "it shows {table}");
    Ok(())
}

fn denies_by_default(lab: &mut Lab) -> Result<()> {
    let text = format!(
        r#"
        [policy]
        default = "deny"
        [[policy.rule]]
        action = "allow"
        source = "{LAN}"
        port = 8080
        "#
    );
    let file = start(lab, &text)?;
    let web = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80").publish("8081:80"))?;
    let neighbour = lab.start(lab.docker().idle())?;
    let inside = neighbour.place()?;
    connect(lab, WEB)?;
    expect_silence(lab.lan(), SECOND)?;
    expect_silence(lab.far(), WEB)?;
    expect_silence(&inside, WEB)?;
    expect_silence(&inside, SECOND)?;
    expect_silence(&*web.place()?, SECOND)?;

    // The host itself, neighbours, the way out, answers to it, and the host's own services.
    connect_from(lab.host(), SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 8081))?;
    connect_from(lab.host(), SECOND)?;
    TcpClient::connect(&inside, SocketAddrV4::new(web.address()?, 80))?.echo("neighbour")?;
    let (_server, out) = lab.lan_tcp()?;
    TcpClient::connect(&inside, out)?.echo("out")?;
    ping(lab.far(), HOST)?;
    let own = lab.host().enter(|| netpath_tests::server::Server::tcp(netpath_tests::server::any(0)))?;
    TcpClient::connect(lab.far(), SocketAddrV4::new(HOST, own.port()))?.echo("the host's own")?;

    let text = text + "[[policy.rule]]\naction = \"allow\"\nfrom = \"container\"\n";
    std::fs::write(file.path(), text).context("write the file")?;
    lab.netpath()?.expect_code(&["policy", "apply"], 0)?;
    TcpClient::connect(&inside, SECOND)?.echo("hairpin")?;
    TcpClient::connect(&*web.place()?, SECOND)?.echo("itself")?;
    expect_silence(lab.lan(), SECOND)
}

fn dry_run(lab: &mut Lab) -> Result<()> {
    let list = |dry_run| {
        format!("[policy]\ndry_run = {dry_run}\n[[policy.rule]]\naction = \"deny\"\nsource = \"{FAR}\"\nport = 8080\n")
    };
    let own = start(lab, &list(true))?;
    let _web = lab.start(lab.docker().serving(&["tcp:80", "udp:53"]).publish("8080:80").publish("8080:53/udp"))?;
    let mut near = connect(lab, WEB)?;
    let mut far = TcpClient::connect(lab.far(), WEB)?;
    far.echo("dry run")?;
    let far_udp = UdpClient::connect(lab.far(), WEB)?;
    far_udp.ask("dry run")?;
    let policy: Value = lab.netpath()?.json(&["policy", "show"])?;
    ensure!(packets(&policy, 0) == 2 && policy["dry_run"] == true, "two flows would have been denied: {policy}");
    let counted = (lab.netpath()?.traffic("policy_would_deny")?.packets, lab.netpath()?.drops("policy_denied")?);
    ensure!(counted == (2, 0), "would be and is denied: {counted:?}");

    let kept = file(&list(false))?;
    let applied: Value = lab.netpath()?.json(&["policy", "apply", &path(&kept), "--keep-flows"])?;
    ensure!(applied["ended"] == 0 && applied["rules"] == 1, "with --keep-flows: {applied}");
    far.echo("still open")?;
    far_udp.ask("still open")?;
    expect_silence(lab.far(), WEB)?;

    // The daemon's own file is a dry run still; then it isn't, and what is open ends.
    lab.netpath()?.expect_code(&["policy", "apply"], 0)?;
    TcpClient::connect(lab.far(), WEB)?.echo("a dry run again")?;
    std::fs::write(own.path(), list(false)).context("write the file")?;
    let applied: Value = lab.netpath()?.json(&["policy", "apply"])?;
    ensure!(applied["ended"].as_u64() >= Some(2), "two connections were open: {applied}");
    far.give_up_after(ANSWER)?;
    ensure!(far.echo("over").is_err(), "a connection goes on that the policy denies");
    far_udp.give_up_after(ANSWER)?;
    ensure!(far_udp.ask("over").is_err(), "a UDP flow goes on that the policy denies");
    expect_silence(lab.far(), WEB)?;
    near.echo("and this one isn't concerned")
}

/// A list that denies the flood, and nobody else.
fn deny_flood() -> String {
    format!("[[policy.rule]]\naction = \"deny\"\nsource = \"{SOURCES}\"\n")
}

/// Fails if a packet of the flood has opened a flow: they would be there for half a minute.
fn expect_no_flood(lab: &mut Lab, sent: u64) -> Result<()> {
    let netpath = lab.netpath()?;
    let flows = netpath.json::<Vec<Value>>(&["ct", "ls", "--src", SOURCES])?;
    ensure!(flows.is_empty(), "{} of {sent} packets got past the policy, such as {:?}", flows.len(), flows.first());
    let denied = netpath.drops("policy_denied")?;
    ensure!(denied > sent / 2, "of {sent} packets only {denied} were denied: did the others arrive?");
    Ok(())
}

fn outlives(lab: &mut Lab) -> Result<()> {
    let _file = start(lab, &deny_flood())?;
    let _web = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let client = ask(lab, WEB)?;
    let flood = Flood::start(lab.lan(), Kind::Datagram, WEB, Some(FLOOD_RATE))?;
    lab.netpath()?.kill()?;
    let policy: Value = lab.netpath()?.json(&["policy", "show"])?;
    ensure!(policy["rules"][0]["source"][0] == SOURCES, "without a daemon: {policy}");
    lab.netpath()?.expect_code(&["policy", "apply"], 3)?;
    client.ask("without a daemon")?;
    lab.netpath()?.start_again()?;
    lab.netpath()?.stop()?;
    lab.netpath()?.start_again()?;
    let sent = flood.end()?;
    client.ask("after two restarts")?;
    ask(lab, WEB)?;
    let after: Value = lab.netpath()?.json(&["policy", "show"])?;
    ensure!(packets(&after, 0) > packets(&policy, 0), "the counters go on: {policy}, then {after}");
    expect_no_flood(lab, sent)
}

fn never_a_mixture(lab: &mut Lab) -> Result<()> {
    // Either denies the flood and lets everybody else in; the beginning of the one with the end of the other lets the flood
    // in, too.
    let others = "[[policy.rule]]\naction = \"allow\"\nsource = \"203.0.113.0/24\"\n";
    let everybody = "[[policy.rule]]\naction = \"allow\"\n";
    let first = file(&(deny_flood() + &everybody.repeat(127)))?;
    let last = file(&(others.repeat(127) + &deny_flood()))?;
    let _file = start(lab, &deny_flood())?;
    let _web = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    ask(lab, WEB)?;
    let flood = Flood::start(lab.lan(), Kind::Datagram, WEB, Some(FLOOD_RATE))?;
    let begun = Instant::now();
    let mut turns = 0;
    while begun.elapsed() < TURNS {
        for list in [&first, &last] {
            lab.netpath()?.expect_code(&["policy", "apply", &path(list)], 0)?;
            // A new flow of somebody whom both lists let in.
            UdpClient::connect(lab.far(), WEB)?.ask("hello")?;
            turns += 1;
        }
    }
    let sent = flood.end()?;
    ensure!(turns >= 20, "only {turns} lists in {TURNS:?}");
    expect_no_flood(lab, sent)
}

fn late_network(lab: &mut Lab) -> Result<()> {
    const NAME: &str = "comes-later";
    let _file = start(lab, &format!("[policy]\n[[policy.rule]]\naction = \"deny\"\nnetwork = \"{NAME}\"\n"))?;
    let policy: Value = lab.netpath()?.json(&["policy", "show"])?;
    ensure!(policy["rules"][0]["missing"][0] == NAME, "the network isn't there yet: {policy}");
    ensure!(lab.netpath()?.log()?.contains(NAME), "the log doesn't say that the network isn't there");
    let applied: Value = lab.netpath()?.json(&["policy", "apply"])?;
    ensure!(applied["warnings"][0].as_str().is_some_and(|text| text.contains("line 2")), "no warning: {applied}");
    for _ in 0..2 {
        lab.docker().run(&["network", "create", NAME])?;
        let outcome = expect_denied_network(lab, NAME);
        lab.docker().run(&["network", "rm", NAME])?;
        outcome?;
    }
    Ok(())
}

fn expect_denied_network(lab: &mut Lab, name: &str) -> Result<()> {
    let _denied = lab.start(lab.docker().serving(&["tcp:80"]).network(name).publish("8081:80"))?;
    expect_silence(lab.lan(), SECOND)?;
    let _allowed = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect(lab, WEB)?;
    expect_silence(lab.lan(), SECOND)
}

fn refused(lab: &mut Lab) -> Result<()> {
    let own = start(lab, &format!("[policy]\n[[policy.rule]]\naction = \"deny\"\nsource = \"{FAR}\"\n"))?;
    let _web = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect(lab, WEB)?;
    let wrong = file("[policy]\n\n[[policy.rule]]\naction = \"deny\"\nsource = \"10.0.0.1/8\"\n")?;
    let netpath = lab.netpath()?;
    for words in [["policy", "check", &path(&wrong)], ["policy", "apply", &path(&wrong)]] {
        let output = netpath.expect_code(&words, 1)?;
        ensure!(output.stderr.contains("line 5") && output.stderr.contains("10.0.0.0/8"), "{words:?}: {output:?}");
    }
    std::fs::copy(wrong.path(), own.path()).context("spoil the daemon's file")?;
    let output = netpath.expect_code(&["policy", "apply"], 1)?;
    ensure!(output.stderr.contains("line 5"), "the daemon says {output:?}");
    let never = file("[[policy.rule]]\naction = \"deny\"\n[[policy.rule]]\naction = \"allow\"\nport = 80\n")?;
    let checked = netpath.expect_code(&["policy", "check", &path(&never)], 0)?;
    ensure!(checked.stderr.contains("line 3 never decides"), "check says {checked:?}");
    netpath.expect_code(&["policy", "check", "/no/such/file"], 1)?;
    netpath.expect_code(&["policy", "check", &path(&never), "--keep-flows"], 2)?;
    expect_silence(lab.far(), WEB)?;
    connect(lab, WEB)?;
    Ok(())
}
