//! Threads that stay on their CPU, and the stretch of time in which they count.
//!
//! Unpinned, a question and its answer take several times longer whenever the scheduler puts the two ends on different
//! CPUs: the result would be the scheduler's, not the packet path's.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

use crate::netns::Place;

/// How long samples take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Long enough for steady figures.
    Full,
    /// Enough to see a clear difference.
    Quick,
}

impl Pace {
    /// Time for queues to fill, sleeping CPUs to wake and TCP to leave its slow start.
    const fn ramp(self) -> Duration {
        match self {
            Self::Full => Duration::from_millis(300),
            Self::Quick => Duration::from_millis(200),
        }
    }

    /// The time in which is counted.
    const fn length(self) -> Duration {
        match self {
            Self::Full => Duration::from_secs(2),
            Self::Quick => Duration::from_millis(500),
        }
    }
}

/// How the threads of the load compete with other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Like any program.
    Normal,
    /// Before all others (`SCHED_FIFO`), which get the 5 % that the kernel keeps for them: for a machine in use.
    Realtime,
}

/// Where the two ends of the load run.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// The end that sends or asks. The packet path itself mostly runs here too, in the sender's system calls.
    pub sender: usize,
    /// The end that receives or answers.
    pub receiver: usize,
    /// Against whom.
    pub priority: Priority,
}

impl Cpus {
    /// The first two CPUs that this process may use; the same for both if there is only one.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn choose(priority: Priority) -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("ask for the usable CPUs")?;
        let mut usable = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        let sender = usable.next().context("no CPU is usable")?;
        Ok(Self { sender, receiver: usable.next().unwrap_or(sender), priority })
    }
}

impl Cpus {
    /// Makes the calling thread one that looks at a load now and then, on a CPU that the load leaves free: before the
    /// load, which it delays by microseconds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch_on(cpu: usize) -> Result<()> {
        stay_on(cpu)?;
        become_realtime(2)
    }
}

/// Ends a system call of a thread.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt(libc::pthread_t);

impl Interrupt {
    /// Of the calling thread, which must outlive the value.
    ///
    /// # Errors
    /// When the kernel refuses the signal's handler.
    pub fn of_this_thread() -> Result<Self> {
        extern "C" fn nothing(_signal: libc::c_int) {}
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, so there is nothing that a signal handler may not do.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.context("handle SIGUSR1")?;
        // SAFETY: it takes nothing and can't fail.
        Ok(Self(unsafe { libc::pthread_self() }))
    }

    /// Sends the signal. One that comes before the call is lost: send until it has ended.
    pub fn send(self) {
        // SAFETY: the thread lives as long as the value, and handles the signal.
        unsafe { libc::pthread_kill(self.0, libc::SIGUSR1) };
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
    pub fn soon(pace: Pace) -> Self {
        let begin = Instant::now() + pace.ramp();
        Self { begin, end: begin + pace.length() }
    }

    /// One that begins at once: for what happens only once.
    #[must_use]
    pub fn now(pace: Pace) -> Self {
        Self::now_for(pace.length())
    }

    /// One that begins at once, of a length.
    #[must_use]
    pub fn now_for(length: Duration) -> Self {
        let begin = Instant::now();
        Self { begin, end: begin + length }
    }

    /// When it begins and ends.
    #[must_use]
    pub fn bounds(&self) -> (Instant, Instant) {
        (self.begin, self.end)
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self, now: Instant) -> bool {
        now >= self.begin
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
    /// How it competes for that CPU.
    pub priority: Priority,
}

impl End<'_> {
    /// Runs a closure on a thread of this end.
    ///
    /// # Errors
    /// When the thread can't get there, or the closure's error.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.place.enter(|| {
            stay_on(self.cpu)?;
            if self.priority == Priority::Realtime {
                become_realtime(1)?;
            }
            action()
        })
    }
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("name CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("stay on CPU {cpu}"))
}

fn become_realtime(priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters outlive the call, which changes the calling thread only.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
    Errno::result(result).map(drop).context("ask for real-time priority")
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
