//! Newer Docker engines for the system tests, each in a root directory of its own, from Debian's archive.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Steps;
use super::apt::Apt;
use crate::engine::{NEWER, Newer};
use crate::process;
use crate::toolchain::Machine;

/// What an engine needs to run in a root directory.
const PACKAGES: &str = "docker.io,docker-cli,iptables,nftables,iproute2,ca-certificates";

/// Documents and translations, half of the small files.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];

/// The keys of Debian's archive, which other distributions don't have by themselves.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Makes the root directories that aren't there. One that can't be made is no error here: the tests that need it fail,
/// and say why, and all others can run.
pub(super) fn ensure(machine: &Machine, apt: &mut Apt, steps: &mut Steps) -> Result<()> {
    let missing: Vec<&Newer> = NEWER.iter().filter(|engine| !is_made(engine)).collect();
    if missing.is_empty() {
        let found = NEWER.each_ref().map(|engine| format!("{} in {}", engine.version, engine.root().display()));
        steps.found(&format!("newer Docker engines: {}", found.join(", ")));
        return Ok(());
    }
    let mut packages = Vec::new();
    if machine.program("mmdebstrap").is_none() {
        packages.push("mmdebstrap".to_owned());
    }
    if !Path::new(KEYS).is_file() {
        packages.push("debian-archive-keyring".to_owned());
    }
    apt.install(&packages, steps)?;
    for engine in missing {
        if let Err(error) = make(engine, steps) {
            steps.note(&format!("Docker {} can't be had, so its tests will fail: {error:#}", engine.version));
        }
    }
    Ok(())
}

fn is_made(engine: &Newer) -> bool {
    engine.root().join("usr/sbin/dockerd").is_file()
}

/// Under another name until it is complete: one that was interrupted isn't taken for whole.
fn make(engine: &Newer, steps: &mut Steps) -> Result<()> {
    let root = engine.root();
    let unfinished = PathBuf::from(format!("{}.{}", root.display(), std::process::id()));
    as_root("mkdir", &["--parents", &text(root.parent().unwrap_or(&root))])?;
    let made = bootstrap(engine, &unfinished, steps).and_then(|()| {
        ensure!(unfinished.join("usr/sbin/dockerd").is_file(), "{} has no dockerd", unfinished.display());
        as_root("mv", &["--no-target-directory", &text(&unfinished), &text(&root)])
    });
    if made.is_err() {
        as_root("rm", &["--recursive", "--force", "--one-file-system", &text(&unfinished)])?;
    }
    made
}

fn bootstrap(engine: &Newer, root: &Path, steps: &mut Steps) -> Result<()> {
    steps.doing(&format!(
        "Docker {} of Debian's {} into {}, 400 MB",
        engine.version,
        engine.suite,
        engine.root().display()
    ));
    let mut words = vec!["--quiet".to_owned(), "--variant=minbase".to_owned(), format!("--include={PACKAGES}")];
    // What a suite that is still moving says of its own age doesn't matter for tests.
    words.push("--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned());
    words.push("--aptopt=Acquire::Languages \"none\"".to_owned());
    words.extend(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    words.extend([engine.suite.to_owned(), text(root)]);
    as_root("mmdebstrap", &words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn as_root(program: &str, arguments: &[&str]) -> Result<()> {
    let command = process::privileged(process::command(program, arguments))?;
    process::read(&mut { command }).map(drop).with_context(|| format!("run {program} as root"))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
