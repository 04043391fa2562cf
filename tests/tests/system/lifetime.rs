//! The daemon dies, stops and starts again; the traffic doesn't notice.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::dockerd::Restart;
use netpath_tests::lab::Lab;
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::proof::{Attached, NatCounters, attached, expect_attached_once};
use netpath_tests::wait;

use super::live::Live;
use super::migrate::configured;

/// For a start; programs have to be verified.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const CASES: &[Case] = &[
    Case::new("kill -9 and a restart break nothing, and new connections work meanwhile", |lab| {
        survives(lab, Options::default(), Netpath::kill)
    })
    .own_netpath(),
    Case::new("SIGTERM and a restart break nothing, and new connections work meanwhile", |lab| {
        survives(lab, Options::default(), Netpath::stop)
    })
    .own_netpath(),
    Case::new("with clsact, kill -9 and a restart break nothing", |lab| {
        survives(lab, Options::new(&["--tc", "clsact"]), Netpath::kill)
    })
    .own_netpath(),
    Case::new("a port published while the daemon was dead works once it is back", published_meanwhile).own_netpath(),
    Case::new("a container that went while the daemon was dead leaves nothing once it is back", gone_meanwhile)
        .own_netpath(),
    Case::new("what another version of netpath has pinned is replaced at a start and doesn't stay", other_version)
        .own_netpath(),
    Case::new(
        "another version's programs carry everything until Docker has said what there is, and then make way",
        |lab| configured(lab, |lab| succeeds(lab, Options::default())),
    )
    .own_netpath()
    .minutes(5),
    Case::new("with clsact, another version's programs carry everything until they make way", |lab| {
        configured(lab, |lab| succeeds(lab, Options::new(&["--tc", "clsact"])))
    })
    .own_netpath()
    .minutes(5),
    Case::new("a second daemon on the same pins is refused", second_daemon).netpath(),
    Case::new("SIGHUP doesn't end the daemon, and the log says that it changes nothing", hang_up).own_netpath(),
];

fn survives(lab: &mut Lab, options: Options, end: fn(&mut Netpath) -> Result<()>) -> Result<()> {
    lab.start_netpath(options)?;
    let mut live = Live::start(lab)?;
    let counters = NatCounters::read(lab.host())?;
    live.start_streams(lab)?;
    live.expect_alive().context("with the daemon")?;
    let before = attached(lab.host())?;

    end(lab.netpath()?)?;
    live.expect_alive().context("without the daemon")?;
    live.expect_new(lab).context("without the daemon")?;
    ensure!(attached(lab.host())? == before, "programs went with the daemon");
    lab.netpath()?.expect_code(&["status"], 3)?;

    lab.netpath()?.start_again()?;
    live.expect_alive().context("after the restart")?;
    live.expect_new(lab).context("after the restart")?;
    expect_attached_once(lab.host(), &["eth0", "docker0"])?;
    let after = attached(lab.host())?;
    ensure!(after.len() == before.len(), "before the restart {before:?} were attached, after it {after:?}");
    if lab.mode() == Mode::Takeover {
        counters.expect_unmoved(lab.host())?;
    }
    live.finish()
}

fn published_meanwhile(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    lab.netpath()?.kill()?;
    let _container = lab.docker().serving(&["tcp:80"]).publish("8101:80").start()?;
    lab.netpath()?.start_again()?;
    let mut client = super::reach::connect(lab, std::net::SocketAddrV4::new(netpath_tests::lab::HOST, 8101))?;
    ensure!(client.who()? == client.local(), "the container doesn't see the client's address");
    Ok(())
}

fn gone_meanwhile(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8102:80"))?;
    let target = std::net::SocketAddrV4::new(netpath_tests::lab::HOST, 8102);
    super::reach::connect(lab, target)?;
    lab.netpath()?.kill()?;
    drop(container);
    lab.netpath()?.start_again()?;
    let ports = lab.netpath()?.ports()?;
    ensure!(ports.is_empty(), "still published: {ports:?}");
    let links = std::fs::read_dir(lab.netpath()?.pins().join("links")).context("list the pinned links")?;
    let links: Vec<_> = links.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let links: Vec<_> = links.iter().filter(|name| !name.starts_with("cgroup_")).collect();
    // The uplink's two, the bridge's and the loopback interface's; XDP is off on a veth uplink.
    ensure!(links.len() <= 4, "links of interfaces that are gone: {links:?}");
    super::reach::expect_refused(lab, target)
}

/// Pins of another version have another number at their end; their programs are attached all the same.
fn other_version(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8103:80"))?;
    let target = std::net::SocketAddrV4::new(netpath_tests::lab::HOST, 8103);
    super::reach::connect(lab, target)?.echo("before")?;
    lab.netpath()?.kill()?;
    make_pins_others(lab)?;
    lab.netpath()?.start_again()?;
    super::reach::connect(lab, target)?.echo("after")?;
    expect_no_pins_of_others(lab)
}

fn hang_up(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    lab.netpath()?.hang_up()?;
    wait::until_true("the log to tell of it", DEADLINE, || {
        Ok(lab.netpath()?.log()?.contains("SIGHUP changes nothing"))
    })?;
    lab.netpath()?.expect_code(&["status"], 0).map(drop)
}

/// A start while Docker is away: what is attached has its maps filled, this version's are empty.
fn succeeds(lab: &mut Lab, options: Options) -> Result<()> {
    lab.start_netpath(options)?;
    let mut live = Live::start(lab)?;
    live.start_streams(lab)?;
    live.expect_alive().context("before")?;
    let before = attached(lab.host())?;
    lab.restart_dockerd(Restart::KeepsContainers, |lab| {
        lab.netpath()?.kill()?;
        make_pins_others(lab)?;
        lab.netpath()?.start_daemon()?;
        wait::until_true("netpath to tell of the other version", DEADLINE, || {
            Ok(lab.netpath()?.log()?.contains("another version of netpath has left its programs"))
        })?;
        // A daemon that doesn't live to see Docker changes nothing.
        expect_running(lab)?;
        lab.netpath()?.kill()?;
        lab.netpath()?.start_daemon()?;
        expect_running(lab)?;
        ensure!(attached(lab.host())? == before, "without Docker's word programs were replaced");
        live.expect_alive().context("while Docker is away")?;
        live.expect_new(lab).context("while Docker is away")
    })?;
    lab.netpath()?.wait_in_step()?;
    live.expect_new(lab).context("after the other version")?;
    expect_attached_once(lab.host(), &["eth0", "docker0"])?;
    let (ids, after) = (ids(&before), attached(lab.host())?);
    ensure!(after.len() == before.len(), "before {before:?} were attached, after it {after:?}");
    ensure!(after.iter().all(|one| !ids.contains(&one.id)), "of {before:?} some stayed: {after:?}");
    ensure!(lab.netpath()?.log()?.contains("its flows begin anew"), "the log doesn't say what became of the flows");
    expect_no_pins_of_others(lab)
}

/// Waits until the daemon answers, whatever it says.
fn expect_running(lab: &mut Lab) -> Result<()> {
    wait::until_true("the daemon to answer", DEADLINE, || {
        let status = lab.netpath()?.output(&["status", "--output", "json"])?.stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        Ok(status["daemon"]["running"] == true)
    })
}

fn ids(attached: &[Attached]) -> BTreeSet<u32> {
    attached.iter().map(|one| one.id).collect()
}

/// As another version leaves them: the numbers at the ends of the pins differ. Programs stay attached, with these maps.
fn make_pins_others(lab: &mut Lab) -> Result<()> {
    for path in versioned(lab)? {
        std::fs::rename(&path, path.with_file_name(format!("{}9", name(&path))))
            .with_context(|| format!("rename {}", path.display()))?;
    }
    Ok(())
}

fn expect_no_pins_of_others(lab: &mut Lab) -> Result<()> {
    for path in versioned(lab)? {
        ensure!(!name(&path).ends_with('9'), "{} stayed", path.display());
    }
    Ok(())
}

/// Pins with a version in their names.
fn versioned(lab: &mut Lab) -> Result<Vec<std::path::PathBuf>> {
    let pins = lab.netpath()?.pins().to_owned();
    Ok([listed(&pins.join("maps"))?, listed(&pins.join("programs"))?].concat())
}

fn listed(directory: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn second_daemon(lab: &mut Lab) -> Result<()> {
    let second = lab.netpath()?.output(&["run", "--uplink", "eth0"])?;
    ensure!(second.code != 0, "a second daemon ran beside the first: {}", second.stderr);
    // One that listens elsewhere doesn't meet the first at its socket.
    let pins = lab.netpath()?.pins().to_owned();
    let mut command = lab.host().command(lab.binary()?);
    command.args(["run", "--uplink", "eth0", "--socket"]).arg(std::env::temp_dir().join("netpath-second.sock"));
    let second = netpath_tests::shell::output(command.arg("--pin-dir").arg(pins))?;
    ensure!(second.code != 0, "a second daemon ran beside the first: {}", second.stderr);
    ensure!(second.stderr.contains("another netpath daemon"), "it was refused for another reason: {}", second.stderr);
    lab.netpath()?.wait_in_step()
}
