//! A dataplane in memory, for tests of the daemon's logic without a kernel.

use super::Dataplane;
use crate::desired::model::{Change, State};

/// Holds a [`State`] and nothing else.
#[derive(Debug, Default)]
pub struct Fake {
    state: State,
}

impl Dataplane for Fake {
    fn actual(&self) -> &State {
        &self.state
    }

    fn apply(&mut self, change: &Change) -> anyhow::Result<()> {
        self.state.apply(change);
        Ok(())
    }
}
