//! Starting beside many containers takes a moment, and changes nothing of the machine for longer.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::lab::Lab;
use netpath_tests::netpath::{Netpath, Options};
use netpath_tests::shell;

pub(crate) const CASES: &[Case] = &[
    Case::new("a start beside dozens of containers takes a moment", many).own_netpath().sole(),
    Case::new("what a daemon left of the machine that was killed while it attached is put back", killed)
        .own_netpath()
        .sole(),
];

const CONTAINERS: u32 = 30;

/// For a restart, from the process to "attached and in step with Docker".
const RESTART: Duration = Duration::from_secs(1);

/// For each program that isn't attached yet. The kernel's usual grace period is at least three ticks: 12 ms with 250 in a
/// second.
const ATTACHMENT: Duration = Duration::from_millis(3);

/// The least of so many counts: others may use the machine.
const TRIES: usize = 3;

/// What the daemon may hold in memory, in bytes.
const RESIDENT: u64 = 50_000_000;

const SETTING: &str = "/sys/kernel/rcu_expedited";

fn many(lab: &mut Lab) -> Result<()> {
    let containers = (0..CONTAINERS).map(|_| lab.docker().idle().start()).collect::<Result<Vec<_>>>()?;
    let setting = fs::read_to_string(SETTING)?;
    lab.start_netpath(Options::default())?;
    let netpath = lab.netpath()?;
    let log = netpath.log()?.len();
    let (mut restarts, mut attaching) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        netpath.kill()?;
        restarts.push(netpath.start_timed()?);
        netpath.kill()?;
        let loose = detach_containers(netpath)?;
        ensure!(loose >= containers.len(), "only {loose} programs were at containers");
        attaching.push(netpath.start_timed()?);
        ensure!(netpath.status()?.endpoints.iter().all(|endpoint| endpoint.attached), "not all are attached");
    }
    ensure!(!netpath.log()?[log..].contains("has verified"), "a restart had programs verified again");
    let least = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    let (restart, attached) = (least(&restarts), least(&attaching));
    ensure!(restart < RESTART, "a restart takes {restart:?}: {restarts:?}");
    let more = attached.saturating_sub(restart);
    ensure!(
        more < ATTACHMENT * CONTAINERS,
        "{CONTAINERS} attachments take {more:?}: {attaching:?}, without {restarts:?}"
    );
    let usage = netpath.usage()?;
    ensure!(usage.resident_most < RESIDENT, "it holds too much memory: {usage:?}");
    ensure!(fs::read_to_string(SETTING)? == setting, "{SETTING} was {setting:?} and isn't any more");
    Ok(())
}

/// Takes the programs off the containers' interfaces, as if these were others, and gives how many there were.
fn detach_containers(netpath: &Netpath) -> Result<usize> {
    let links = fs::read_dir(netpath.pins().join("links")).context("list the links")?;
    let mut count = 0;
    for link in links {
        let path = link?.path();
        if path.to_string_lossy().contains("_container_") {
            shell::run_words(&["bpftool", "link", "detach", "pinned", &path.to_string_lossy()])?;
            count += 1;
        }
    }
    Ok(count)
}

fn killed(lab: &mut Lab) -> Result<()> {
    let _setting = Setting::read()?;
    lab.start_netpath(Options::default())?;
    let marker = lab.netpath()?.pins().join("expedited");
    lab.netpath()?.kill()?;
    leave(&marker)?;
    lab.netpath()?.start_again()?;
    ensure!(lab.netpath()?.log()?.contains("that is put back"), "the log doesn't tell of it");
    expect_put_back(&marker).context("after a start")?;
    lab.netpath()?.kill()?;
    leave(&marker)?;
    lab.netpath()?.expect_code(&["detach"], 0)?;
    expect_put_back(&marker).context("after `netpath detach`")
}

/// As a daemon leaves it that is killed while it attaches.
fn leave(marker: &Path) -> Result<()> {
    fs::create_dir(marker).with_context(|| format!("make {}", marker.display()))?;
    fs::write(SETTING, "1").with_context(|| format!("write {SETTING}"))
}

fn expect_put_back(marker: &Path) -> Result<()> {
    let value = fs::read_to_string(SETTING)?;
    ensure!(value.trim() == "0", "{SETTING} is {value:?}");
    ensure!(!marker.exists(), "{} is left", marker.display());
    Ok(())
}

/// The machine's own setting, which is put back whatever becomes of the test.
struct Setting(String);

impl Setting {
    fn read() -> Result<Self> {
        Ok(Self(fs::read_to_string(SETTING).with_context(|| format!("read {SETTING}"))?))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SETTING, self.0.trim()) {
            eprintln!("{SETTING} isn't {} again: {error}", self.0.trim());
        }
    }
}
