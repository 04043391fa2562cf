//! Finds a compiler and a linker that can build the eBPF programs.
//!
//! The BPF target has no prebuilt `core`, so the compiler needs core's source beside it (rustup's component rust-src,
//! Debian's rust-web-src) and the unstable `-Zbuild-std`; the linker is bpf-linker. Nothing is installed here:
//! `cargo xtask setup` does that, and includes this file to know what is missing. Standard library only, because a
//! build script's dependencies would be everybody's.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest compiler that builds the workspace, as its minor version: 1.95.
const RUST_MINOR_MIN: u32 = 95;

/// Where to look: the real machine, or a made-up one in tests.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// `PATH`, in order.
    pub(crate) path: Vec<PathBuf>,
    /// Cargo's home, for programs installed with `cargo install`.
    pub(crate) cargo_home: Option<PathBuf>,
    /// The cargo that runs this program, when cargo runs it.
    pub(crate) cargo: Option<PathBuf>,
    /// Where the system's packages put their files: `/usr`.
    pub(crate) system: PathBuf,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let home = env::var_os("HOME").map(PathBuf::from);
        Self {
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            cargo_home: env::var_os("CARGO_HOME").map(PathBuf::from).or(home.map(|home| home.join(".cargo"))),
            cargo: env::var_os("CARGO").map(PathBuf::from),
            system: PathBuf::from("/usr"),
        }
    }

    /// A program by name: on the path, then where `cargo install` puts programs (not on everybody's path).
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let cargo_bin = self.cargo_home.iter().map(|home| home.join("bin"));
        self.path.iter().cloned().chain(cargo_bin).map(|dir| dir.join(name)).find(|file| is_program(file))
    }

    /// A program in the first of `dirs` that has it.
    pub(crate) fn program_in(dirs: &[&Path], name: &str) -> Option<PathBuf> {
        dirs.iter().map(|dir| dir.join(name)).find(|file| is_program(file))
    }
}

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// rustup's `nightly`.
    Nightly,
    /// The toolchain that builds the workspace.
    Current,
    /// The distribution's packages (Debian: rustc-web, cargo-web, rust-web-src).
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "rustup's nightly",
            Self::Current => "the current toolchain",
            Self::System => "the system's packages",
        })
    }
}

/// A cargo and rustc of one origin, without a claim that they can build for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Its cargo, by absolute path.
    pub(crate) cargo: PathBuf,
    /// Its rustc, by absolute path.
    pub(crate) rustc: PathBuf,
}

/// What building the eBPF programs takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// A compiler with core's source.
    pub(crate) compiler: Compiler,
    /// bpf-linker, by absolute path.
    pub(crate) linker: PathBuf,
}

/// Why the eBPF programs can't be built on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// One line for each compiler that was looked at, empty if one will do.
    pub(crate) compilers: Vec<String>,
    /// Whether bpf-linker was found.
    pub(crate) linker: Option<PathBuf>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the tools that build the eBPF programs are missing:")?;
        if !self.compilers.is_empty() {
            writeln!(f, "  - a Rust compiler with the source of core ({})", self.compilers.join("; "))?;
        }
        if self.linker.is_none() {
            writeln!(f, "  - bpf-linker (neither on PATH nor in cargo's bin directory)")?;
        }
        write!(f, "`cargo xtask setup` installs them; NETPATH_BPF_OBJECT=FILE takes a prebuilt object instead")
    }
}

impl std::error::Error for Missing {}

/// The first compiler that can build for BPF, and the linker.
pub(crate) fn find(machine: &Machine) -> Result<Toolchain, Missing> {
    let linker = machine.program("bpf-linker");
    match (find_compiler(machine), linker) {
        (Ok(compiler), Some(linker)) => Ok(Toolchain { compiler, linker }),
        (Ok(_), None) => Err(Missing { compilers: Vec::new(), linker: None }),
        (Err(compilers), linker) => Err(Missing { compilers, linker }),
    }
}

/// The first compiler that can build for BPF; otherwise what is wrong with each.
pub(crate) fn find_compiler(machine: &Machine) -> Result<Compiler, Vec<String>> {
    let mut wrong = Vec::new();
    for (origin, compiler) in
        [(Origin::Nightly, nightly(machine)), (Origin::Current, current(machine)), (Origin::System, system(machine))]
    {
        let problem = match compiler {
            Some(compiler) => match compiler.problem() {
                Some(problem) => problem,
                None => return Ok(compiler),
            },
            None => "not installed".to_owned(),
        };
        wrong.push(format!("{origin}: {problem}"));
    }
    Err(wrong)
}

/// rustup's nightly, by the paths inside the toolchain: rustup's proxies obey an environment that leaks from the
/// outer cargo.
pub(crate) fn nightly(machine: &Machine) -> Option<Compiler> {
    let rustup = machine.program("rustup")?;
    let which = |program| {
        let mut command = Command::new(&rustup);
        command.args(["which", "--toolchain", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0");
        answer(&mut command).map(PathBuf::from)
    };
    Some(Compiler { origin: Origin::Nightly, cargo: which("cargo")?, rustc: which("rustc")? })
}

/// The toolchain that builds the workspace: the one of the cargo that runs us, else the first on the path.
pub(crate) fn current(machine: &Machine) -> Option<Compiler> {
    let cargo = machine.cargo.clone().or_else(|| machine.program("cargo"))?;
    let rustc = cargo.with_file_name("rustc");
    let rustc = if is_program(&rustc) { rustc } else { machine.program("rustc")? };
    Some(Compiler { origin: Origin::Current, cargo, rustc })
}

fn system(machine: &Machine) -> Option<Compiler> {
    let bin = machine.system.join("bin");
    let program = |name| Machine::program_in(&[&bin], name);
    Some(Compiler { origin: Origin::System, cargo: program("cargo")?, rustc: program("rustc")? })
}

impl Compiler {
    /// Why it can't build for BPF, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        let Some(version) = self.version() else { return Some(format!("{} does not run", self.rustc.display())) };
        if version.minor < RUST_MINOR_MIN {
            return Some(format!("rustc 1.{} is older than 1.{RUST_MINOR_MIN}", version.minor));
        }
        let Some(sysroot) = self.sysroot() else { return Some("it names no sysroot".to_owned()) };
        let source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        (!source.is_file()).then(|| "without the source of core (rust-src)".to_owned())
    }

    /// The version of rustc and of its LLVM.
    pub(crate) fn version(&self) -> Option<Version> {
        let text = answer(self.bare(&self.rustc).arg("-vV"))?;
        let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        let minor = field("release: 1.")?.split('.').next()?.parse().ok()?;
        let llvm_major = field("LLVM version: ").and_then(|version| version.split('.').next()?.parse().ok());
        Some(Version { minor, llvm_major, host: field("host: ")?.to_owned() })
    }

    /// The directory of its libraries.
    pub(crate) fn sysroot(&self) -> Option<PathBuf> {
        answer(self.bare(&self.rustc).args(["--print", "sysroot"])).map(PathBuf::from)
    }

    /// One of its programs with an environment that is its own.
    fn bare(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clear_environment(&mut command, env::vars_os().map(|(name, _)| name));
        command.env("RUSTC", &self.rustc);
        command
    }
}

/// What `rustc -vV` says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// 95 in 1.95.0.
    pub(crate) minor: u32,
    /// 22 in 22.1.8. bpf-linker must be built with this LLVM or a newer one.
    pub(crate) llvm_major: Option<u32>,
    /// The machine that it runs on, such as x86_64-unknown-linux-gnu.
    pub(crate) host: String,
}

impl Toolchain {
    /// `cargo VERB` for the BPF target, with everything but the package, the features and the target directory.
    /// `arch` is the machine's architecture as in `CARGO_CFG_TARGET_ARCH`: aya-ebpf picks the layout of registers by
    /// it.
    pub(crate) fn cargo(&self, verb: &str, arch: &str) -> Command {
        let mut command = self.compiler.bare(&self.compiler.cargo);
        command.arg(verb);
        self.aim_at_bpf(&mut command, arch);
        command
    }

    /// `cargo clippy` for the BPF target, likewise, if the compiler has clippy with it. By its own path: cargo would
    /// take a subcommand from cargo's home first, where rustup's proxy stands for another toolchain.
    pub(crate) fn clippy(&self, arch: &str) -> Option<Command> {
        let clippy = Machine::program_in(&[self.compiler.cargo.parent()?], "cargo-clippy")?;
        let mut command = self.compiler.bare(&clippy);
        command.arg("clippy").env("CARGO", &self.compiler.cargo);
        self.aim_at_bpf(&mut command, arch);
        Some(command)
    }

    fn aim_at_bpf(&self, command: &mut Command, arch: &str) {
        command.args(["--release", "--target", "bpfel-unknown-none", "-Zbuild-std=core"]);
        let bin = self.compiler.rustc.parent().map(Path::to_owned);
        let path = bin.into_iter().chain(env::var_os("PATH").iter().flat_map(env::split_paths)).collect::<Vec<_>>();
        if let Ok(path) = env::join_paths(path) {
            command.env("PATH", path);
        }
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(arch).join("\x1f"));
    }
}

/// BTF for the maps' types needs debug information. LLVM's in-order expansion of memcpy would make every copy and
/// clearing a loop over bytes: four times the instructions, and pointer arithmetic that the verifier only allows with
/// CAP_PERFMON.
fn rust_flags(arch: &str) -> [String; 4] {
    let arch = if arch.starts_with("riscv64") { "riscv64" } else { arch };
    [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ]
}

/// Takes out of a command's environment what the outer cargo, rustup and clippy put there for their own toolchain.
/// Stays: where the user's cargo and rustup live, how cargo reaches its registry, and the job server.
fn clear_environment(command: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names {
        if leaks(&name) {
            command.env_remove(name);
        }
    }
}

fn leaks(name: &OsStr) -> bool {
    const NAMES: [&str; 9] = [
        "RUSTUP_TOOLCHAIN",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
    ];
    const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_MAKEFLAGS"];
    const KEPT_PREFIXES: [&str; 3] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    let Some(name) = name.to_str() else { return false };
    let kept = KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    NAMES.contains(&name) || ((name == "CARGO" || name.starts_with("CARGO_")) && !kept)
}

/// The trimmed output of a command that succeeds and says something.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[path = "toolchain_tests.rs"]
mod tests;
