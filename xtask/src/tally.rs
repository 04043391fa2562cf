//! Steps with a headline and a closing line each, and a total.

use std::time::Instant;

use anyhow::{Result, bail};

/// How the steps went. A failing step does not keep the next from running: each says something of its own.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u32,
    failed: Vec<String>,
}

impl Tally {
    /// Runs a step. Its name is the headline up to a colon.
    pub(crate) fn step(&mut self, headline: &str, run: impl FnOnce() -> Result<()>) {
        let name = headline.split(':').next().unwrap_or(headline);
        println!("\n== {headline}");
        let start = Instant::now();
        match run() {
            Ok(()) => {
                println!("== {name}: passed in {} s", start.elapsed().as_secs());
                self.passed += 1;
            }
            Err(error) => {
                println!("== {name}: FAILED after {} s: {error:#}", start.elapsed().as_secs());
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Says the total; an error if a step failed.
    pub(crate) fn close(self, what: &str) -> Result<()> {
        println!("\n== {what}: {} passed, {} failed", self.passed, self.failed.len());
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_whole_but_not_the_next_step() {
        let mut tally = Tally::default();
        let mut ran = 0;
        tally.step("one: fails", || bail!("no"));
        tally.step("two", || {
            ran += 1;
            Ok(())
        });
        assert_eq!(ran, 1);
        assert_eq!(tally.close("both").unwrap_err().to_string(), "failed: one");
    }
}
