//! Steps with a headline and a closing line each, and a total.

use std::time::Instant;

use anyhow::{Result, bail};

/// How the steps went. A failing step does not keep the next from running: each says something of its own.
#[derive(Default)]
pub(crate) struct Tally {
    steps: Vec<Step>,
}

struct Step {
    name: String,
    passed: bool,
    seconds: u64,
}

impl Tally {
    /// Runs a step. Its name is the headline up to a colon.
    pub(crate) fn step(&mut self, headline: &str, run: impl FnOnce() -> Result<()>) {
        let name = headline.split(':').next().unwrap_or(headline).to_owned();
        println!("\n== {headline}");
        let start = Instant::now();
        let done = run();
        let step = Step { name, passed: done.is_ok(), seconds: start.elapsed().as_secs() };
        match done {
            Ok(()) => println!("== {}: passed in {} s", step.name, step.seconds),
            Err(error) => println!("== {}: FAILED after {} s: {error:#}", step.name, step.seconds),
        }
        self.steps.push(step);
    }

    /// Says how each step went, and the total; an error if one failed.
    pub(crate) fn close(self, what: &str) -> Result<()> {
        println!();
        for step in &self.steps {
            let outcome = if step.passed { "passed" } else { "FAILED" };
            println!("{:<45} {outcome} {:>5} s", step.name, step.seconds);
        }
        let failed = self.steps.iter().filter(|step| !step.passed).map(|step| step.name.as_str()).collect::<Vec<_>>();
        println!("{what}: {} passed, {} failed", self.steps.len() - failed.len(), failed.len());
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
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
