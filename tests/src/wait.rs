//! Waiting for a condition with a deadline. Nothing in the tests waits for a time instead of for an event.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `probe` until it succeeds; its last error is the cause when `within` has passed.
///
/// # Errors
/// When the deadline passes first.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("waited {within:?} in vain for: {what}"));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// Calls `condition` until it is true.
///
/// # Errors
/// When the deadline passes first, or when `condition` keeps failing until then.
pub fn until_true(what: &str, within: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, within, || {
        ensure!(condition()?, "not so yet");
        Ok(())
    })
}
