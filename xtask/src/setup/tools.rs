//! The programs of the lab and the tests.
//!
//! They are looked for where packages put them, not on PATH: a program of the same name in somebody's home is not the
//! one that was tested.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Steps;
use super::apt::Apt;
use crate::toolchain::Machine;

/// A program and the packages that have it; the first that can be installed is.
struct Tool {
    program: &'static str,
    packages: &'static [&'static str],
}

const TOOLS: [Tool; 27] = [
    Tool { program: "dockerd", packages: &["docker.io"] },
    // Newer releases part the client from the daemon.
    Tool { program: "docker", packages: &["docker-cli", "docker.io"] },
    Tool { program: "docker-compose", packages: &["docker-compose"] },
    Tool { program: "iptables", packages: &["iptables"] },
    Tool { program: "nft", packages: &["nftables"] },
    Tool { program: "ip", packages: &["iproute2"] },
    Tool { program: "ethtool", packages: &["ethtool"] },
    Tool { program: "conntrack", packages: &["conntrack"] },
    Tool { program: "iperf3", packages: &["iperf3"] },
    Tool { program: BUSYBOX, packages: &["busybox-static"] },
    Tool { program: "ping", packages: &["iputils-ping"] },
    Tool { program: "python3", packages: &["python3"] },
    Tool { program: "socat", packages: &["socat"] },
    Tool { program: "bpftool", packages: &["bpftool", "linux-tools-generic"] },
    Tool { program: "tcpdump", packages: &["tcpdump"] },
    // libFuzzer is C++.
    Tool { program: "c++", packages: &["g++"] },
    Tool { program: "nsenter", packages: &["util-linux"] },
    // What people run through netpath, as the tests do: packages that bring no service.
    Tool { program: "curl", packages: &["curl"] },
    Tool { program: "dig", packages: &["bind9-dnsutils"] },
    Tool { program: "dnsmasq", packages: &["dnsmasq-base"] },
    Tool { program: "nghttpd", packages: &["nghttp2-server"] },
    Tool { program: "openssl", packages: &["openssl"] },
    Tool { program: "traceroute", packages: &["traceroute"] },
    Tool { program: "mtr", packages: &["mtr-tiny"] },
    Tool { program: "redis-benchmark", packages: &["redis-tools"] },
    Tool { program: "tsctp", packages: &["libusrsctp-examples"] },
    Tool { program: PYFTPDLIB, packages: &["python3-pyftpdlib"] },
];

/// It must be the static one: it is all there is in a container of the lab.
const BUSYBOX: &str = "busybox";

/// A module, which `python3 -m` runs: it has no program.
const PYFTPDLIB: &str = "pyftpdlib";

/// Where packages put Python's modules.
const PYTHON_MODULES: &str = "usr/lib/python3/dist-packages";

/// Finds all of them, or installs those that are missing.
pub(super) fn ensure(apt: &mut Apt, steps: &mut Steps) -> Result<()> {
    let root = Path::new("/");
    let missing = missing(root);
    if missing.is_empty() {
        steps.found(&format!("for the lab and the tests: {}", TOOLS.map(|tool| tool.program).join(", ")));
        return Ok(());
    }
    let mut packages = Vec::new();
    for tool in missing {
        packages.push(choose(tool, apt)?.to_owned());
    }
    packages.sort();
    packages.dedup();
    apt.install(&packages, steps)?;
    match self::missing(root).as_slice() {
        [] => Ok(()),
        left => bail!(
            "still missing after the installation: {}",
            left.iter()
                .map(|tool| format!("{} (package {})", tool.program, tool.packages.join(" or ")))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// Where a program of the lab is, by its absolute path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_under(Path::new("/"), program)
}

fn missing(root: &Path) -> Vec<&'static Tool> {
    TOOLS
        .iter()
        .filter(|tool| find_under(root, tool.program).is_none_or(|file| tool.program == BUSYBOX && !is_static(&file)))
        .collect()
}

fn find_under(root: &Path, program: &str) -> Option<PathBuf> {
    if program == PYFTPDLIB {
        return Some(root.join(PYTHON_MODULES).join(program).join("__main__.py")).filter(|file| file.is_file());
    }
    let dirs = ["usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin", "usr/lib/usrsctp"]
        .map(|dir| root.join(dir));
    Machine::program_in(&dirs.each_ref().map(PathBuf::as_path), program)
}

fn choose(tool: &Tool, apt: &mut Apt) -> Result<&'static str> {
    for package in tool.packages {
        if apt.has(package)? {
            return Ok(package);
        }
    }
    Ok(tool.packages.first().unwrap_or(&tool.program))
}

/// A dynamic program names its loader right behind its program headers.
fn is_static(program: &Path) -> bool {
    let mut head = [0; 4096];
    let Ok(length) = File::open(program).and_then(|mut file| file.read(&mut head)) else { return false };
    !head[..length].windows(4).any(|bytes| bytes == b"/ld-")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn install(root: &Path, file: &str, content: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn on_a_bare_machine_every_tool_is_missing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(missing(root.path()).len(), TOOLS.len());
    }

    #[test]
    fn a_tool_is_found_in_any_of_the_system_directories() {
        let root = tempfile::tempdir().unwrap();
        for (tool, dir) in TOOLS.iter().zip(["usr/sbin", "sbin", "usr/bin", "bin", "usr/local/bin"].into_iter().cycle())
        {
            install(root.path(), &format!("{dir}/{}", tool.program), "program");
        }
        install(root.path(), &format!("{PYTHON_MODULES}/{PYFTPDLIB}/__main__.py"), "module");
        assert!(missing(root.path()).is_empty());
    }

    #[test]
    fn a_dynamic_busybox_does_not_do() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/bin/busybox", "ELF headers /lib64/ld-linux-x86-64.so.2 code");
        assert!(missing(root.path()).iter().any(|tool| tool.program == BUSYBOX));
    }

    #[test]
    fn a_file_that_cannot_be_run_is_no_program() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/sbin/ip", "text");
        fs::set_permissions(root.path().join("usr/sbin/ip"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(missing(root.path()).iter().any(|tool| tool.program == "ip"));
    }
}
