//! The image of the lab's containers, made of this machine's own programs: a registry may be out of reach.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::DIRECTORY;
use crate::process::{self, command};
use crate::setup;

/// Answers with the address that the server saw.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s\\n' \"$REMOTE_ADDR\"\n";

/// The directory that is served over HTTP, in the image and in `lan`.
pub(crate) fn www() -> PathBuf {
    Path::new(DIRECTORY).join("image/www")
}

/// Makes the image's files and their archive.
pub(crate) fn make() -> Result<PathBuf> {
    let root = Path::new(DIRECTORY).join("image");
    let busybox = program("busybox")?;
    copy(&busybox, &root.join("bin/busybox"))?;
    for applet in
        process::read(&mut command(&busybox, ["--list"]))?.split_whitespace().filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).with_context(|| format!("linking busybox as {applet}"))?;
    }
    copy_with_libraries(&program("socat")?, &root)?;
    make_www()?;

    let tar = root.with_extension("tar");
    process::run(command("tar", ["--create", "--file"]).arg(&tar).arg("--directory").arg(&root).arg("."))?;
    Ok(tar)
}

/// Makes the directory that is served over HTTP.
pub(crate) fn make_www() -> Result<()> {
    let who = www().join("cgi-bin/who");
    write(&who, WHO)?;
    fs::set_permissions(&who, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} a program", who.display()))?;
    write(&www().join("index.html"), "netpath's lab\n")
}

fn program(name: &str) -> Result<PathBuf> {
    setup::find_tool(name).with_context(|| format!("{name} is not installed; `cargo xtask setup --tests` installs it"))
}

/// A dynamic program works in an empty root if what `ldd` lists stands at the same paths.
fn copy_with_libraries(program: &Path, root: &Path) -> Result<()> {
    copy(program, &root.join("bin").join(program.file_name().unwrap_or_default()))?;
    let listing = process::read(&mut command("ldd", [program]))?;
    for library in listing.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(file: &Path, content: &str) -> Result<()> {
    make_parent(file)?;
    fs::write(file, content).with_context(|| format!("writing {}", file.display()))
}

fn make_parent(file: &Path) -> Result<()> {
    let Some(parent) = file.parent() else { return Ok(()) };
    fs::create_dir_all(parent).with_context(|| format!("making the directory {}", parent.display()))
}
