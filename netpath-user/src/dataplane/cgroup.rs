//! The root of the machine's cgroups, where a program sees the sockets of every process.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Where an own instance is mounted for a moment.
const OWN: &str = "/run/netpath/cgroup";

/// Opens the root of the cgroup2 hierarchy. There is one for the whole machine, mounted or not: where it isn't (cgroup v1
/// alone), it is mounted, opened and unmounted again; links keep what they need of it.
pub(super) fn open_root() -> anyhow::Result<File> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("can't read /proc/self/mountinfo")?;
    if let Some(path) = mounts.lines().find_map(cgroup2_root) {
        return File::open(&path).with_context(|| format!("can't open {}", path.display()));
    }
    let own = Path::new(OWN);
    fs::create_dir_all(own).with_context(|| format!("can't make the directory {OWN}"))?;
    mount(Some("cgroup2"), own, Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("no cgroup2 hierarchy is mounted, and the kernel refuses to mount one on {OWN}"))?;
    let root = File::open(own).with_context(|| format!("can't open {OWN}"));
    umount2(own, MntFlags::MNT_DETACH).with_context(|| format!("can't unmount {OWN}"))?;
    root
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)), if the line is about the root of cgroup2.
fn cgroup2_root(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    (root == "/" && file_system.split(' ').next()? == "cgroup2").then(|| unescape(point))
}

/// Spaces and the like stand in mountinfo as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        if let (b'\\', Some(byte)) = (*first, octal) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_cgroup2_is_found_among_mounts() {
        for (line, point) in [
            ("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", Some("/sys/fs/cgroup/unified")),
            ("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate", Some("/sys/fs/cgroup")),
            (r"30 23 0:26 / /mnt/a\040b rw - cgroup2 none rw", Some("/mnt/a b")),
            ("30 23 0:26 /user.slice /mnt/cgroup rw - cgroup2 none rw", None),
            ("32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu", None),
            ("", None),
        ] {
            assert_eq!(cgroup2_root(line), point.map(PathBuf::from), "{line}");
        }
    }
}
