//! Where pins lie and what their names say. No other file spells a path below the pin directory.
//!
//! `maps/<NAME>_v<SCHEMA>` is a map. `links/<ifindex>_<hook>_<mechanism>` is a link (tcx, XDP) or, for clsact, whose
//! filters have no link, the attached program: a marker that the filter is there. `links/cgroup_<program>` is a link of a
//! program of the host's sockets. `programs/<name>_v<SCHEMA>` is a program that the command line runs without a daemon,
//! `programs/<name>_build<BUILD>_v<SCHEMA>` one that the next start needn't have verified again. `expedited` is an empty directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use netpath_common::abi::names;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::AttachmentReport;
use crate::desired::model::{Attachment, Hook};

/// Paths below one pin directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Tcx,
    Clsact,
    XdpNative,
    XdpGeneric,
}

/// One pin below `links`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkPin {
    pub(super) attachment: Attachment,
    pub(super) mechanism: Mechanism,
    pub(super) path: PathBuf,
}

impl Mechanism {
    const ALL: [Self; 4] = [Self::Tcx, Self::Clsact, Self::XdpNative, Self::XdpGeneric];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::XdpNative => "native",
            Self::XdpGeneric => "generic",
        }
    }
}

const HOOKS: [(Hook, &str); 6] = [
    (Hook::Uplink, "uplink"),
    (Hook::Egress, "egress"),
    (Hook::XdpUplink, "xdp"),
    (Hook::Container, "container"),
    (Hook::Bridge, "bridge"),
    (Hook::Loopback, "loopback"),
];

impl LinkPin {
    pub(super) const fn report(&self) -> AttachmentReport {
        let (mechanism, xdp_mode) = match self.mechanism {
            Mechanism::Tcx | Mechanism::Clsact => (self.mechanism.name(), None),
            Mechanism::XdpNative | Mechanism::XdpGeneric => ("xdp", Some(self.mechanism.name())),
        };
        AttachmentReport { ifindex: self.attachment.ifindex, hook: self.attachment.hook, mechanism, xdp_mode }
    }
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// A directory that stands while grace periods are expedited.
    pub(super) fn expedited(&self) -> PathBuf {
        self.root.join("expedited")
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(format!("{name}_v{}", names::SCHEMA))
    }

    /// A program for the next start of the same build.
    pub(super) fn built_program(&self, name: &str, build: u64) -> PathBuf {
        self.programs().join(format!("{name}{}", built(build)))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(format!("{name}_v{}", names::SCHEMA))
    }

    pub(super) fn link(&self, attachment: Attachment, mechanism: Mechanism) -> LinkPin {
        let hook = HOOKS.iter().find(|(hook, _)| *hook == attachment.hook).map_or("", |(_, name)| *name);
        let path = self.links().join(format!("{}_{hook}_{}", attachment.ifindex, mechanism.name()));
        LinkPin { attachment, mechanism, path }
    }

    /// The link of a program of the host's sockets.
    pub(super) fn socket_link(&self, program: &str) -> PathBuf {
        self.links().join(format!("cgroup_{program}"))
    }

    /// Every pin of a program at an interface: those below `links` whose name says what it is; none if the directory isn't there.
    pub(super) fn link_pins(&self) -> anyhow::Result<Vec<LinkPin>> {
        let entries = match fs::read_dir(self.links()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", self.links().display())),
        };
        let mut pins = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("can't read {}", self.links().display()))?;
            pins.extend(parse_link(&entry.path()));
        }
        Ok(pins)
    }

    /// Whether a netpath of another schema has left maps.
    pub(super) fn has_other_schemas(&self) -> anyhow::Result<bool> {
        Ok(!other_schemas(&self.maps())?.is_empty())
    }

    /// Removes maps and programs that a netpath of another schema has left, and gives how many. For when no program that
    /// uses them is attached any more.
    pub(super) fn remove_other_schemas(&self) -> anyhow::Result<usize> {
        let others = [other_schemas(&self.maps())?, other_schemas(&self.programs())?].concat();
        for path in &others {
            fs::remove_file(path).with_context(|| format!("can't remove the pin {}", path.display()))?;
        }
        Ok(others.len())
    }

    /// Removes the programs that other builds have left for their next start.
    pub(super) fn remove_other_builds(&self, build: u64) -> anyhow::Result<()> {
        let directory = self.programs();
        let entries = fs::read_dir(&directory).with_context(|| format!("can't read {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("can't read {}", directory.display()))?.path();
            let name = path.to_string_lossy();
            if name.contains("_build") && !name.ends_with(&built(build)) {
                fs::remove_file(&path).with_context(|| format!("can't remove the pin {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Keeps other daemons off these pins until the lock is dropped or the process ends, however it does.
    pub(super) fn lock(&self) -> anyhow::Result<Flock<File>> {
        let directory = self.links();
        let file = File::open(&directory).with_context(|| format!("can't open {}", directory.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EAGAIN => {
                anyhow!("another netpath daemon works on {}; stop it, or choose another --pin-dir", self.root.display())
            }
            errno => anyhow::Error::new(errno).context(format!("can't lock {}", directory.display())),
        })
    }

    /// Makes the directories, on a BPF file system: one is mounted if there is none.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        if !is_bpffs(&self.root) {
            mount_bpffs(&self.root)?;
        }
        for directory in [self.maps(), self.links(), self.programs()] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("can't make the directory {}", directory.display()))?;
        }
        Ok(())
    }
}

/// The pins in a directory whose names don't end with this netpath's schema.
fn other_schemas(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let what = || format!("can't read {}", directory.display());
    let ours = format!("_v{}", names::SCHEMA);
    let mut others = Vec::new();
    for entry in fs::read_dir(directory).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if !path.to_string_lossy().ends_with(&ours) {
            others.push(path);
        }
    }
    Ok(others)
}

fn built(build: u64) -> String {
    format!("_build{build:016x}_v{}", names::SCHEMA)
}

fn parse_link(path: &Path) -> Option<LinkPin> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.split('_');
    let ifindex = parts.next()?.parse().ok()?;
    let hook = parts.next()?;
    let mechanism = parts.next()?;
    let (hook, _) = HOOKS.into_iter().find(|(_, name)| *name == hook)?;
    let mechanism = Mechanism::ALL.into_iter().find(|known| known.name() == mechanism)?;
    Some(LinkPin { attachment: Attachment { ifindex, hook }, mechanism, path: path.to_owned() })
}

/// Whether the nearest directory that exists lies on a BPF file system.
fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.and_then(|existing| statfs(existing).ok()).is_some_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a BPF file system: at its usual place if the pin directory is below that, else on the pin directory itself.
fn mount_bpffs(root: &Path) -> anyhow::Result<()> {
    const USUAL: &str = "/sys/fs/bpf";
    let target = if root.starts_with(USUAL) { Path::new(USUAL) } else { root };
    fs::create_dir_all(target).with_context(|| format!("can't make the directory {}", target.display()))?;
    nix::mount::mount(Some("bpf"), target, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>).with_context(
        || format!("can't mount a BPF file system on {}; try `mount -t bpf bpf {0}`", target.display()),
    )?;
    tracing::info!(path = %target.display(), "mounted a BPF file system");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_pin_says_what_it_is() {
        let layout = Layout::new(Path::new("/pins"));
        for (hook, _) in HOOKS {
            for mechanism in Mechanism::ALL {
                let pin = layout.link(Attachment { ifindex: 42, hook }, mechanism);
                assert_eq!(parse_link(&pin.path), Some(pin));
            }
        }
    }

    #[test]
    fn pins_of_another_schema_are_told_from_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        fs::create_dir_all(layout.maps()).expect("maps");
        fs::create_dir_all(layout.programs()).expect("programs");
        let (map, program) = (layout.map(names::map::HOPS), layout.built_program("np_uplink", 7));
        [&map, &program].into_iter().for_each(|pin| fs::write(pin, "").expect("a pin"));
        assert!(!layout.has_other_schemas().expect("look"));
        let older = layout.maps().join(format!("HOPS_v{}", names::SCHEMA - 1));
        fs::write(&older, "").expect("a pin");
        assert!(layout.has_other_schemas().expect("look"));
        assert_eq!(layout.remove_other_schemas().expect("remove"), 1);
        assert_eq!([&map, &program, &older].map(|pin| pin.exists()), [true, true, false]);
    }

    #[test]
    fn what_isnt_a_link_pin_is_left_alone() {
        for name in ["", "x", "1_uplink", "x_uplink_tcx", "1_other_tcx", "1_uplink_other", "cgroup_np_connect4"] {
            assert_eq!(parse_link(&Path::new("/pins/links").join(name)), None, "{name}");
        }
    }
}
