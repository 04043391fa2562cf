//! `cargo xtask build`: netpath with its eBPF programs embedded.

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::{Metadata, cargo};
use crate::{process, setup};

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimised: target/release/netpath.
    #[arg(long)]
    release: bool,
}

/// The profile of a build.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// What is shipped.
    Release,
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Need::Build)?;
    let program = build(if arguments.release { Profile::Release } else { Profile::Dev })?;
    println!("built {}", program.display());
    Ok(())
}

/// Builds the binary and says where it is. The tools must be there.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let mut command = cargo("build");
    command.args(["--package", "netpath-user", "--bin", "netpath"]);
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    process::run(&mut command)?;
    Ok(Metadata::read()?.target_directory.join(directory).join("netpath"))
}
