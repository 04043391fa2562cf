//! A host moves from Docker's rules to netpath alone and back, with somebody at the door all the time.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::dockerd::Restart;
use netpath_tests::lab::{CONTAINERS, HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::{shell, wait};
use serde_json::Value;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("migrating to sole is refused where dockerd would not start with rules of ip6tables alone", ipv6_rules)
        .own_netpath()
        .takeover()
        .minutes(5),
    Case::new("migrating to sole is refused while the default network keeps containers apart", without_icc)
        .own_netpath()
        .takeover(),
    Case::new("migrate --check says what moving over changes and what stands in the way", check).own_netpath(),
    Case::new("migrate --dry-run prints the steps and does nothing", dry_run).own_netpath().takeover(),
    Case::new("a migration whose step fails leaves the host as it was", undone).own_netpath().takeover(),
    Case::new("migrating to sole and back to docker never opens what is closed", there_and_back)
        .own_netpath()
        .takeover(),
    Case::new("migrating to sole and back to takeover loses no connection", to_takeover).own_netpath().takeover(),
    Case::new("a migration that fails after dockerd's restart restarts it with what it had", undone_after_restart)
        .own_netpath()
        .takeover()
        .minutes(5),
    Case::new("migrate removes the rules that Docker left in iptables of old, and no others", legacy)
        .own_netpath()
        .sole(),
];

/// How long dockerd's restart within a migration may be waited for.
const ASKED_DEADLINE: Duration = Duration::from_secs(90);

/// Time for one knock.
const KNOCK: Duration = Duration::from_millis(100);

fn check(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let before = reported(lab, if lab.mode() == Mode::Takeover { 0 } else { 6 })?;
    ensure!(before["attached"] == true && before["mode"] == lab.mode().name(), "{before}");
    let expected: &[&str] = match lab.mode() {
        Mode::Takeover => &["docker_proxy", "live_restore", "forward_policy"],
        // The lab's dockerd has its settings on the command line.
        Mode::Sole => &["command_line", "live_restore"],
    };
    for subject in expected {
        ensure!(subjects(&before).iter().any(|(found, _)| found == subject), "no {subject} in {before}");
    }
    let words = ["FORWARD", "-s", "198.51.100.7", "-j", "DROP"];
    lab.host().run(&[&["iptables", "-I"], &words[..]].concat())?;
    let with_rule = reported(lab, 6);
    lab.host().run(&[&["iptables", "-D"], &words[..]].concat())?;
    let with_rule = with_rule?;
    ensure!(with_rule["ready"] == false, "{with_rule}");
    ensure!(subjects(&with_rule).contains(&("rule".to_owned(), "blocks".to_owned())), "{with_rule}");
    let table = lab.netpath()?.output(&["migrate", "--check"])?;
    ensure!(table.stdout.contains("LEVEL") && table.stdout.contains("live-restore is off"), "{table:?}");
    Ok(())
}

fn reported(lab: &mut Lab, code: i32) -> Result<Value> {
    let output = lab.netpath()?.output(&["migrate", "--check", "--output", "json"])?;
    ensure!(output.code == code, "migrate --check ended with {}: {}{}", output.code, output.stdout, output.stderr);
    serde_json::from_str(&output.stdout).context("read the check's report")
}

/// Subjects and levels of a check's findings.
fn subjects(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    findings.iter().map(|item| (text(&item["subject"]), text(&item["level"]))).collect()
}

fn dry_run(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let file = tempfile::tempdir().context("make a directory")?;
    let path = file.path().join("daemon.json");
    let words = ["migrate", "--to", "sole", "--dry-run", "--daemon-json", &path.to_string_lossy()];
    let rules = saved(lab)?;
    let printed = lab.netpath()?.expect_code(&words, 0)?.stdout;
    for step in ["1. wait until", "2. write", "3. restart dockerd", "4. wait until", "5. remove Docker's rules"] {
        ensure!(printed.contains(step), "{step:?} isn't in {printed}");
    }
    ensure!(!path.exists() && saved(lab)? == rules, "a dry run changed something");
    let nothing = lab.netpath()?.expect_code(&["migrate", "--to", "takeover", "--dry-run"], 0)?.stdout;
    ensure!(nothing.contains("nothing to do"), "{nothing}");
    Ok(())
}

fn undone(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let directory = tempfile::tempdir().context("make a directory")?;
    let path = directory.path().join("daemon.json");
    let text = "{ \"debug\": false }";
    fs::write(&path, text)?;
    let path_text = path.to_string_lossy().into_owned();
    let words = ["migrate", "--to", "sole", "--daemon-json", &path_text];
    let rules = saved(lab)?;
    // A container runs, and live-restore is off.
    lab.netpath()?.expect_code(&[&words[..], &["--restart-command", "true"]].concat(), 2)?;
    ensure!(fs::read_to_string(&path)? == text, "refused, and yet changed");
    // The first restart fails, the one of the way back doesn't.
    let once = format!("test -e {path_text}.asked || {{ touch {path_text}.asked; exit 1; }}");
    let failed = lab.netpath()?.expect_code(&[&words[..], &["--yes", "--restart-command", &once]].concat(), 1)?;
    ensure!(failed.stdout.contains("undoing step 2"), "{failed:?}");
    ensure!(fs::read_to_string(&path)? == text, "the configuration isn't as it was");
    ensure!(saved(lab)? == rules, "the rules aren't as they were");
    lab.netpath()?.wait_in_step()?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("as before").map(drop)
}

/// Docker's rules of the lab's host, without counters and comments.
fn saved(lab: &Lab) -> Result<Vec<String>> {
    let text = lab.host().run(&["iptables-save"])?;
    let lines = text.lines().filter(|line| line.starts_with("-A") || line.contains("DOCKER"));
    Ok(lines.map(|line| line.split('[').next().unwrap_or_default().to_owned()).collect())
}

fn there_and_back(lab: &mut Lab) -> Result<()> {
    configured(lab, with_configuration)
}

fn to_takeover(lab: &mut Lab) -> Result<()> {
    configured(lab, back_to_takeover)
}

fn undone_after_restart(lab: &mut Lab) -> Result<()> {
    configured(lab, fail_after_restart)
}

/// Runs a test with a dockerd that has a configuration file and keeps containers while it is away.
pub(super) fn configured(lab: &mut Lab, test: fn(&mut Lab) -> Result<()>) -> Result<()> {
    configured_with("{}", lab, test)
}

fn configured_with(text: &str, lab: &mut Lab, test: fn(&mut Lab) -> Result<()>) -> Result<()> {
    fs::write(lab.daemon_json(), text)?;
    let result = lab
        .restart_dockerd(Restart::KeepsContainers, |_| Ok(()))
        .context("give dockerd a configuration file and --live-restore")
        .and_then(|()| test(lab));
    lab.remove_netpath()?;
    lab.remove_containers()?;
    fs::remove_file(lab.daemon_json())?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    result
}

/// The key is an experiment in the installed version of Docker, and off by default.
fn ipv6_rules(lab: &mut Lab) -> Result<()> {
    configured_with(r#"{"experimental": true, "ip6tables": true}"#, lab, |lab| {
        lab.start_netpath(Options::default())?;
        let _network = lab.docker().network(&["--ipv6", "--subnet", "fd00:6e71::/64"])?;
        let rules = lab.host().run(&["ip6tables-save"])?;
        ensure!(rules.contains("fd00:6e71::/64"), "dockerd keeps no rules of ip6tables: {rules}");
        expect_in_the_way(lab, "ip6tables")
    })
}

fn without_icc(lab: &mut Lab) -> Result<()> {
    lab.restart_dockerd(Restart::WithoutIcc, |_| Ok(()))?;
    let outcome = expect_icc_in_the_way(lab);
    lab.remove_netpath()?;
    lab.remove_containers()?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    outcome
}

fn expect_icc_in_the_way(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    // A network of one's own may.
    let _network = lab.docker().network(&["--opt", "com.docker.network.bridge.enable_icc=false"])?;
    expect_in_the_way(lab, "icc")
}

/// One finding blocks, and so nothing is done.
fn expect_in_the_way(lab: &mut Lab, subject: &str) -> Result<()> {
    let found = reported(lab, 6)?;
    let in_the_way: Vec<_> = subjects(&found).into_iter().filter(|(_, level)| level == "blocks").collect();
    ensure!(in_the_way == [(subject.to_owned(), "blocks".to_owned())], "{found}");
    let directory = tempfile::tempdir().context("make a directory")?;
    let path = directory.path().join("daemon.json");
    let words = ["migrate", "--to", "sole", "--daemon-json", &path.to_string_lossy(), "--restart-command", "true"];
    let refused = lab.netpath()?.output(&words)?;
    ensure!(refused.code != 0 && refused.stderr.contains(subject), "{refused:?}");
    ensure!(!path.exists(), "refused, and yet dockerd's file was written");
    Ok(())
}

fn back_to_takeover(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80"))?;
    let mut open = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let knocker = Knocker::start(lab, container.address()?)?;
    migrate(lab, "sole")?;
    open.echo("sole")?;
    let mut since_sole = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    knocker.expect_knocks()?;
    migrate(lab, "takeover")?;
    let status = lab.netpath()?.status()?;
    ensure!(status.mode == "takeover" && status.in_sync, "after migrating to takeover: {status:?}");
    let rules = lab.host().run(&["iptables-save"])?;
    ensure!(rules.contains("--dport 8080 -j DNAT") && rules.contains(":FORWARD DROP"), "Docker's rules: {rules}");
    let configuration = fs::read_to_string(lab.daemon_json())?;
    ensure!(!configuration.contains("iptables"), "{configuration}");
    open.echo("takeover").context("a connection from the beginning")?;
    since_sole.echo("takeover").context("a connection from sole mode")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("new in takeover mode")?;
    knocker.expect_knocks()?;
    knocker.finish()?;
    // netpath opens that door to nobody, whatever the rules say.
    lab.remove_netpath()?;
    expect_knocks_can_open(lab, container.address()?)
}

/// netpath's daemon ends while dockerd restarts, and so never follows to sole mode.
fn fail_after_restart(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let mut open = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let rules = saved(lab)?;
    let mut asking = Asking::start(lab, "sole")?;
    asking.expect(1)?;
    lab.netpath()?.kill()?;
    lab.restart_dockerd(Restart::KeepsContainers, |_| Ok(()))?;
    asking.answer(1)?;
    asking.expect(2).context("the way back")?;
    lab.restart_dockerd(Restart::KeepsContainers, |_| Ok(()))?;
    asking.answer(2)?;
    let output = asking.finish()?;
    ensure!(output.code == 1, "it ended with {}: {}{}", output.code, output.stdout, output.stderr);
    ensure!(output.stdout.contains("undoing step 2"), "{output:?}");
    ensure!(fs::read_to_string(lab.daemon_json())? == "{}", "the configuration isn't as it was");
    // dockerd has made them anew, in another order.
    let sorted = |mut rules: Vec<String>| {
        rules.sort();
        rules
    };
    let (rules, now) = (sorted(rules), sorted(saved(lab)?));
    ensure!(now == rules, "the rules were {rules:#?}, now they are {now:#?}");
    open.echo("without a daemon")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("new without a daemon")?;
    lab.netpath()?.start_again()?;
    lab.netpath()?.wait_in_step()?;
    ensure!(lab.netpath()?.status()?.mode == "takeover", "it isn't in takeover mode again");
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("new in takeover mode").map(drop)
}

/// What an old dockerd leaves in iptables of old, between what is somebody's own.
const LEFT: &str = "*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.9.0.0/24 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:own - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i virbr0 -j ACCEPT
-A DOCKER-USER -j RETURN
-A own -j DROP
COMMIT
";

fn legacy(lab: &mut Lab) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let file = directory.path().join("rules");
    fs::write(&file, LEFT)?;
    lab.host().run(&["iptables-legacy-restore", &file.to_string_lossy()])?;
    lab.start_netpath(Options::default())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let before = reported(lab, 6)?;
    ensure!(subjects(&before).contains(&("stale_chains".to_owned(), "blocks".to_owned())), "{before}");
    lab.netpath()?.expect_code(&["migrate", "--to", "sole", "--force"], 0)?;
    let left = lab.host().run(&["iptables-legacy-save"])?;
    ensure!(!left.contains("DOCKER") && !left.contains("docker0"), "Docker's rules are left: {left}");
    for own in [":FORWARD DROP", "-s 10.9.0.0/24", "-i virbr0", "-A own -j DROP"] {
        ensure!(left.contains(own), "{own} has gone: {left}");
    }
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("as before").map(drop)
}

fn with_configuration(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().serving(&["tcp:80", "tcp:81"]).publish("8080:80"))?;
    let mut open = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    let knocker = Knocker::start(lab, container.address()?)?;
    wait::until_true("the first knocks", ASKED_DEADLINE, || Ok(knocker.knocks() > 2))?;

    migrate(lab, "sole")?;
    let status = lab.netpath()?.status()?;
    ensure!(status.mode == "sole" && status.in_sync, "after migrating to sole: {status:?}");
    let rules = lab.host().run(&["iptables-save"])?;
    ensure!(
        !rules.contains("DOCKER") && rules.contains(":FORWARD DROP"),
        "rules are left, or the host is open: {rules}"
    );
    let configuration: Value = serde_json::from_str(&fs::read_to_string(lab.daemon_json())?)?;
    ensure!(configuration["iptables"] == false && configuration["userland-proxy"] == false, "{configuration}");
    open.echo("sole").context("a connection from before, in sole mode")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("new in sole mode")?;
    knocker.expect_knocks()?;

    migrate(lab, "docker")?;
    ensure!(!lab.netpath()?.is_running()?, "the daemon goes on after migrating to docker");
    let rules = lab.host().run(&["iptables-save"])?;
    ensure!(rules.contains("--dport 8080 -j DNAT") && rules.contains(":FORWARD DROP"), "Docker's rules: {rules}");
    open.echo("docker").context("a connection from before, with Docker's rules")?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("new with Docker's rules")?;
    knocker.expect_knocks()?;
    knocker.finish()?;
    expect_knocks_can_open(lab, container.address()?)
}

/// The proof that the knocks meant something: on an open host they would have been let in.
fn expect_knocks_can_open(lab: &Lab, container: Ipv4Addr) -> Result<()> {
    lab.host().run(&["iptables", "-P", "FORWARD", "ACCEPT"])?;
    lab.lan().run(&["ip", "route", "add", CONTAINERS, "via", &HOST.to_string()])?;
    let opened = TcpClient::connect_within(lab.lan(), 0, SocketAddrV4::new(container, 81), ASKED_DEADLINE);
    lab.lan().run(&["ip", "route", "delete", CONTAINERS])?;
    lab.host().run(&["iptables", "-P", "FORWARD", "DROP"])?;
    opened.context("the closed port on an open host").map(drop)
}

/// Migrates, with the lab's dockerd restarted when the migration asks for it.
fn migrate(lab: &mut Lab, target: &str) -> Result<()> {
    let mut asking = Asking::start(lab, target)?;
    let restarted = asking.expect(1).and_then(|()| lab.restart_dockerd(Restart::KeepsContainers, |_| Ok(())));
    asking.answer(1)?;
    let output = asking.finish()?;
    ensure!(output.code == 0, "migrate --to {target} ended with {}: {}{}", output.code, output.stdout, output.stderr);
    restarted
}

/// A migration that asks the test to restart dockerd: its command adds a line to a file, and waits for as many in another.
struct Asking {
    asked: PathBuf,
    answered: PathBuf,
    migrating: Option<JoinHandle<Result<shell::Output>>>,
    _directory: tempfile::TempDir,
}

impl Asking {
    fn start(lab: &mut Lab, target: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory")?;
        let (asked, answered) = (directory.path().join("asked"), directory.path().join("answered"));
        for file in [&asked, &answered] {
            fs::write(file, "")?;
        }
        let lines = |file: &Path| format!("$(wc -l < {})", file.display());
        let wait = format!("while [ {} -lt {} ]; do sleep 0.1; done", lines(&answered), lines(&asked));
        let script = format!("echo >> {}; {wait}", asked.display());
        let path = lab.daemon_json().to_string_lossy().into_owned();
        let words = ["migrate", "--to", target, "--daemon-json", &path, "--restart-command", &script];
        let mut command = lab.netpath()?.command(&words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let migrating = thread::spawn(move || shell::output_within(&mut command, Duration::from_secs(240)));
        Ok(Self { asked, answered, migrating: Some(migrating), _directory: directory })
    }

    /// Waits until a restart has been asked for so many times.
    fn expect(&self, times: usize) -> Result<()> {
        wait::until_true("the migration to restart dockerd", ASKED_DEADLINE, || {
            let ended = self.migrating.as_ref().is_none_or(JoinHandle::is_finished);
            Ok(ended || fs::read_to_string(&self.asked)?.lines().count() >= times)
        })
    }

    fn answer(&mut self, times: usize) -> Result<()> {
        fs::write(&self.answered, "\n".repeat(times)).context("tell the migration that dockerd is back")
    }

    fn finish(mut self) -> Result<shell::Output> {
        let Some(Ok(output)) = self.migrating.take().map(JoinHandle::join) else {
            bail!("the thread of the migration panicked")
        };
        output
    }
}

/// Somebody on the wire who tries a container's unpublished port by its own address, again and again, and its published
/// port by the host's.
struct Knocker {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    knocks: AtomicU32,
    opened: AtomicU32,
    served: AtomicU32,
    unserved: AtomicU32,
}

impl Knocker {
    fn start(lab: &Lab, container: Ipv4Addr) -> Result<Self> {
        lab.lan().run(&["ip", "route", "add", CONTAINERS, "via", &HOST.to_string()])?;
        let lan = Place::open("lan", Path::new(&lab.lan().path()))?;
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                let closed = TcpClient::connect_within(&lan, 0, SocketAddrV4::new(container, 81), KNOCK);
                shared.opened.fetch_add(u32::from(closed.is_ok()), Ordering::Relaxed);
                let published = TcpClient::connect_within(&lan, 0, SocketAddrV4::new(HOST, 8080), KNOCK)
                    .and_then(|mut client| client.echo("knock").map(drop));
                let counter = if published.is_ok() { &shared.served } else { &shared.unserved };
                counter.fetch_add(1, Ordering::Relaxed);
                shared.knocks.fetch_add(1, Ordering::Relaxed);
            }
            drop(lan.run(&["ip", "route", "delete", CONTAINERS]));
        });
        Ok(Self { seen, thread: Some(thread) })
    }

    fn knocks(&self) -> u32 {
        self.seen.knocks.load(Ordering::Relaxed)
    }

    /// Waits for some more knocks, so that the state that was just reached is tried as well.
    fn expect_knocks(&self) -> Result<()> {
        let before = self.knocks();
        wait::until_true("more knocks", ASKED_DEADLINE, || Ok(self.knocks() > before + 5))
    }

    fn finish(mut self) -> Result<()> {
        self.end();
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let Seen { knocks, opened, served, unserved, .. } = &*self.seen;
        let (knocks, opened, served, unserved) = (count(knocks), count(opened), count(served), count(unserved));
        ensure!(opened == 0, "the closed port took {opened} of {knocks} connections");
        ensure!(served > 0 && unserved == 0, "the published port served {served} and failed {unserved} connections");
        Ok(())
    }

    fn end(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        self.end();
    }
}
