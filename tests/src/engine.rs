//! The Docker engines that the system tests run with: the machine's own package, and newer ones of Debian's.
//!
//! A newer engine lies with all it needs in a root directory of its own, which `cargo xtask setup --tests` makes. xtask
//! takes this file for its own, so it uses nothing but the standard library.

use std::path::{Path, PathBuf};

/// Where the root directories are: made once, used by every checkout.
const CACHE: &str = "/var/cache/netpath/engines";

/// An engine of a later Debian.
#[derive(Debug, PartialEq, Eq)]
pub struct Newer {
    /// Its version, as far as the tests depend on it. A suite that is still moving may have a later one.
    pub version: &'static str,
    /// The suite of Debian that has it.
    pub suite: &'static str,
}

/// The newer engines, each with something that the one before doesn't have: 26.1 is the last but one before Docker
/// filters direct access to containers, 28.5 does.
pub const NEWER: [Newer; 2] = [Newer { version: "26.1", suite: "trixie" }, Newer { version: "28.5", suite: "forky" }];

impl Newer {
    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        Path::new(CACHE).join(self.suite)
    }
}

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The machine's own package docker.io.
    Installed,
    /// One in a root directory of its own.
    Newer(&'static Newer),
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Installed, Self::Newer(&NEWER[0]), Self::Newer(&NEWER[1])];
}
