//! Debian's and Ubuntu's packages. The lists are fetched once, and only if something must be installed.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Steps;
use crate::process::{self, command, words};

/// apt, if this machine has it.
pub(super) struct Apt {
    present: bool,
    updated: bool,
}

impl Apt {
    /// Looks for apt.
    pub(super) fn find() -> Self {
        Self { present: Path::new("/usr/bin/apt-get").exists(), updated: false }
    }

    /// Whether there is one.
    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// Whether a package can be installed.
    pub(super) fn has(&mut self, package: &str) -> Result<bool> {
        if !self.present {
            return Ok(false);
        }
        self.update()?;
        let policy = process::read(&mut command("/usr/bin/apt-cache", ["policy", package]))?;
        Ok(policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)")))
    }

    /// Installs packages. A Docker service that comes with them is neither started nor enabled: it would take the
    /// machine's network over, when all that is wanted is the program.
    pub(super) fn install(&mut self, packages: &[String], steps: &mut Steps) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        let install = format!("apt-get install -y {}", packages.join(" "));
        if !self.present {
            bail!(
                "this machine has no apt; install the counterparts of these packages by hand: {}",
                packages.join(" ")
            );
        }
        self.update()?;
        steps.doing(&install);
        let quiet_services =
            packages.iter().any(|package| package == "docker.io") && Path::new("/run/systemd/system").exists();
        if quiet_services {
            systemctl("mask --runtime docker.service docker.socket")?;
        }
        let mut apt_get = words(&install);
        apt_get.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
        let installed = process::run(&mut process::privileged(apt_get)?);
        if quiet_services {
            systemctl("unmask --runtime docker.service docker.socket")?;
            installed?;
            systemctl("disable docker.service docker.socket")?;
            steps.note("docker.io's service is left off; `systemctl enable --now docker` turns it on");
            return Ok(());
        }
        installed.with_context(|| format!("without these packages it does not work; by hand: {install}"))
    }

    /// Fetches the lists, if it may: without them it will do for packages that the machine has heard of.
    fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        self.updated = true;
        let mut apt_get = words("apt-get update -q");
        apt_get.args(["-o", "DPkg::Lock::Timeout=300"]);
        let Ok(mut apt_get) = process::privileged(apt_get) else { return Ok(()) };
        println!("setup: apt-get update");
        process::run(&mut apt_get)
    }
}

fn systemctl(arguments: &str) -> Result<()> {
    process::run(&mut process::privileged(words(&format!("systemctl --quiet {arguments}")))?)
}
