//! Short grace periods while many programs are attached or detached.
//!
//! To attach by tcx or to detach, the kernel waits for a grace period of RCU (`tcx_entry_sync`, include/net/tcx.h) and holds the
//! lock of all interfaces meanwhile: 12 ms and more each time, many seconds for 500 containers. For its own changes of interfaces
//! it waits for expedited ones (`synchronize_net`, net/core/dev.c); tcx does when the whole machine is told to
//! (`/sys/kernel/rcu_expedited`), and then takes a fraction of a millisecond. An expedited one interrupts every CPU that isn't idle,
//! so the setting holds for as long as the attachments take. A machine that mustn't be interrupted is booted with
//! `rcupdate.rcu_normal=1`, which comes before it.
//!
//! A directory among the pins stands for as long: it tells the next start, or `netpath detach`, that a daemon was killed
//! before it could put the setting back. The two live equally long, until the machine is booted.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{kernel::Kernel, layout::Layout};

/// Absent where no grace period takes time (a kernel for one CPU), not to be written where /sys is read-only.
const SETTING: &str = "/sys/kernel/rcu_expedited";

/// So few attachments aren't worth a change of the machine.
const FEW: usize = 8;

/// While it lives, grace periods are expedited.
#[derive(Debug)]
pub struct Expedited {
    setting: PathBuf,
    marker: PathBuf,
}

impl Expedited {
    /// Expedites grace periods for so many attachments, if that is worth it and can be done.
    pub(super) fn for_attachments(count: usize, layout: &Layout) -> Option<Self> {
        (count > FEW).then(|| Self::begin(Path::new(SETTING), layout.expedited()))?
    }

    /// None where they are expedited already, or can't be.
    fn begin(setting: &Path, marker: PathBuf) -> Option<Self> {
        let value = fs::read_to_string(setting).ok()?;
        if value.trim() != "0" {
            return None;
        }
        // Before the setting: whoever is killed in between has changed nothing that needs it.
        let marked = fs::create_dir(&marker).and_then(|()| fs::write(setting, "1"));
        if let Err(error) = marked {
            tracing::debug!(setting = %setting.display(), %error, "attaching takes a grace period each time");
            fs::remove_dir(&marker).ok();
            return None;
        }
        Some(Self { setting: setting.to_owned(), marker })
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Err(error) = put_back(&self.setting, &self.marker) {
            tracing::warn!(setting = %self.setting.display(), %error, "grace periods stay expedited: can't write 0");
        }
    }
}

fn put_back(setting: &Path, marker: &Path) -> io::Result<()> {
    fs::write(setting, "0")?;
    fs::remove_dir(marker)
}

/// Puts the setting back that a daemon has left which was killed while it attached programs.
///
/// # Errors
///
/// When it can't be written.
pub(super) fn put_back_what_is_left(layout: &Layout) -> anyhow::Result<()> {
    put_back_if_marked(Path::new(SETTING), &layout.expedited())
}

fn put_back_if_marked(setting: &Path, marker: &Path) -> anyhow::Result<()> {
    if !marker.exists() {
        return Ok(());
    }
    match put_back(setting, marker) {
        Ok(()) => {
            tracing::warn!(
                "a daemon was killed while it attached programs and left the kernel's grace periods expedited; that is put back"
            );
            Ok(())
        }
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::NotFound && !marker.exists() => Ok(()),
        Err(error) => Err(error)
            .with_context(|| format!("a daemon that was killed has left 1 in {}: can't write 0", setting.display())),
    }
}

impl Kernel {
    /// Makes so many attachments quick for as long as the answer lives. The kernel expedites by itself what isn't done by tcx.
    #[must_use]
    pub fn hurry(&self, attachments: usize) -> Option<Expedited> {
        if self.links.wait_for_grace_periods() { Expedited::for_attachments(attachments, &self.layout) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(value: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::write(machine.setting(), value).unwrap();
            machine
        }

        fn setting(&self) -> PathBuf {
            self.0.path().join("rcu_expedited")
        }

        fn marker(&self) -> PathBuf {
            self.0.path().join("expedited")
        }

        fn begin(&self) -> Option<Expedited> {
            Expedited::begin(&self.setting(), self.marker())
        }

        fn value(&self) -> String {
            fs::read_to_string(self.setting()).unwrap().trim().to_owned()
        }
    }

    #[test]
    fn the_setting_holds_for_as_long_as_it_is_asked_for() {
        let machine = Machine::with("0\n");
        let expedited = machine.begin().expect("expedited");
        assert_eq!((machine.value().as_str(), machine.marker().exists()), ("1", true));
        drop(expedited);
        assert_eq!((machine.value().as_str(), machine.marker().exists()), ("0", false));
    }

    #[test]
    fn a_machine_that_expedites_by_itself_stays_as_it_is() {
        let machine = Machine::with("1\n");
        assert!(machine.begin().is_none());
        assert_eq!((machine.value().as_str(), machine.marker().exists()), ("1", false));
    }

    #[test]
    fn where_it_cannot_be_had_nothing_is_marked() {
        let machine = Machine::with("0\n");
        fs::remove_file(machine.setting()).unwrap();
        assert!(machine.begin().is_none());
        assert!(!machine.marker().exists());
    }

    #[test]
    fn what_a_killed_daemon_has_left_is_put_back_once() {
        let machine = Machine::with("0\n");
        std::mem::forget(machine.begin().expect("expedited"));
        put_back_if_marked(&machine.setting(), &machine.marker()).unwrap();
        assert_eq!((machine.value().as_str(), machine.marker().exists()), ("0", false));
        // Set by the operator since.
        fs::write(machine.setting(), "1").unwrap();
        put_back_if_marked(&machine.setting(), &machine.marker()).unwrap();
        assert_eq!(machine.value(), "1");
    }

    #[test]
    fn few_attachments_change_nothing() {
        assert!(Expedited::for_attachments(FEW, &Layout::new(Path::new("/nonexistent"))).is_none());
    }
}
