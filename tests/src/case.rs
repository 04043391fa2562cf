//! One test of the system tier: what it is called, where it runs and what it needs.

use std::time::Duration;

use anyhow::Result;
use netpath_common::abi::Mode;

use crate::engine::Engine;
use crate::lab::Lab;

/// Hardly a test takes longer; one that does is stuck where no deadline of its own holds.
const DEADLINE: Duration = Duration::from_secs(180);

/// The modes that a test runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// Takeover and sole.
    Both,
    /// Sole only: what the test is about isn't netpath's otherwise.
    Sole,
    /// Takeover only: the test is about what netpath and Docker's rules do together.
    Takeover,
}

/// The engines that a test runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// The machine's own.
    Installed,
    /// Newer ones as well: the test is about what Docker does to packets, or how netpath learns of it.
    All,
}

/// Who must carry the packets for the test to make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// netpath, already running with default options; or Docker's rules, in a run that compares with them.
    Dataplane,
    /// netpath, already running with default options. The test is about netpath itself.
    Netpath,
    /// netpath, which the test starts itself, as it wants it.
    OwnNetpath,
}

/// A test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// A sentence about behaviour.
    pub name: &'static str,
    /// The modes that it runs in.
    pub modes: Modes,
    /// The engines that it runs with.
    pub engines: Engines,
    /// Who must carry the packets.
    pub needs: Needs,
    /// How long it may take.
    pub deadline: Duration,
    /// The test itself.
    pub run: fn(&mut Lab) -> Result<()>,
}

impl Case {
    /// A test that runs in both modes, whoever carries the packets.
    #[must_use]
    pub const fn new(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self { name, modes: Modes::Both, engines: Engines::Installed, needs: Needs::Dataplane, deadline: DEADLINE, run }
    }

    /// The same about netpath itself.
    #[must_use]
    pub const fn netpath(self) -> Self {
        Self { needs: Needs::Netpath, ..self }
    }

    /// The same with a netpath that the test starts.
    #[must_use]
    pub const fn own_netpath(self) -> Self {
        Self { needs: Needs::OwnNetpath, ..self }
    }

    /// The same in takeover mode only.
    #[must_use]
    pub const fn takeover(self) -> Self {
        Self { modes: Modes::Takeover, ..self }
    }

    /// The same in sole mode only.
    #[must_use]
    pub const fn sole(self) -> Self {
        Self { modes: Modes::Sole, ..self }
    }

    /// The same with newer engines as well.
    #[must_use]
    pub const fn every_engine(self) -> Self {
        Self { engines: Engines::All, ..self }
    }

    /// The same with more time.
    #[must_use]
    pub const fn minutes(self, minutes: u64) -> Self {
        Self { deadline: Duration::from_secs(minutes * 60), ..self }
    }

    /// Whether it runs in a mode with an engine.
    #[must_use]
    pub fn runs_in(&self, mode: Mode, engine: Engine) -> bool {
        let in_mode = match self.modes {
            Modes::Both => true,
            Modes::Sole => mode == Mode::Sole,
            Modes::Takeover => mode == Mode::Takeover,
        };
        in_mode && (self.engines == Engines::All || engine == Engine::Installed)
    }
}
