//! The file system that a dockerd runs in: the machine's own, or an engine's root directory.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result, ensure};

use crate::engine::Engine;
use crate::netns::Place;

/// Where an engine finds the lab's directory in its own root.
const INSIDE: &str = "/srv";

/// Makes the root directory `$1` the whole file system, with the lab's directory `$2` in it, and becomes the program
/// that follows.
const ENTER: &str = r#"
    cd "$1"; directory=$2; shift 2
    mount --bind . .
    cd "$PWD"
    for tree in proc sys dev; do mount --rbind /$tree $tree; done
    for folder in run tmp; do mount -t tmpfs none $folder; done
    mount --bind "$directory" srv
    pivot_root . mnt
    umount --lazy /mnt
    exec "$@"
"#;

/// Where a dockerd finds its programs and keeps its files.
#[derive(Debug)]
pub(crate) enum Root {
    /// This machine's own file system, with the lab's directory.
    Machine(PathBuf),
    /// A root directory in a mount namespace of its own: whatever dockerd and its containers mount is gone when they
    /// are, however they end.
    Own {
        /// The root directory.
        root: PathBuf,
        /// The lab's directory, as this machine knows it.
        directory: PathBuf,
        /// The mount namespace, once there is one: the next dockerd finds in it what containers that live on use.
        mounts: Option<File>,
    },
}

impl Root {
    /// The root for an engine.
    pub(crate) fn of(engine: Engine, directory: &Path) -> Result<Self> {
        let Engine::Newer(newer) = engine else { return Ok(Self::Machine(directory.to_owned())) };
        let root = newer.root();
        ensure!(
            root.join("usr/sbin/dockerd").is_file(),
            "Docker {} is not in {}: `cargo xtask setup --tests` puts it there, or says why it can't",
            newer.version,
            root.display()
        );
        Ok(Self::Own { root, directory: directory.to_owned(), mounts: None })
    }

    /// The lab's directory as dockerd knows it.
    pub(crate) fn directory(&self) -> &Path {
        match self {
            Self::Machine(directory) => directory,
            Self::Own { .. } => Path::new(INSIDE),
        }
    }

    /// The beginning of a command that runs in a network namespace and this root.
    pub(crate) fn enter(&self, place: &Place) -> Command {
        match self {
            // Not `ip netns exec`: it mounts another /sys, which hides the cgroups from dockerd.
            Self::Machine(_) => place.command("env"),
            Self::Own { mounts: Some(mounts), .. } => {
                let mut command = place.command("nsenter");
                command.arg(format!("--mount=/proc/{}/fd/{}", std::process::id(), mounts.as_raw_fd()));
                command
            }
            Self::Own { root, directory, mounts: None } => {
                let mut command = place.command("unshare");
                command.args(["--mount", "--propagation", "slave", "sh", "-euc", ENTER, "sh"]);
                command.arg(root).arg(directory);
                command
            }
        }
    }

    /// Keeps the mount namespace of a dockerd that runs in this root.
    pub(crate) fn keep(&mut self, dockerd: &Child) -> Result<()> {
        if let Self::Own { mounts, .. } = self {
            let path = format!("/proc/{}/ns/mnt", dockerd.id());
            *mounts = Some(File::open(&path).with_context(|| format!("open {path}"))?);
        }
        Ok(())
    }
}
