//! Ctrl-C and SIGTERM as something to ask about, so that the lab is always taken away in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CAME: AtomicBool = AtomicBool::new(false);

/// How often it is asked for.
const STEP: Duration = Duration::from_millis(100);

/// The signals that end the lab. They are caught and not blocked, because programs that we start would inherit the
/// blocking.
pub(crate) struct Interrupt;

impl Interrupt {
    /// Catches the signals, from here on.
    pub(crate) fn catch() -> Result<Self> {
        let note = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler only stores to an atomic, which is allowed at any moment, and lives as long as the
            // program.
            unsafe { sigaction(signal, &note) }.with_context(|| format!("catching {signal}"))?;
        }
        Ok(Self)
    }

    /// Whether one has come.
    pub(crate) fn came(&self) -> bool {
        CAME.load(Ordering::Relaxed)
    }

    /// Waits for one.
    pub(crate) fn wait(&self) {
        while !self.came() {
            sleep(STEP);
        }
    }

    /// Asks again and again, until `ready` or the time is over or we are interrupted.
    pub(crate) fn until(&self, what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !ready()? {
            if self.came() {
                bail!("interrupted while waiting for {what}");
            }
            if start.elapsed() > limit {
                bail!("{what} did not come within {} s", limit.as_secs());
            }
            sleep(STEP);
        }
        Ok(())
    }
}

extern "C" fn note(_signal: c_int) {
    CAME.store(true, Ordering::Relaxed);
}
