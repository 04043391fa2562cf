//! The program that runs in the tests' containers: serves [`netpath_tests::protocol`] on the ports given until killed.
//!
//! `netpath-peer [tcp|udp]:FIRST[-LAST]...`

use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::server::{Server, any};

fn main() -> ExitCode {
    match start(std::env::args().skip(1)) {
        Ok(servers) => loop {
            // As process 1 of a container it has no other way to end than a signal.
            thread::park();
            debug_assert!(!servers.is_empty());
        },
        Err(error) => {
            eprintln!("netpath-peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl Iterator<Item = String>) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for argument in arguments {
        let (protocol, ports) = argument.split_once(':').context("usage: netpath-peer [tcp|udp]:FIRST[-LAST]...")?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let parse = |text: &str| text.parse::<u16>().with_context(|| format!("{text} is no port"));
        for port in parse(first)?..=parse(last)? {
            servers.push(match protocol {
                "tcp" => Server::tcp(any(port))?,
                "udp" => Server::udp(any(port))?,
                _ => bail!("{protocol} is neither tcp nor udp"),
            });
        }
    }
    ensure!(!servers.is_empty(), "usage: netpath-peer [tcp|udp]:FIRST[-LAST]...");
    Ok(servers)
}
