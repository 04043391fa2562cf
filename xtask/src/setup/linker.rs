//! bpf-linker, built against the distribution's LLVM.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Steps;
use super::apt::Apt;
use crate::process;
use crate::toolchain::{Compiler, Machine};

const VERSION: &str = "0.13.0";

/// The LLVMs that this bpf-linker can be built with, the best tried one first.
const LLVM_MAJORS: [u32; 3] = [22, 23, 21];

/// Finds bpf-linker, or builds it with an LLVM that reads what the compiler writes: its own version or a newer one.
pub(super) fn ensure(machine: &Machine, compiler: &Compiler, apt: &mut Apt, steps: &mut Steps) -> Result<()> {
    if let Some(linker) = machine.program("bpf-linker") {
        let version = process::read(&mut process::command(&linker, ["--version"]));
        let version =
            version.with_context(|| format!("{} does not work; remove it and set up again", linker.display()))?;
        steps.found(&format!("{}: {}", version.trim(), linker.display()));
        return Ok(());
    }
    let llvm_min = compiler.version().and_then(|version| version.llvm_major).unwrap_or(LLVM_MAJORS[0]);
    let Some(llvm) = find_llvm(Path::new("/usr/lib"), llvm_min, apt)? else { bail!("{}", instructions(llvm_min)) };
    let mut packages = vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "libzstd-dev".to_owned()];
    if machine.program("c++").is_none() {
        packages.push("g++".to_owned());
    }
    if apt.is_present() {
        apt.install(&packages, steps)?;
    }
    // Not the workspace's cargo: `cargo install` takes the directory of that for its own.
    let mut cargo = crate::cargo::cargo("install");
    cargo.current_dir("/").args([
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--no-default-features",
        "--features",
    ]);
    cargo
        .arg(format!("llvm-{llvm}"))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
        .env_remove("CARGO_TARGET_DIR");
    steps.doing(&format!("LLVM_PREFIX=/usr/lib/llvm-{llvm} {} (a minute or two)", process::line(&cargo)));
    process::run(&mut cargo)?;
    match machine.program("bpf-linker") {
        Some(_) => Ok(()),
        None => bail!(
            "bpf-linker was installed, but neither PATH nor cargo's bin directory has it; is CARGO_INSTALL_ROOT set?"
        ),
    }
}

/// An installed LLVM of at least `min`, else one that can be installed.
fn find_llvm(libraries: &Path, min: u32, apt: &mut Apt) -> Result<Option<u32>> {
    let usable = LLVM_MAJORS.into_iter().filter(|major| *major >= min);
    if let Some(major) = installed_llvm(libraries, usable.clone()) {
        return Ok(Some(major));
    }
    for major in usable {
        if apt.has(&format!("llvm-{major}-dev"))? {
            return Ok(Some(major));
        }
    }
    Ok(None)
}

/// `llvm-config` alone is in a package without headers, so a header counts.
fn installed_llvm(libraries: &Path, mut majors: impl Iterator<Item = u32>) -> Option<u32> {
    majors.find(|major| libraries.join(format!("llvm-{major}/include/llvm-c/Core.h")).exists())
}

fn instructions(llvm_min: u32) -> String {
    format!(
        "bpf-linker is missing, and there is no LLVM of version {llvm_min} or newer here to build it with. \
         One of these gives it:\n  \
         cargo install cargo-binstall && cargo binstall bpf-linker\n  \
         a release archive of https://github.com/aya-rs/bpf-linker, its program put on PATH\n  \
         LLVM_PREFIX=DIR cargo install bpf-linker --version {VERSION} --no-default-features --features llvm-{llvm_min} \
         (DIR: an LLVM {llvm_min} with headers)"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_llvm_without_headers_does_not_count() {
        let libraries = tempfile::tempdir().unwrap();
        fs::create_dir_all(libraries.path().join("llvm-22/bin")).unwrap();
        assert_eq!(installed_llvm(libraries.path(), LLVM_MAJORS.into_iter()), None);
        fs::create_dir_all(libraries.path().join("llvm-21/include/llvm-c")).unwrap();
        fs::write(libraries.path().join("llvm-21/include/llvm-c/Core.h"), "").unwrap();
        assert_eq!(installed_llvm(libraries.path(), LLVM_MAJORS.into_iter()), Some(21));
        assert_eq!(installed_llvm(libraries.path(), LLVM_MAJORS.into_iter().filter(|major| *major >= 22)), None);
    }

    #[test]
    fn the_advice_names_the_llvm_that_is_needed() {
        assert!(instructions(23).contains("--features llvm-23 "), "{}", instructions(23));
    }
}
