//! The containers' image: busybox, the test peer and the shared libraries it was linked with. Nothing is downloaded.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell;

/// Where the test peer lies in the image.
pub const PEER: &str = "/bin/netpath-peer";

/// Where busybox lies in the image.
pub const BUSYBOX: &str = "/bin/busybox";

/// Packs the image, for `docker import`, from a peer that was built for this machine.
///
/// # Errors
/// When busybox or the peer is missing, or can't be packed.
pub fn pack(peer: &Path, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("image");
    let bin = root.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
    copy(Path::new(BUSYBOX), &root).context("is the package busybox-static installed?")?;
    symlink("busybox", bin.join("sh")).context("link /bin/sh")?;
    copy_as(peer, &root, Path::new(PEER))?;
    for library in libraries(peer)? {
        copy(&library, &root)?;
    }
    let archive = directory.join("image.tar");
    let (root, tar) = (root.to_string_lossy(), archive.to_string_lossy());
    shell::run_words(&["tar", "--create", "--file", &tar, "--directory", &root, "."])?;
    Ok(archive)
}

/// The shared libraries that a program needs, the loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = shell::run_words(&["ldd", &program.to_string_lossy()])?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f…)", and the loader: "/lib64/ld-linux-x86-64.so.2 (0x7f…)".
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy(file: &Path, root: &Path) -> Result<()> {
    copy_as(file, root, file)
}

fn copy_as(file: &Path, root: &Path, place: &Path) -> Result<()> {
    let target = root.join(place.strip_prefix("/").unwrap_or(place));
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::copy(file, &target).with_context(|| format!("copy {} into the image", file.display()))?;
    Ok(())
}
