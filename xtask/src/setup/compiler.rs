//! The compiler of the eBPF programs: any rustc that has the source of core beside it.

use std::env;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Result, bail};

use super::Steps;
use super::apt::Apt;
use crate::process::{self, command};
use crate::toolchain::{self, Compiler, Machine, Origin};

/// How long rustup's server may take to accept a connection: it is either near or not to be had.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long, in seconds, rustup may take for a component of 3 MB.
const RUSTUP_TIMEOUT_S: &str = "120";

const SYSTEM_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Finds the compiler, or gets it: from rustup if it can fetch, else from the distribution.
pub(super) fn ensure(machine: &Machine, apt: &mut Apt, steps: &mut Steps) -> Result<Compiler> {
    let missing = match toolchain::find_compiler(machine) {
        Ok(compiler) => {
            steps.found(&format!(
                "compiler with the source of core: {} ({})",
                compiler.rustc.display(),
                compiler.origin
            ));
            return Ok(compiler);
        }
        Err(wrong) => wrong,
    };
    steps.note(&format!("no compiler has the source of core yet: {}", missing.join("; ")));
    add_source_by_rustup(machine, steps);
    if let Ok(compiler) = toolchain::find_compiler(machine) {
        return Ok(compiler);
    }
    if apt.is_present() && apt.has(SYSTEM_PACKAGES[2])? {
        apt.install(&SYSTEM_PACKAGES.map(str::to_owned), steps)?;
    }
    toolchain::find_compiler(machine).or_else(|missing| bail!("{}", instructions(&missing)))
}

/// Adds clippy to the compiler of the eBPF programs, where its origin offers it. Without it they are linted for the
/// host.
pub(super) fn ensure_clippy(compiler: &Compiler, apt: &mut Apt, steps: &mut Steps) -> Result<()> {
    if compiler.cargo.with_file_name("cargo-clippy").is_file() {
        steps.found("clippy for the eBPF programs: beside their compiler");
        return Ok(());
    }
    if compiler.origin == Origin::System && apt.has("rust-web-clippy")? {
        return apt.install(&["rust-web-clippy".to_owned()], steps);
    }
    steps.note("the compiler of the eBPF programs has no clippy with it; they will be linted as host code");
    Ok(())
}

/// Tries the toolchain of the workspace and then nightly. Failing is no error: there are other ways.
fn add_source_by_rustup(machine: &Machine, steps: &mut Steps) {
    let Some(rustup) = machine.program("rustup") else { return };
    if !server_is_reachable() {
        steps.note("rustup's server can't be reached, so rustup can't fetch rust-src");
        return;
    }
    for toolchain in env::var("RUSTUP_TOOLCHAIN").into_iter().chain(["nightly".to_owned()]) {
        let mut add = command("timeout", [RUSTUP_TIMEOUT_S]);
        add.arg(&rustup)
            .args(["component", "add", "rust-src", "--toolchain", &toolchain])
            .env("RUSTUP_AUTO_INSTALL", "0");
        steps.doing(&process::line(&add));
        match process::read(&mut add) {
            Ok(_) if toolchain::find_compiler(machine).is_ok() => return,
            Ok(_) => {}
            Err(error) => steps.note(&format!("{error:#}")),
        }
    }
}

fn server_is_reachable() -> bool {
    let proxied =
        ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"].iter().any(|name| env::var_os(name).is_some());
    let server = env::var("RUSTUP_DIST_SERVER").unwrap_or_else(|_| "https://static.rust-lang.org".to_owned());
    let host = server.split("://").nth(1).unwrap_or(&server).split('/').next().unwrap_or_default();
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    // A proxy knows more ways out than we can try.
    proxied
        || address
            .to_socket_addrs()
            .is_ok_and(|mut all| all.any(|one| TcpStream::connect_timeout(&one, CONNECT_TIMEOUT).is_ok()))
}

fn instructions(missing: &[String]) -> String {
    format!(
        "no compiler here can build the eBPF programs ({}). One of these gives one:\n  \
         rustup component add rust-src                       (with rustup, for the toolchain that builds netpath)\n  \
         apt-get install {}     (Debian)",
        missing.join("; "),
        SYSTEM_PACKAGES.join(" ")
    )
}
