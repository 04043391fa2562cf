//! Threads that stay on their CPU, and the stretch of time in which they count.
//!
//! Unpinned, a question and its answer take several times longer whenever the scheduler puts the two ends on different
//! CPUs: the result would be the scheduler's, not the packet path's.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::netns::Place;

/// Time for queues to fill, sleeping CPUs to wake and TCP to leave its slow start.
const RAMP: Duration = Duration::from_millis(300);

/// The time in which is counted.
const LENGTH: Duration = Duration::from_secs(2);

/// Where the two ends of the load run.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// The end that sends or asks. The packet path itself mostly runs here too, in the sender's system calls.
    pub sender: usize,
    /// The end that receives or answers.
    pub receiver: usize,
}

impl Cpus {
    /// The first two CPUs that this process may use; the same for both if there is only one.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn choose() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("ask for the usable CPUs")?;
        let mut usable = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        let sender = usable.next().context("no CPU is usable")?;
        Ok(Self { sender, receiver: usable.next().unwrap_or(sender) })
    }
}

/// The stretch of time in which a sample counts.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    /// One that begins after the ramp.
    #[must_use]
    pub fn soon() -> Self {
        let begin = Instant::now() + RAMP;
        Self { begin, end: begin + LENGTH }
    }

    /// Whether what happens now counts.
    #[must_use]
    pub fn counts(&self, now: Instant) -> bool {
        now >= self.begin && now < self.end
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// A count as a rate per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of two seconds are far below 2^52")]
    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / (self.end - self.begin).as_secs_f64()
    }
}

/// One end of a load: where and on which CPU.
#[derive(Debug, Clone, Copy)]
pub struct End<'place> {
    /// The namespace in which it opens its sockets.
    pub place: &'place Place,
    /// The CPU on which it stays.
    pub cpu: usize,
}

impl End<'_> {
    /// Runs a closure on a thread of this end.
    ///
    /// # Errors
    /// When the thread can't get there, or the closure's error.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.place.enter(|| {
            let mut set = CpuSet::new();
            set.set(self.cpu).with_context(|| format!("name CPU {}", self.cpu))?;
            sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("stay on CPU {}", self.cpu))?;
            action()
        })
    }
}

/// Runs both ends at the same time, and gives what each returns.
///
/// # Errors
/// The errors of the ends, both if both fail.
pub fn both<A: Send, B: Send>(
    server: (End<'_>, impl FnOnce() -> Result<A> + Send),
    client: (End<'_>, impl FnOnce() -> Result<B> + Send),
) -> Result<(A, B)> {
    thread::scope(|scope| {
        let serving = scope.spawn(move || server.0.run(server.1).context("the receiving end"));
        let asked = client.0.run(client.1).context("the sending end");
        match (serving.join(), asked) {
            (Ok(Ok(served)), Ok(asked)) => Ok((served, asked)),
            (Ok(Err(error)), Err(other)) => bail!("{error:#}; {other:#}"),
            (Ok(Err(error)), Ok(_)) | (Ok(Ok(_)), Err(error)) => Err(error),
            (Err(_), _) => bail!("the receiving end panicked"),
        }
    })
}
