//! `cargo xtask fuzz`: libFuzzer on the packet path.
//!
//! The flags are cargo-fuzz's, given to the workspace's own compiler, so neither cargo-fuzz nor a nightly has to be
//! installed; `fuzz/` has the layout that cargo-fuzz expects, for those who prefer it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use crate::cargo::{Metadata, cargo, workspace};
use crate::toolchain::{self, Compiler, Machine};
use crate::{process, setup};

/// The targets: each looks at one subject for as long as it gets, the last at all together. Files in `fuzz/fuzz_targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// The parser.
    Parser,
    /// Conversations and their states.
    Conversations,
    /// ICMP errors about flows.
    IcmpErrors,
    /// Fragments.
    Fragments,
    /// Everything together.
    PacketPath,
}

impl Target {
    /// What it is called as a program.
    const fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Conversations => "conversations",
            Self::IcmpErrors => "icmp_errors",
            Self::Fragments => "fragments",
            Self::PacketPath => "packet_path",
        }
    }
}

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this target; without it, all of them one after the other.
    #[arg(long, value_name = "NAME")]
    target: Option<Target>,
    /// How long, each.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Only run this input of the target, such as one that a run has left in fuzz/artifacts.
    input: Option<PathBuf>,
}

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    setup::ensure_cpp()?;
    match (&arguments.input, arguments.target) {
        (Some(input), Some(target)) => replay(target, input),
        (Some(_), None) => bail!("whose input is it? Say --target NAME; it is the directory that the input was in"),
        (None, target) => fuzz(target, &Extent::Search { seconds: arguments.seconds }),
    }
}

/// How far to fuzz.
pub(crate) enum Extent {
    /// For a while, each time other inputs: what a developer lets run for long.
    Search {
        /// How long.
        seconds: u32,
    },
    /// The same inputs each time, so that a test run says something about the change and not about luck.
    Check {
        /// How many.
        runs: u32,
    },
}

impl Extent {
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Search { seconds } => vec![format!("-max_total_time={seconds}")],
            Self::Check { runs } => vec![format!("-runs={runs}"), "-seed=1".to_owned()],
        }
    }
}

/// Fuzzes one target or all, from the kept inputs and, when it searches, from what earlier searches on this machine found.
pub(crate) fn fuzz(target: Option<Target>, extent: &Extent) -> Result<()> {
    let targets = target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    targets.into_iter().try_for_each(|target| fuzz_one(target, extent))
}

fn fuzz_one(target: Target, extent: &Extent) -> Result<()> {
    let (program, target) = (build(target)?, target.name());
    let fuzz = workspace().join("fuzz");
    let artifacts = directory(fuzz.join("artifacts").join(target))?;
    let mut run = Command::new(program);
    // New inputs go to the first directory; the others are only read.
    run.arg(match extent {
        Extent::Search { .. } => directory(fuzz.join("corpus").join(target))?,
        Extent::Check { .. } => emptied(Metadata::read()?.target_directory.join("fuzz/found").join(target))?,
    });
    run.arg(directory(fuzz.join("regressions").join(target))?).args(extent.arguments());
    run.arg(format!("-artifact_prefix={}/", artifacts.display()));
    run.args(["-max_len=2048", "-timeout=10", "-print_final_stats=1"]);
    println!("fuzzing {target}: {}", extent.arguments().join(" "));
    // Its messages are of no interest unless it finds something: among them is a dictionary of all it has tried.
    let output = run.stdin(Stdio::null()).output().context("starting the fuzzer")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{messages}");
        bail!(
            "the fuzzer has found something ({}): the input is in {}, `cargo xtask fuzz --target {} FILE` runs it again",
            output.status,
            artifacts.display(),
            target.replace('_', "-"),
        );
    }
    messages.lines().filter(|line| line.contains("DONE")).for_each(|line| println!("{line}"));
    messages.lines().filter(|line| line.starts_with("stat::")).for_each(|line| println!("{line}"));
    Ok(())
}

/// The directory, with nothing in it.
fn emptied(path: PathBuf) -> Result<PathBuf> {
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("emptying {}", path.display()))
        }
        _ => directory(path),
    }
}

fn replay(target: Target, input: &Path) -> Result<()> {
    let input = input.canonicalize().with_context(|| format!("the input {}", input.display()))?;
    process::run(Command::new(build(target)?).arg(input))
}

fn build(target: Target) -> Result<PathBuf> {
    let compiler = toolchain::current(&Machine::here()).context("no cargo and rustc on PATH")?;
    let host = compiler.version().context("rustc does not say its version")?.host;
    let target_dir = Metadata::read()?.target_directory.join("fuzz");
    let mut build = cargo("build");
    build.args([
        "--release",
        "--locked",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--bin",
        target.name(),
        "--target",
        &host,
    ]);
    build.arg("--target-dir").arg(&target_dir);
    build.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags(&compiler, &host).join("\x1f"));
    process::run(&mut build)?;
    Ok(target_dir.join(host).join("release").join(target.name()))
}

/// Coverage for libFuzzer, the checks of a debug build, and AddressSanitizer where the compiler brings its run-time
/// (Debian's doesn't).
fn flags(compiler: &Compiler, host: &str) -> Vec<String> {
    let mut flags = [
        "--cfg=fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
        "-Ccodegen-units=1",
        "-Cdebug-assertions",
        "-Coverflow-checks",
    ]
    .map(str::to_owned)
    .to_vec();
    if has_address_sanitizer(compiler, host) {
        flags.push("-Zsanitizer=address".to_owned());
    }
    flags
}

fn has_address_sanitizer(compiler: &Compiler, host: &str) -> bool {
    let Some(sysroot) = compiler.sysroot() else { return false };
    let Ok(files) = fs::read_dir(sysroot.join("lib/rustlib").join(host).join("lib")) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().ends_with("_rt.asan.a"))
}

fn directory(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("making the directory {}", path.display()))?;
    Ok(path)
}
