//! Listening to events of flows: the one reader of the ring buffer `EVENTS`.
//!
//! A ring buffer has one place up to which it was read, so it has one reader: a lock on the directory of the maps, which
//! the kernel gives back when the reader ends in whatever way. The packet path writes only while `LISTENER` says that
//! somebody listens, and that is a lease: a thread renews it, so that neither a slow terminal nor a killed reader needs
//! anybody's care. No daemon takes part.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use netpath_common::abi::{Event, PathCount, Traffic, names::map};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use tokio::io::unix::AsyncFd;

use super::{
    bpf,
    detach::now_ns,
    layout::Layout,
    pins::{self, PinsError},
};

/// How long the packet path goes on telling after a listener has died.
const LEASE_NS: u64 = 10_000_000_000;
/// Between two renewals: often enough for a machine that is busy.
const RENEWAL: Duration = Duration::from_secs(1);

/// Why nobody can listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody does.
    #[error("another `netpath ct events` is listening to {}; there can be one at a time", .0.display())]
    Taken(PathBuf),
    /// The pins can't be read.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The one who hears of flows.
pub struct Listener {
    // In the order in which they must go: nobody else may read while the packet path is still told that we do.
    renewer: Renewer,
    ring: AsyncFd<RingBuf<MapData>>,
    traffic: PerCpuArray<MapData, Traffic>,
    lost_before: u64,
    pin: PathBuf,
    _lock: Flock<File>,
}

impl Listener {
    /// Begins to listen. Must be called inside the async runtime.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn open(pin_dir: &Path) -> Result<Self, ListenError> {
        let layout = Layout::new(pin_dir);
        let ring = pins::open(&layout, map::EVENTS)?;
        let lock = lock(&layout)?;
        let mut ring: RingBuf<MapData> = RingBuf::try_from(Map::RingBuf(ring)).context("the ring of events")?;
        // What an earlier listener has left unread.
        while ring.next().is_some() {}
        let traffic = pins::typed(&layout, map::TRAFFIC, Map::PerCpuArray)?;
        let lost_before = lost(&traffic)?;
        let renewer = Renewer::start(pins::typed(&layout, map::LISTENER, Map::Array)?)?;
        let ring = bpf::watch(ring).context("can't wait for events")?;
        Ok(Self { renewer, ring, traffic, lost_before, pin: layout.map(map::EVENTS), _lock: lock })
    }

    /// Waits until there is an event; [`Self::take`] gives it.
    ///
    /// # Errors
    ///
    /// When the ring can't be waited for.
    pub async fn readable(&self) -> io::Result<()> {
        // Cleared at once: the kernel wakes again for what comes after the ring was read empty.
        self.ring.readable().await?.clear_ready();
        Ok(())
    }

    /// The next event, if there is one now, as the original direction has it.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.get_mut().next()?;
        bytemuck::try_pod_read_unaligned(&item).ok().map(Event::of_original)
    }

    /// How many events were lost since this listener began, because the ring was full.
    ///
    /// # Errors
    ///
    /// When the counters can't be read.
    pub fn lost(&self) -> anyhow::Result<u64> {
        Ok(lost(&self.traffic)?.saturating_sub(self.lost_before))
    }

    /// Whether nothing more can come: netpath was detached, or the lease couldn't be renewed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.pin.exists() || self.renewer.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

fn lock(layout: &Layout) -> Result<Flock<File>, ListenError> {
    let directory = layout.maps();
    let file = File::open(&directory).with_context(|| format!("can't open {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => ListenError::Taken(layout.root().to_owned()),
        errno => anyhow::Error::new(errno).context(format!("can't lock {}", directory.display())).into(),
    })
}

fn lost(traffic: &PerCpuArray<MapData, Traffic>) -> anyhow::Result<u64> {
    let values = traffic.get(&(PathCount::EventsLost as u32), 0).context("can't read the map of traffic")?;
    Ok(values.iter().map(|value| value.packets).sum())
}

/// Renews the lease until it is dropped, and gives it back then.
struct Renewer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewer {
    fn start(mut lease: Array<MapData, u64>) -> anyhow::Result<Self> {
        renew(&mut lease)?;
        let (stop, stopped) = channel::<()>();
        let work = move || {
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = renew(&mut lease) {
                    tracing::debug!(error = format!("{error:#}"), "the lease on events ends");
                    return;
                }
            }
            if let Err(error) = lease.set(0, 0, 0) {
                tracing::debug!(%error, "the lease on events ends by itself");
            }
        };
        let thread = thread::Builder::new().name("lease".to_owned()).spawn(work).context("can't start a thread")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!("the thread that renews the lease on events has panicked");
        }
    }
}

fn renew(lease: &mut Array<MapData, u64>) -> anyhow::Result<()> {
    let until_ns = now_ns()?.saturating_add(LEASE_NS);
    lease.set(0, until_ns, 0).context("can't write until when somebody listens")
}
