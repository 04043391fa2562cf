//! Which compiler is taken on made-up machines. xtask runs them: a build script has no tests.

use std::fs;

use super::*;

/// Written by another process: if this one had it open for writing while another test starts a program, that
/// program's copy of the descriptor would for a moment keep it from being run.
fn program(file: &Path, script: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#;
    assert!(Command::new("sh").args(["-c", write, "sh", script]).arg(file).status().unwrap().success());
}

/// A toolchain with its own sysroot.
fn compiler(sysroot: &Path, minor: u32) {
    let version = format!("release: 1.{minor}.0\\nhost: x86_64-unknown-linux-gnu\\nLLVM version: 22.1.8");
    let script = format!("case $1 in -vV) printf '{version}';; --print) echo {};; esac", sysroot.display());
    program(&sysroot.join("bin/rustc"), &script);
    program(&sysroot.join("bin/cargo"), "");
}

fn source(sysroot: &Path) {
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src");
    fs::create_dir_all(&core).unwrap();
    fs::write(core.join("lib.rs"), "").unwrap();
}

/// A machine with a current toolchain and a linker, in a directory of its own.
fn machine(root: &Path) -> Machine {
    compiler(&root.join("current"), 95);
    program(&root.join("bin/bpf-linker"), "");
    Machine {
        path: vec![root.join("bin")],
        cargo_home: Some(root.join("home")),
        cargo: Some(root.join("current/bin/cargo")),
        system: root.join("usr"),
    }
}

#[test]
fn without_any_source_of_core_the_error_tells_of_every_compiler_and_the_cure() {
    let root = tempfile::tempdir().unwrap();
    let missing = find(&machine(root.path())).unwrap_err().to_string();
    for words in [
        "rustup's nightly: not installed",
        "the current toolchain: without the source of core",
        "the system's packages: not installed",
        "cargo xtask setup",
    ] {
        assert!(missing.contains(words), "{missing}");
    }
    assert!(!missing.contains("- bpf-linker"), "{missing}");
}

#[test]
fn a_missing_linker_alone_is_the_only_complaint() {
    let root = tempfile::tempdir().unwrap();
    let machine = machine(root.path());
    source(&root.path().join("current"));
    fs::remove_file(root.path().join("bin/bpf-linker")).unwrap();
    assert_eq!(find(&machine), Err(Missing { compilers: Vec::new(), linker: None }));
}

#[test]
fn a_linker_in_cargos_home_is_found_though_it_is_not_on_the_path() {
    let root = tempfile::tempdir().unwrap();
    let machine = machine(root.path());
    source(&root.path().join("current"));
    fs::remove_file(root.path().join("bin/bpf-linker")).unwrap();
    program(&root.path().join("home/bin/bpf-linker"), "");
    assert_eq!(find(&machine).unwrap().linker, root.path().join("home/bin/bpf-linker"));
}

#[test]
fn nightly_comes_before_the_current_toolchain_and_that_before_the_systems() {
    let root = tempfile::tempdir().unwrap();
    let machine = machine(root.path());
    compiler(&root.path().join("usr"), 96);
    source(&root.path().join("usr"));
    assert_eq!(find_compiler(&machine).unwrap().origin, Origin::System);
    source(&root.path().join("current"));
    assert_eq!(find_compiler(&machine).unwrap().origin, Origin::Current);
    let nightly = root.path().join("nightly");
    compiler(&nightly, 97);
    source(&nightly);
    program(&root.path().join("bin/rustup"), &format!("echo {}/bin/$4", nightly.display()));
    assert_eq!(find_compiler(&machine).unwrap().origin, Origin::Nightly);
}

#[test]
fn an_old_compiler_does_not_do() {
    let root = tempfile::tempdir().unwrap();
    let machine = machine(root.path());
    compiler(&root.path().join("usr"), 85);
    source(&root.path().join("usr"));
    let wrong = find_compiler(&machine).unwrap_err();
    assert!(wrong.contains(&"the system's packages: rustc 1.85 is older than 1.95".to_owned()), "{wrong:?}");
}

#[test]
fn what_the_outer_cargo_sets_for_itself_does_not_reach_the_inner_one() {
    for name in
        ["RUSTUP_TOOLCHAIN", "RUSTC", "CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"]
    {
        assert!(leaks(OsStr::new(name)), "{name}");
    }
    for name in ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE"] {
        assert!(!leaks(OsStr::new(name)), "{name}");
    }
}
