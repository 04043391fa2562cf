//! A network with as many containers as a Linux bridge has ports, and one more.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netns::{Namespace, Place};
use netpath_tests::{run, shell, wait};

use super::reach::{connect, connect_from};

pub(crate) const CASES: &[Case] =
    &[Case::new("the 1,024th port of a bridge is refused to Docker, and everyone else goes on", full)];

/// `BR_MAX_PORTS` of the kernel is 1024, and number 0 isn't given to a port.
const PORTS: usize = 1023;

/// How long the kernel may take to make or remove a thousand interfaces.
const DEADLINE: Duration = Duration::from_secs(60);

fn full(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let mut open = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let network = lab.docker().network(&[])?;
    let crowd = Crowd::fill(lab.host(), "docker0", PORTS - 2)?;
    settled(lab)?;
    let last = lab.start(lab.docker().idle()).context("the 1,023rd port")?;
    let (_server, lan) = lab.lan_tcp()?;
    connect_from(&*last.place()?, lan)?.echo("the last one")?;
    let target = SocketAddrV4::new(server.address()?, 80);
    connect_from(&*last.place()?, target)?.echo("to its neighbour")?;
    let refused = lab.docker().idle().start();
    let said = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains("exchange full"), "Docker's 1,024th port: {said:?}");
    lab.docker().run(&["container", "prune", "--force"])?;
    in_step(lab).context("after Docker's failure")?;
    open.echo("an open connection")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("a new one")?;
    let elsewhere = lab.start(lab.docker().serving(&["tcp:80"]).network(network.name()).publish("8081:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8081))?.echo("on another bridge")?;
    drop((elsewhere, crowd));
    wait::until("the crowd to go", DEADLINE, || {
        let ports = ports(lab.host(), "docker0")?;
        ensure!(ports == 2, "docker0 has {ports} ports");
        Ok(())
    })?;
    let again = lab.start(lab.docker().serving(&["tcp:80"]).publish("8082:80"))?;
    connect(lab, SocketAddrV4::new(HOST, 8082))?.echo("there is room again")?;
    drop(again);
    in_step(lab)
}

/// Ports of a bridge with nobody behind them. They go with the namespace that holds their other ends.
struct Crowd {
    _ends: Namespace,
}

impl Crowd {
    fn fill(host: &Place, bridge: &str, count: usize) -> Result<Self> {
        let ends = Namespace::create(&format!("{}-crowd", run::name()), "crowd")?;
        let mut batch = String::new();
        for number in 0..count {
            writeln!(
                batch,
                "link add crowd{number} master {bridge} type veth peer name end{number} netns {}",
                ends.name()
            )?;
        }
        let mut command = host.command("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut ip = command.spawn().context("start ip")?;
        ip.stdin.take().context("ip takes no input")?.write_all(batch.as_bytes()).context("write to ip")?;
        let status = shell::wait_for_exit(&mut ip, DEADLINE)?;
        ensure!(status.success(), "ip ended with {status}");
        Ok(Self { _ends: ends })
    }
}

fn ports(host: &Place, bridge: &str) -> Result<usize> {
    Ok(host.run(&["ip", "-brief", "link", "show", "master", bridge])?.lines().count())
}

/// A port of a network's bridge has netpath's program before Docker says whose it is: a thousand at once take seconds.
fn settled(lab: &mut Lab) -> Result<()> {
    if !lab.tests_netpath() {
        return Ok(());
    }
    let links = lab.netpath()?.pins().join("links");
    wait::until("netpath to be at every port", DEADLINE, || {
        let names = fs::read_dir(&links).context("list the links")?.filter_map(Result::ok);
        let there = names.filter(|entry| entry.file_name().to_string_lossy().contains("_container_")).count();
        ensure!(there >= PORTS - 1, "it is at {there}");
        Ok(())
    })?;
    in_step(lab)
}

fn in_step(lab: &mut Lab) -> Result<()> {
    if lab.tests_netpath() { lab.netpath()?.wait_in_step() } else { Ok(()) }
}
