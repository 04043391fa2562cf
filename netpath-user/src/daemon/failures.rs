//! Changes that failed: what is said of them, and when they are tried again.

use std::{collections::BTreeMap, time::Duration};

use tracing::{debug, warn};

use crate::report::PendingFailure;

/// Before the second attempt, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What failed in the last round, by object.
#[derive(Debug, Default)]
pub(super) struct Failures {
    failed: BTreeMap<String, Failure>,
    rounds: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Failure {
    error: String,
    attempts: u32,
}

impl Failures {
    /// Replaces the failures by those of a new round; an object that fails again keeps its count. A new failure is
    /// logged as a warning, a repeated one only for debugging.
    pub(super) fn replace(&mut self, round: Vec<(String, String)>) {
        let mut failed = BTreeMap::new();
        for (object, error) in round {
            let before = self.failed.get(&object);
            let attempts = before.map_or(0, |failure| failure.attempts) + 1;
            if before.is_some_and(|failure| failure.error == error) {
                debug!(object, error, attempts, "failed again");
            } else {
                warn!(object, error, "failed; it is tried again");
            }
            failed.insert(object, Failure { error, attempts });
        }
        self.rounds = if failed.is_empty() { 0 } else { self.rounds.saturating_add(1) };
        self.failed = failed;
    }

    /// How long to wait before the next attempt; none when nothing failed.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let doublings = self.rounds.checked_sub(1)?.min(16);
        Some((RETRY.0 * 2_u32.pow(doublings)).min(RETRY.1))
    }

    /// What failed.
    pub(super) fn report(&self) -> impl Iterator<Item = PendingFailure> + '_ {
        self.failed.iter().map(|(object, failure)| PendingFailure {
            object: object.clone(),
            error: failure.error.clone(),
            attempts: failure.attempts,
        })
    }

    /// What failed of an object.
    pub(super) fn of(&self, object: &str) -> Option<&str> {
        self.failed.get(object).map(|failure| failure.error.as_str())
    }

    /// Whether nothing failed.
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(object: &str) -> Vec<(String, String)> {
        vec![(object.to_owned(), "no".to_owned())]
    }

    #[test]
    fn waits_grow_to_a_limit_and_start_anew_after_a_good_round() {
        let mut failures = Failures::default();
        assert_eq!(failures.retry_after(), None);
        let waits: Vec<u128> = (0..8)
            .map(|_| {
                failures.replace(failure("a"));
                failures.retry_after().unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        failures.replace(vec![]);
        assert_eq!(failures.retry_after(), None);
        failures.replace(failure("a"));
        assert_eq!(failures.retry_after(), Some(RETRY.0));
    }

    #[test]
    fn attempts_are_counted_for_each_object() {
        let mut failures = Failures::default();
        failures.replace(failure("a"));
        failures.replace([failure("a"), failure("b")].concat());
        let attempts: Vec<_> = failures.report().map(|failure| (failure.object, failure.attempts)).collect();
        assert_eq!(attempts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
