//! Real traffic through the lab. Every server answers with the address that it saw, which shows each address
//! translation from its far end.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Engine;
use super::interrupt::Interrupt;
use super::network::{GATEWAY, HOST, LAN, WORLD, inside};
use super::{daemon, image};
use crate::process::{self, command};

/// Starts the servers of `lan`, which is also the world.
pub(crate) fn serve(interrupt: &Interrupt) -> Result<()> {
    let mut http = command("busybox", ["httpd", "-f", "-p", "0.0.0.0:8000", "-h"]);
    http.arg(image::www());
    // Bound to an address, because a datagram socket that isn't answers from the one on the wire.
    let listen = format!("UDP4-RECVFROM:9000,bind={WORLD},fork");
    let udp = command("socat", [&listen, "SYSTEM:read ask; echo $SOCAT_PEERADDR"]);
    for (name, server) in [("lan-http", http), ("lan-udp", udp)] {
        let mut running = daemon::spawn(name, inside("lan", &server))?;
        daemon::still_running(name, &mut running)?;
    }
    interrupt.until("the servers in `lan`", Duration::from_secs(10), || {
        Ok(ask(inside("lan", &sh(&http_get(LAN, 8000)))).is_ok()
            && ask(inside("lan", &sh(&udp_ask(WORLD, 9000)))).is_ok())
    })
}

/// A way through the lab.
struct Way {
    what: &'static str,
    ask: Command,
    who: &'static str,
    /// The address that the far end must see.
    expected: String,
}

/// Sends something along every way and prints what the far end saw. An error says which ways failed.
pub(crate) fn send(engine: &Engine, interrupt: &Interrupt) -> Result<()> {
    let (web, client) = (engine.address("web")?, engine.address("client")?);
    let mut failed = Vec::new();
    for way in ways(engine, &web, &client) {
        if interrupt.came() {
            bail!("interrupted");
        }
        let seen = ask(way.ask);
        let verdict = match &seen {
            Ok(seen) if *seen == way.expected => "ok".to_owned(),
            Ok(_) => format!("WRONG, expected {}", way.expected),
            Err(error) => format!("FAILED: {error:#}"),
        };
        say!("  {:<48} {} saw {:<15} {verdict}", way.what, way.who, seen.as_deref().unwrap_or("nothing"));
        if verdict != "ok" {
            failed.push(way.what);
        }
    }
    if !failed.is_empty() {
        bail!("traffic failed: {}", failed.join("; "));
    }
    Ok(())
}

fn ways(engine: &Engine, web: &str, client: &str) -> [Way; 7] {
    let from_client = |line: &str| engine.exec("client", line);
    let from_lan = |line: &str| inside("lan", &sh(line));
    let from_host = |line: &str| inside("host", &sh(line));
    let ping = format!("ping -c 3 -W 2 {WORLD} >/dev/null && echo answer");
    let way = |what, ask, who, expected: &str| Way { what, ask, who, expected: expected.to_owned() };
    [
        way("container to world, TCP (masqueraded)", from_client(&http_get(WORLD, 8000)), "world    ", HOST),
        way("container to world, UDP (masqueraded)", from_client(&udp_ask(WORLD, 9000)), "world    ", HOST),
        way("container to world, ping (masqueraded)", from_client(&ping), "container", "answer"),
        way("lan to published port 8080/tcp", from_lan(&http_get(HOST, 8080)), "container", LAN),
        way("lan to published port 5353/udp", from_lan(&udp_ask(HOST, 5353)), "container", LAN),
        way("container to container, TCP", from_client(&http_get(web, 80)), "container", client),
        way("host to container, TCP", from_host(&http_get(web, 80)), "container", GATEWAY),
    ]
}

fn http_get(address: &str, port: u16) -> String {
    // BusyBox's by name: outside the containers there may be another wget. Its own -T ends in a crash where it is
    // linked with glibc.
    format!("busybox timeout 6 busybox wget -q -O - http://{address}:{port}/cgi-bin/who")
}

fn udp_ask(address: &str, port: u16) -> String {
    format!("echo who | socat -T 2 -t 1 - UDP4:{address}:{port}")
}

fn sh(line: &str) -> Command {
    command("sh", ["-c", line])
}

/// What the far end answers; silence is an error.
fn ask(mut command: Command) -> Result<String> {
    let answer = process::read(&mut command)?.trim().to_owned();
    if answer.is_empty() {
        bail!("no answer");
    }
    Ok(answer)
}
