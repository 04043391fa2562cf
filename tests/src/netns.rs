//! Network namespaces: making them, and doing things inside them.
//!
//! A socket belongs for its whole life to the namespace in which it was made, whichever thread uses it. So the tests open
//! their sockets inside a namespace and then use them like any other; only what makes sockets or asks the kernel about
//! interfaces runs inside.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::shell;

/// A network namespace that exists.
#[derive(Debug)]
pub struct Place {
    label: String,
    file: File,
}

impl Place {
    /// The namespace that a file names: `/run/netns/NAME` or `/proc/PID/ns/net`. `label` is for messages.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn open(label: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open the network namespace {}", path.display()))?;
        Ok(Self { label: label.to_owned(), file })
    }

    /// What messages call it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Runs a closure on a thread inside the namespace. Sockets that it returns stay there.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the closure's error.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter the namespace {}", self.label))?;
            action().with_context(|| format!("in {}", self.label))
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(_) => bail!("the thread inside {} panicked", self.label),
        })
    }

    /// A command that will run inside the namespace. Only the network is another: files, processes and cgroups stay
    /// this process's, which dockerd needs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        join_command(&self.path(), program)
    }

    /// A path that names the namespace as long as this value lives: this process's descriptor.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs a program inside the namespace, which must succeed, and gives its standard output.
    ///
    /// # Errors
    /// See [`shell::run`].
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let [program, arguments @ ..] = words else { bail!("no program given") };
        shell::run(self.command(program).args(arguments)).with_context(|| format!("in {}", self.label))
    }

    /// Sets a sysctl of the namespace, given by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.enter(|| {
            // The thread's own entry: /proc/sys shows the namespace of the task that opens it.
            let path = PathBuf::from("/proc/sys").join(path);
            std::fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
        })
    }
}

/// A command that will run inside the namespace that a path names.
#[must_use]
pub fn join_command(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={namespace}")).arg(program);
    command
}

/// A network namespace that this run has made; dropping it deletes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    place: Place,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up. `label` is for messages.
    ///
    /// # Errors
    /// When it can't be made, e.g. because the name is taken.
    pub fn create(name: &str, label: &str) -> Result<Self> {
        shell::run_words(&["ip", "netns", "add", name]).with_context(|| format!("make the namespace {name}"))?;
        let place = Place::open(label, &Path::new("/run/netns").join(name))?;
        let namespace = Self { name: name.to_owned(), place };
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::ops::Deref for Namespace {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = shell::run_words(&["ip", "netns", "delete", &self.name]) {
            eprintln!("the namespace {} is left: {error:#}", self.name);
        }
    }
}
