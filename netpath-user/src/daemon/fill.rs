//! How full the flow table is, and when that is worth a word. Pure: the collector counts, the daemon logs.

use crate::status::Flows;

/// Relief is told at this fill only, in percent: a table at the border would fill the log instead.
const RELIEF_PERCENT: u64 = 75;

/// What the log must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// The table has become nearly full.
    NearlyFull,
    /// There is room again.
    Relieved,
}

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Fill {
    told: bool,
}

impl Fill {
    /// Learns of a count, and gives what must be said of it, once each time.
    pub(super) fn learn(&mut self, flows: &Flows) -> Option<Notice> {
        if !self.told && flows.nearly_full {
            self.told = true;
            return Some(Notice::NearlyFull);
        }
        if self.told && flows.used * 100 <= flows.capacity * RELIEF_PERCENT {
            self.told = false;
            return Some(Notice::Relieved);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crossing_is_told_once_and_a_table_at_the_border_not_again_and_again() {
        let mut fill = Fill::default();
        let rows = [
            (0, None),
            (899, None),
            (900, Some(Notice::NearlyFull)),
            (1000, None),
            (899, None),
            (900, None),
            (751, None),
            (750, Some(Notice::Relieved)),
            (10, None),
            (899, None),
            (1000, Some(Notice::NearlyFull)),
            (0, Some(Notice::Relieved)),
        ];
        for (step, (used, expected)) in rows.into_iter().enumerate() {
            assert_eq!(fill.learn(&Flows::new(used, 1000)), expected, "step {step}, {used} of 1000");
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_not_full() {
        assert_eq!(Fill::default().learn(&Flows::default()), None);
    }
}
