//! The lab's own dockerd and its two containers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::interrupt::Interrupt;
use super::state::{Process, State};
use super::{DIRECTORY, daemon, image, network};
use crate::process::{self, command};

/// The lab's dockerd, as `DOCKER_HOST` has it.
pub(crate) const HOST: &str = "unix:///run/netpath-lab/docker.sock";

/// The file with the number of its process.
pub(crate) const PID_FILE: &str = "/run/netpath-lab/docker.pid";

/// The image of the containers.
const IMAGE: &str = "netpath-lab";

/// What the server container runs: a page that tells who asked, and the same over UDP.
const WEB: &str =
    r"socat UDP4-RECVFROM:5353,fork SYSTEM:'read ask; echo $SOCAT_PEERADDR' & exec httpd -f -p 0.0.0.0:80 -h /www";

/// The lab's dockerd.
pub(crate) struct Docker;

impl Docker {
    /// Starts it in `host` and waits until it answers.
    pub(crate) fn start(interrupt: &Interrupt) -> Result<Self> {
        let settings = Path::new(DIRECTORY).join("dockerd.json");
        fs::write(&settings, "{}").with_context(|| format!("writing {}", settings.display()))?;
        let mut dockerd = Command::new("dockerd");
        // A storage driver that works on every file system: the one image is small.
        dockerd.args(["--bip", &format!("{}/16", network::GATEWAY)]);
        dockerd
            .args([
                "--log-level",
                "warn",
                "--storage-driver",
                "vfs",
                "--pidfile",
                PID_FILE,
                "--host",
                HOST,
                "--config-file",
            ])
            .arg(settings);
        for (option, directory) in [("--data-root", "data"), ("--exec-root", "exec")] {
            dockerd.arg(option).arg(Path::new(DIRECTORY).join(directory));
        }
        let mut running = daemon::spawn("dockerd", network::inside("host", &dockerd))?;
        interrupt.until("an answer of dockerd", Duration::from_secs(60), || {
            daemon::still_running("dockerd", &mut running)?;
            Ok(process::succeeds(&mut Self.command(["version"])))
        })?;
        Ok(Self)
    }

    /// The docker client on this dockerd, without the user's settings.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut docker = command("docker", ["--host", HOST]);
        docker
            .args(arguments)
            .env("DOCKER_CONFIG", Path::new(DIRECTORY).join("client"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        docker
    }

    /// Makes the image without a registry.
    pub(crate) fn make_image(&self) -> Result<()> {
        let tar = image::make()?;
        process::read(&mut self.command(["import", &tar.to_string_lossy(), IMAGE]))?;
        Ok(())
    }

    /// Starts `web` and `client`.
    pub(crate) fn run_containers(&self, state: &mut State) -> Result<()> {
        let web = ["--publish", "8080:80", "--publish", "5353:5353/udp", IMAGE, "sh", "-c", WEB];
        let client = [IMAGE, "sleep", "2147483647"];
        for (name, arguments) in [("web", &web[..]), ("client", &client[..])] {
            process::read(self.command(["run", "--detach", "--name", name, "--hostname", name]).args(arguments))?;
            let pid = process::read(&mut self.command(["inspect", "--format", "{{.State.Pid}}", name]))?;
            state.containers.extend(pid.trim().parse().ok().and_then(Process::of));
            state.save()?;
        }
        Ok(())
    }

    /// A container's address.
    pub(crate) fn address(&self, container: &str) -> Result<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        Ok(process::read(&mut self.command(["inspect", "--format", format, container]))?.trim().to_owned())
    }
}

/// The process of a lab's dockerd, if it has one.
pub(crate) fn running() -> Option<Process> {
    let pid = fs::read_to_string(PID_FILE).ok()?;
    pid.trim().parse().ok().and_then(Process::of)
}

/// Removes the containers at once, instead of waiting for programs that don't know SIGTERM.
pub(crate) fn remove_containers() -> Result<()> {
    let ids = process::read(&mut Docker.command(["ps", "--all", "--quiet"]))?;
    let ids = ids.split_whitespace().collect::<Vec<_>>();
    if ids.is_empty() {
        return Ok(());
    }
    process::read(Docker.command(["rm", "--force", "--volumes"]).args(ids)).context("removing the lab's containers")?;
    Ok(())
}
