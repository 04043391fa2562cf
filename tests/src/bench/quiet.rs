//! Whether other programs use the machine's CPUs while a sample is taken, and waiting until they don't.
//!
//! A compiler beside a benchmark costs whichever side is measured at that moment. So a sample begins when others are
//! quiet and is taken again when they weren't: it is chosen by what others did, never by its result. Patience ends;
//! then samples count as they are, and the report says how much of a CPU others used.
//!
//! What is seen is the time that others spend in user mode, because the kernel's time, the packets' own included,
//! belongs to nobody in particular.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// CPUs that others may use.
const LIMIT: f64 = 0.1;

/// How long others are watched before a sample.
const GLANCE: Duration = Duration::from_millis(200);

/// The part of a run's patience that a single sample may take.
const PATIENCE_FOR_ONE: Duration = Duration::from_secs(15);

/// What is left of the patience of a run, and for its present sample.
#[derive(Debug)]
pub struct Patience {
    run: Duration,
    sample: Duration,
}

impl Patience {
    /// The time to wait for quiet, and to take samples again, in a whole run.
    #[must_use]
    pub fn new(run: Duration) -> Self {
        Self { run, sample: Duration::ZERO }
    }

    /// Sets a part aside for the next sample.
    pub fn renew(&mut self) {
        self.sample = PATIENCE_FOR_ONE.min(self.run);
    }

    /// Waits until others are quiet, as long as there is patience.
    ///
    /// # Errors
    /// When the CPUs' times can't be read.
    pub fn wait(&mut self) -> Result<()> {
        loop {
            let meter = Meter::start()?;
            thread::sleep(GLANCE);
            if self.accepts(meter.others()?) {
                return Ok(());
            }
            self.spend(GLANCE);
        }
    }

    /// Whether a sample counts during which others used that many CPUs.
    #[must_use]
    pub fn accepts(&self, others: f64) -> bool {
        others <= LIMIT || self.sample.is_zero()
    }

    /// Takes time away from it.
    pub fn spend(&mut self, time: Duration) {
        self.run = self.run.saturating_sub(time);
        self.sample = self.sample.saturating_sub(time);
    }
}

/// Measures the CPUs that others use.
#[derive(Debug)]
pub struct Meter {
    begin: Instant,
    all: u64,
    own: u64,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// When the CPUs' times can't be read.
    pub fn start() -> Result<Self> {
        Ok(Self { begin: Instant::now(), all: machine_ticks()?, own: own_ticks()? })
    }

    /// The time since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// How many CPUs others have used since it began, on average.
    ///
    /// # Errors
    /// When the CPUs' times can't be read.
    #[expect(clippy::cast_precision_loss, reason = "ticks of some seconds")]
    pub fn others(&self) -> Result<f64> {
        let all = machine_ticks()?.saturating_sub(self.all);
        let own = own_ticks()?.saturating_sub(self.own);
        Ok(all.saturating_sub(own) as f64 / ticks_per_second()? / self.elapsed().as_secs_f64())
    }
}

/// The time that everything has spent in user mode.
fn machine_ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    // "cpu  USER NICE SYSTEM ..."
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(2);
    fields.map(|field| field.parse::<u64>().with_context(|| format!("{field:?} in /proc/stat is no number"))).sum()
}

/// The time that this process has spent in user mode.
fn own_ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // "PID (NAME) STATE PPID ...": the name may hold blanks; user time is the fourteenth field.
    let (_, fields) = text.rsplit_once(") ").context("read /proc/self/stat")?;
    fields.split(' ').nth(11).context("/proc/self/stat ends early")?.parse().context("read the process's own time")
}

/// The unit of the times above.
///
/// # Errors
/// When the kernel doesn't tell.
pub(super) fn ticks_per_second() -> Result<f64> {
    // SAFETY: it takes a number and gives one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ensure!(ticks > 0, "the kernel doesn't tell its clock ticks");
    Ok(f64::from(i32::try_from(ticks).context("clock ticks")?))
}
