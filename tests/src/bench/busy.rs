//! What a load costs: the CPU time of the whole machine, at both ends and in between, interrupts included.
//!
//! The time of a packet belongs to no process in particular, so it is the whole machine's that is taken, in ticks of
//! 10 ms. Other programs' time is in it: on a quiet machine it is none.

use std::fs;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use super::pinned::Window;
use super::quiet::ticks_per_second;

/// The time that all CPUs together have been busy since the start of the machine, in seconds.
///
/// # Errors
/// When the kernel doesn't tell.
#[expect(clippy::cast_precision_loss, reason = "ticks since the start are far below 2^52")]
pub fn seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    // "cpu  USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL ..."
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(7).enumerate();
    let busy = fields.filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks: u64 = busy
        .map(|(_, field)| field.parse::<u64>().with_context(|| format!("{field:?} in /proc/stat is no number")))
        .sum::<Result<_>>()?;
    Ok(ticks as f64 / ticks_per_second()?)
}

/// Runs a load and measures the CPU seconds that pass in its window.
///
/// # Errors
/// The load's, or when the kernel doesn't tell.
pub fn during<T>(window: Window, load: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let (begin, end) = window.bounds();
            thread::sleep(begin.saturating_duration_since(Instant::now()));
            let before = seconds()?;
            thread::sleep(end.saturating_duration_since(Instant::now()));
            Ok::<_, anyhow::Error>(seconds()? - before)
        });
        let result = load()?;
        let busy = watch.join().map_err(|_| anyhow!("the thread that watches the CPUs panicked"))??;
        Ok((result, busy))
    })
}
