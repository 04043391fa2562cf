//! The lab's containers where docker.io isn't to be had: plain network namespaces, and an answer to the few questions
//! that netpath asks Docker.
//!
//! The namespaces are real, and so is all of the traffic. What is played is only the list: two containers on the default
//! bridge network of a Docker that makes no rules, so netpath runs in sole mode.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::network::{GATEWAY, inside};
use super::state::State;
use super::{daemon, docker, image};
use crate::process::{self, command, words};

/// A namespace that is a container.
struct Container {
    name: &'static str,
    /// Its namespace, and its id for netpath.
    namespace: &'static str,
    address: &'static str,
    /// Published ports: in the container, on the host.
    ports: &'static [(&'static str, u16)],
}

const CONTAINERS: [Container; 2] = [
    Container {
        name: "web",
        namespace: "netpath-lab-web",
        address: "172.17.0.2",
        ports: &[("80/tcp", 8080), ("5353/udp", 5353)],
    },
    Container { name: "client", namespace: "netpath-lab-client", address: "172.17.0.3", ports: &[] },
];

/// The id of the network.
const NETWORK: &str = "706c61696e00000000000000000000000000000000000000000000000000000a";

/// The namespaces that are containers.
pub(crate) struct Plain;

impl Plain {
    /// Makes bridge and namespaces, starts the servers of `web`, and begins to answer netpath.
    pub(crate) fn start(state: &mut State, interrupt: &Interrupt) -> Result<Self> {
        image::make_www()?;
        process::run(&mut words("ip -n host link add docker0 type bridge"))?;
        process::run(&mut words(&format!("ip -n host address add {GATEWAY}/16 dev docker0")))?;
        process::run(&mut words("ip -n host link set docker0 up"))?;
        process::run(&mut inside("host", &words("sysctl -q -w net.ipv4.ip_forward=1")))?;
        for container in &CONTAINERS {
            join(container, state)?;
        }
        serve(interrupt)?;
        answer_netpath()?;
        Ok(Self)
    }

    /// A shell command in a container.
    pub(crate) fn exec(&self, name: &str, line: &str) -> Command {
        inside(namespace(name), &command("sh", ["-c", line]))
    }

    /// A container's address.
    pub(crate) fn address(&self, name: &str) -> String {
        find(name).map_or_else(String::new, |container| container.address.to_owned())
    }
}

/// The namespace of a container.
pub(crate) fn namespace(name: &str) -> &'static str {
    find(name).map_or("", |container| container.namespace)
}

fn find(name: &str) -> Option<&'static Container> {
    CONTAINERS.iter().find(|container| container.name == name)
}

/// Makes a container's namespace and joins it to the bridge, as Docker does.
fn join(container: &Container, state: &mut State) -> Result<()> {
    let Container { name, namespace, address, .. } = container;
    state.namespaces.push((*namespace).to_owned());
    state.save()?;
    for line in [
        &format!("ip netns add {namespace}"),
        &format!("ip -n host link add veth-{name} type veth peer name eth0 netns {namespace}"),
        &format!("ip -n host link set veth-{name} master docker0 up"),
        &format!("ip -n {namespace} link set lo up"),
        &format!("ip -n {namespace} address add {address}/16 dev eth0"),
        &format!("ip -n {namespace} link set eth0 up"),
        &format!("ip -n {namespace} route add default via {GATEWAY}"),
    ] {
        process::run(&mut words(line))?;
    }
    // A container has a first process; its namespace is what netpath looks into.
    daemon::spawn(name, inside(namespace, &words("sleep 2147483647")))?;
    Ok(())
}

/// What the image's `web` runs, in its namespace.
fn serve(interrupt: &Interrupt) -> Result<()> {
    let mut http = command("busybox", ["httpd", "-f", "-p", "0.0.0.0:80", "-h"]);
    http.arg(image::www());
    let udp = command("socat", ["UDP4-RECVFROM:5353,fork", "SYSTEM:read ask; echo $SOCAT_PEERADDR"]);
    for (name, server) in [("web-http", http), ("web-udp", udp)] {
        let mut running = daemon::spawn(name, inside(namespace("web"), &server))?;
        daemon::still_running(name, &mut running)?;
    }
    interrupt.until("the server in `web`", std::time::Duration::from_secs(10), || {
        let ask = "busybox timeout 2 busybox wget -q -O - http://127.0.0.1:80/cgi-bin/who";
        Ok(process::succeeds(&mut Plain.exec("web", ask)))
    })
}

/// Listens where a dockerd would, for as long as this process lives.
fn answer_netpath() -> Result<()> {
    let path = docker::HOST.trim_start_matches("unix://");
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {path}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks sees an end where an answer fails.
            thread::spawn(move || converse(stream).ok());
        }
    });
    Ok(())
}

/// Answers requests of one connection until its end.
fn converse(stream: UnixStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if path.ends_with("/events") {
            // Nothing ever happens: the answer never ends.
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            continue;
        }
        let (status, body) = match answer(path) {
            Some(body) => ("200 OK", body.to_string()),
            None => ("404 Not Found", json!({"message": "not played in this lab"}).to_string()),
        };
        let length = body.len();
        write!(
            writer,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
    }
}

/// The answer to a question, whatever API version it was asked in.
fn answer(path: &str) -> Option<Value> {
    let path = match path.strip_prefix("/v1.") {
        Some(versioned) => versioned.split_once('/')?.1,
        None => path.trim_start_matches('/'),
    };
    match path {
        "_ping" => Some(json!("OK")),
        "version" => Some(json!({"Version": "0", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})),
        "networks" => Some(json!([network()])),
        "containers/json" => Some(CONTAINERS.iter().map(|container| json!({"Id": container.namespace})).collect()),
        other => {
            let id = other.strip_prefix("containers/")?.strip_suffix("/json")?;
            CONTAINERS.iter().find(|container| container.namespace == id).map(inspect)
        }
    }
}

fn network() -> Value {
    json!({
        "Id": NETWORK, "Name": "bridge", "Driver": "bridge", "Scope": "local", "Internal": false,
        "IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": GATEWAY}]},
        "Options": {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.name": "docker0",
            // What a dockerd without iptables says.
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        },
    })
}

fn inspect(container: &Container) -> Value {
    let ports: serde_json::Map<String, Value> = container
        .ports
        .iter()
        .map(|(inside, host)| ((*inside).to_owned(), json!([{"HostIp": "0.0.0.0", "HostPort": host.to_string()}])))
        .collect();
    json!({
        "Id": container.namespace,
        "Name": format!("/{}", container.name),
        "State": {"Status": "running", "Running": true, "Pid": pid(container)},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {
            "SandboxKey": format!("/run/netns/{}", container.namespace),
            "Ports": ports,
            "Networks": {"bridge": {
                "NetworkID": NETWORK, "EndpointID": container.namespace, "Gateway": GATEWAY,
                "IPAddress": container.address, "IPPrefixLen": 16, "MacAddress": "",
            }},
        },
    })
}

/// A process in the container's namespace.
fn pid(container: &Container) -> Option<u32> {
    let pids = process::read(&mut words(&format!("ip netns pids {}", container.namespace))).ok()?;
    pids.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_in_every_version_of_the_api() {
        for path in ["/version", "/v1.41/networks", "/v1.53/containers/json"] {
            assert!(answer(path).is_some(), "{path}");
        }
        for path in ["/v1.41/images/json", "/v1.41/containers/other/json", "/"] {
            assert!(answer(path).is_none(), "{path}");
        }
    }
}
