//! Ctrl-C and SIGTERM as something to ask about, so that the lab is always taken away in order.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd as _;

/// The signals that end the lab, blocked and waiting to be asked for. Programs that are started get a clean mask from the standard library.
pub(crate) struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// Blocks the signals, from here on.
    pub(crate) fn catch() -> Result<Self> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        set.thread_block().context("blocking SIGINT, SIGTERM and SIGHUP")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { signals: signals.context("a descriptor for signals")? })
    }

    /// Whether one has come. It is left there for others to see.
    pub(crate) fn came(&self) -> bool {
        self.poll(PollTimeout::ZERO)
    }

    /// Waits for one.
    pub(crate) fn wait(&self) -> Result<()> {
        while !self.poll(PollTimeout::NONE) {}
        Ok(())
    }

    /// Asks again and again, until `ready` or the time is over or we are interrupted.
    pub(crate) fn until(&self, what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        const STEP_MS: u16 = 100;
        let start = std::time::Instant::now();
        while !ready()? {
            if self.poll(PollTimeout::from(STEP_MS)) {
                bail!("interrupted while waiting for {what}");
            }
            if start.elapsed() > limit {
                bail!("{what} did not come within {} s", limit.as_secs());
            }
        }
        Ok(())
    }

    fn poll(&self, timeout: PollTimeout) -> bool {
        let mut descriptors = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0)
    }
}
