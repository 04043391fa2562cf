//! The program that runs in the tests' containers: serves [`netpath_tests::protocol`] on the ports given until killed.
//!
//! `netpath-peer [tcp|udp]:FIRST[-LAST]... [call:ADDRESS:PORT]`
//!
//! `call` sends datagrams to an address from its very first moment on, each from a port of its own.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::server::{Server, any};

const USAGE: &str = "usage: netpath-peer [tcp|udp]:FIRST[-LAST]... [call:ADDRESS:PORT]";

/// Datagrams that `call` sends, and the time between them: for a second.
const CALLS: u32 = 1000;
const CALL_INTERVAL: Duration = Duration::from_millis(1);

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
        let (protocol, ports) = argument.split_once(':').context(USAGE)?;
        if protocol == "call" {
            call(ports.parse().with_context(|| format!("{ports} is no address"))?)?;
            continue;
        }
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
    ensure!(!servers.is_empty(), USAGE);
    Ok(servers)
}

fn call(target: SocketAddrV4) -> Result<()> {
    for _ in 0..CALLS {
        let socket = UdpSocket::bind(any(0)).context("open a socket")?;
        socket.send_to(b"hello", target).with_context(|| format!("send to {target}"))?;
        thread::sleep(CALL_INTERVAL);
    }
    Ok(())
}
