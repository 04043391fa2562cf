//! The dataplane as userspace sees it: the eBPF object, its maps, its links and their pins.
//!
//! The only module that imports aya. [`Dataplane`] is what the daemon drives; [`Kernel`] is the real one, [`fake`] one
//! for tests. [`Pins`] is the read-only view that the command line uses, with or without a daemon.

use crate::desired::model::{Change, State};

pub mod fake;

/// What the daemon drives: the state that is there, and the one way to change it.
pub trait Dataplane {
    /// The state as it is now, adopted pins included.
    fn actual(&self) -> &State;

    /// Makes one change and, when it succeeds, reflects it in [`Self::actual`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses; says which object it refused. The change may be tried again.
    fn apply(&mut self, change: &Change) -> anyhow::Result<()>;
}
