//! `netpath status`: is it attached, is it in step with Docker, and what does it carry?
//!
//! The daemon's word when it answers, else what is pinned. The same report either way.

use netpath_common::{abi::PathCount, drop::DropReason};

use super::{
    args::Global,
    exit::{Exit, NothingAttached},
    list::Look,
    net,
    output::{Table, human_bytes, message, show},
};
use crate::{
    control::ClientError,
    report::{ClosedPortsStatus, DockerStatus, FirewallStatus, HostAccessStatus, MacvlanParent, MacvlanStatus},
    status::{Flows, Status},
};

/// What there is to say of Docker before the daemon's first round.
const STARTING: &str = "the daemon is starting";

/// What there is to say, and how to end.
#[derive(Debug)]
struct Outcome {
    status: Status,
    exit: Exit,
    messages: Vec<String>,
}

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let daemon = global.client().status().await;
    let Outcome { status, exit, messages } = judge(daemon, || Status::of_pins(&global.pins()?))?;
    show(global.output, &status, table)?;
    messages.iter().for_each(message);
    Ok(exit)
}

/// Chooses between the daemon's report and what the pins say, and finds the exit code.
///
/// # Errors
///
/// When there are neither a daemon's report nor readable pins, for another reason than that nothing is attached.
fn judge(
    daemon: Result<Status, ClientError>,
    pinned: impl FnOnce() -> anyhow::Result<Status>,
) -> anyhow::Result<Outcome> {
    let error = match daemon {
        Ok(status) => return Ok(judge_daemon(status)),
        Err(error) => anyhow::Error::from(error),
    };
    let exit = Exit::of(&error);
    match pinned() {
        Ok(status) => {
            let message = format!("{error:#}; this is what is pinned");
            Ok(Outcome { status, exit, messages: vec![message] })
        }
        Err(absent) if absent.is::<NothingAttached>() => {
            Ok(Outcome { status: Status::default(), exit, messages: vec![format!("{error:#}"), absent.to_string()] })
        }
        Err(unreadable) => Err(unreadable),
    }
}

fn judge_daemon(status: Status) -> Outcome {
    let mut messages = Vec::new();
    if !status.attached {
        messages.push("the daemon runs, but nothing is attached".to_owned());
    }
    if !status.in_sync {
        messages.push(format!("not in step with Docker: {}", why_not_in_step(&status)));
    }
    let exit = if messages.is_empty() { Exit::Ok } else { Exit::Degraded };
    Outcome { status, exit, messages }
}

fn why_not_in_step(status: &Status) -> String {
    let DockerStatus { socket, connected, last_error, .. } = &status.docker;
    if socket.is_empty() {
        return STARTING.to_owned();
    }
    match (connected, last_error, status.pending.as_slice()) {
        (false, Some(error), _) => format!("{socket}: {error}"),
        (false, None, _) => format!("{socket}: not connected"),
        (true, _, []) => "the first list isn't applied yet".to_owned(),
        (true, _, [pending]) => format!("{}: {}", pending.object, pending.error),
        (true, _, [pending, others @ ..]) => {
            format!("{}: {} (and {} more)", pending.object, pending.error, others.len())
        }
    }
}

fn table(status: &Status) -> String {
    let mut text = headline(status).to_owned() + "\n" + &overview(status);
    let sections = [rules, uplinks, networks, endpoints, macvlan, traffic, drops].map(|section| section(status));
    for section in sections.into_iter().flatten() {
        text = text + "\n" + &section;
    }
    text
}

const fn headline(status: &Status) -> &'static str {
    match (status.daemon.running, status.attached, status.in_sync) {
        (true, true, true) => "netpath is attached and in step with Docker",
        (true, true, false) => "netpath is attached, but not in step with Docker",
        (true, false, _) => "netpath runs, but nothing is attached",
        (false, true, _) => "netpath is attached, but no daemon runs",
        (false, false, _) => "netpath isn't attached",
    }
}

/// One line for each thing that there is one of.
fn overview(status: &Status) -> String {
    let mut lines = vec![("Daemon:", daemon(status))];
    if status.daemon.running {
        lines.push(("Docker:", docker(&status.docker)));
    }
    if status.daemon.running || status.attached {
        let mode = if status.mode.is_empty() { "not known yet" } else { &status.mode };
        lines.extend([
            ("Mode:", mode.to_owned()),
            ("Flows:", flows(&status.flows)),
            ("Ports:", format!("{} published", status.published_ports)),
            ("Host:", host_access(status)),
            ("Drops:", format!("{} packets", status.drops.values().sum::<u64>())),
        ]);
        lines.extend(closed_ports(&status.closed_ports).map(|text| ("Closed:", text)));
        lines.extend(macvlan_access(&status.macvlan).map(|text| ("macvlan:", text)));
        lines.extend(firewall(status).map(|text| ("Rules:", text)));
    }
    lines.iter().map(|(label, value)| format!("  {label:<9}{value}\n")).collect()
}

fn flows(flows: &Flows) -> String {
    let warning = if flows.nearly_full { ", NEARLY FULL: see `netpath ct stats`" } else { "" };
    format!("{} of {}{warning}", flows.used, flows.capacity)
}

fn daemon(status: &Status) -> String {
    match (&status.daemon.version, status.daemon.pid) {
        (Some(version), Some(pid)) => format!("netpath {version}, pid {pid}"),
        _ if status.daemon.running => "running".to_owned(),
        _ => "not running".to_owned(),
    }
}

fn docker(docker: &DockerStatus) -> String {
    let DockerStatus { socket, connected, in_sync, api_version, last_error, .. } = docker;
    if socket.is_empty() {
        return STARTING.to_owned();
    }
    if !connected {
        let error = last_error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        return format!("{socket}, not connected{error}");
    }
    let version = api_version.as_ref().map(|version| format!(", API {version}")).unwrap_or_default();
    let step = if *in_sync { "" } else { ", list pending" };
    format!("{socket}, connected{version}{step}")
}

/// Whether the host itself reaches published ports by netpath.
fn host_access(status: &Status) -> String {
    let HostAccessStatus { attached, error } = &status.host_access;
    match (attached, error) {
        (true, _) => "its own connections to published ports go straight to the containers".to_owned(),
        (false, Some(error)) => format!("its own connections to published ports stay with the kernel: {error}"),
        (false, None) => "its own connections to published ports stay with the kernel".to_owned(),
    }
}

/// What becomes of datagrams to ports that nobody listens on, where the daemon says it.
fn closed_ports(closed: &ClosedPortsStatus) -> Option<String> {
    match (closed.dropped, closed.because.as_slice()) {
        (true, _) => Some("UDP to closed ports of the host is dropped, but for what the kernel may answer".to_owned()),
        (false, []) => None,
        (false, because) => Some(format!("UDP to closed ports of the host is the kernel's: {}", because.join("; "))),
    }
}

/// Whether the host reaches macvlan containers; nothing where there are none.
fn macvlan_access(macvlan: &MacvlanStatus) -> Option<String> {
    let MacvlanStatus { host_access, error, parents } = macvlan;
    match (host_access, error) {
        (true, Some(error)) => Some(format!("the host doesn't reach all of its macvlan containers: {error}")),
        (true, None) if !parents.is_empty() => Some("the host reaches its macvlan containers".to_owned()),
        (false, _) if !parents.is_empty() => {
            Some("the host doesn't reach its macvlan containers (host_access is off)".to_owned())
        }
        _ => None,
    }
}

/// What the firewall's rules have to do with it; nothing where there are none that matter.
fn firewall(status: &Status) -> Option<String> {
    let FirewallStatus { ignored, errors, rules, .. } = &status.firewall;
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut parts = Vec::new();
    if !rules.is_empty() {
        let count = rules.len();
        let told = if *ignored { ", as it was told to" } else { "" };
        parts.push(format!("netpath passes {count} rule{} of the firewall by{told}", plural(count)));
    }
    let refused = status.networks.iter().filter(|network| !network.network.refused.is_empty());
    let refused: Vec<&str> = refused.map(|network| network.network.name.as_str()).collect();
    if !refused.is_empty() {
        parts.push(format!("network{} left to Docker for their sake: {}", plural(refused.len()), refused.join(", ")));
    }
    parts.extend(errors.iter().cloned());
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The rules that netpath passes by.
fn rules(status: &Status) -> Option<String> {
    let mut table = Table::new(["BYPASSED RULE", "EFFECT", "NETWORKS"]);
    for rule in &status.firewall.rules {
        let text = format!("{} {}: {}", rule.backend, rule.table, rule.rule);
        table.row([text, rule.effect.clone(), rule.networks.join(",")]);
    }
    section(&table)
}

fn uplinks(status: &Status) -> Option<String> {
    let mut table = Table::new(["UPLINK", "HOOK", "EGRESS", "XDP", "ADDRESSES"]);
    for uplink in &status.uplinks {
        table.row([
            uplink.name.clone(),
            uplink.hook.clone().unwrap_or_else(|| "off".to_owned()),
            uplink.egress.clone().unwrap_or_else(|| "off".to_owned()),
            uplink.xdp_mode.clone().unwrap_or_else(|| "off".to_owned()),
            uplink.addresses.join(","),
        ]);
    }
    section(&table)
}

fn networks(status: &Status) -> Option<String> {
    (!status.networks.is_empty()).then(|| net::table(&status.networks, Look { wide: false, no_trunc: false }))
}

fn endpoints(status: &Status) -> Option<String> {
    let mut table = Table::new(["CONTAINER", "NETWORK", "ADDRESS", "INTERFACE", "ATTACHED"]);
    for endpoint in &status.endpoints {
        table.row([
            endpoint.container_name.clone(),
            endpoint.network_name.clone(),
            endpoint.address.to_string(),
            endpoint.veth.clone(),
            if endpoint.attached { "yes" } else { "no" }.to_owned(),
        ]);
    }
    section(&table)
}

fn macvlan(status: &Status) -> Option<String> {
    let mut table = Table::new(["MACVLAN PARENT", "HOST'S INTERFACE", "CONTAINERS"]);
    for MacvlanParent { parent, interface, containers, .. } in &status.macvlan.parents {
        let containers: Vec<_> = containers.iter().map(|container| container.address.to_string()).collect();
        table.row([parent.clone(), interface.clone().unwrap_or_else(|| "off".to_owned()), containers.join(",")]);
    }
    section(&table)
}

/// The ways that packets took, in the order of the list; those that none took are left out.
fn traffic(status: &Status) -> Option<String> {
    let mut table = Table::new(["TRAFFIC", "PACKETS", "BYTES"]);
    for path in PathCount::ALL {
        if let Some(count) = status.traffic.get(path.name()).filter(|count| count.packets > 0) {
            table.row([path.name().to_owned(), count.packets.to_string(), human_bytes(count.bytes)]);
        }
    }
    section(&table)
}

/// The reasons for which packets were dropped, in the order of the list; those that none was are left out.
fn drops(status: &Status) -> Option<String> {
    let mut table = Table::new(["DROPS", "PACKETS"]);
    for reason in DropReason::ALL {
        if let Some(packets) = status.drops.get(reason.name()).filter(|packets| **packets > 0) {
            table.row([reason.name().to_owned(), packets.to_string()]);
        }
    }
    section(&table)
}

fn section(table: &Table) -> Option<String> {
    (!table.is_empty()).then(|| table.to_string())
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use anyhow::anyhow;
    use serde_json::json;

    use super::{Exit, NothingAttached, Outcome, flows, judge, table};
    use crate::{
        control::ClientError,
        dataplane::PinsError,
        report::{DockerStatus, EndpointStatus, HostAccessStatus, NetworkStatus, PendingFailure, UplinkStatus},
        status::{Daemon, Flows, Network, Status, Traffic},
    };

    fn socket() -> PathBuf {
        PathBuf::from("/run/sock")
    }

    fn unreachable() -> ClientError {
        ClientError::Unreachable { path: socket(), source: io::Error::from(io::ErrorKind::NotFound) }
    }

    fn attached() -> Status {
        Status { attached: true, mode: "takeover".to_owned(), ..Default::default() }
    }

    fn in_step() -> Status {
        let pid = Some(7);
        Status {
            in_sync: true,
            daemon: Daemon { running: true, pid, version: Some("0.1.0".to_owned()), pin_dir: None },
            docker: DockerStatus {
                socket: "/var/run/docker.sock".to_owned(),
                connected: true,
                in_sync: true,
                api_version: Some("1.41".to_owned()),
                ..Default::default()
            },
            ..attached()
        }
    }

    fn no_pins() -> anyhow::Result<Status> {
        Err(NothingAttached(PathBuf::from("/pins")).into())
    }

    #[test]
    fn only_attached_and_in_step_is_ok() {
        let pending = PendingFailure { object: "uplink eth0".to_owned(), error: "busy".to_owned(), attempts: 2 };
        let away = DockerStatus { socket: "/d.sock".to_owned(), ..Default::default() };
        for (status, exit, said) in [
            (in_step(), Exit::Ok, ""),
            (Status { attached: false, ..in_step() }, Exit::Degraded, "nothing is attached"),
            (Status { in_sync: false, ..in_step() }, Exit::Degraded, "isn't applied yet"),
            (Status { in_sync: false, docker: away, ..in_step() }, Exit::Degraded, "/d.sock: not connected"),
            (Status { in_sync: false, docker: DockerStatus::default(), ..in_step() }, Exit::Degraded, "is starting"),
            (Status { in_sync: false, pending: vec![pending], ..in_step() }, Exit::Degraded, "uplink eth0: busy"),
        ] {
            let outcome = judge(Ok(status), || panic!("the daemon answers")).unwrap();
            assert_eq!(outcome.exit, exit, "{said}");
            assert_eq!(outcome.messages.is_empty(), said.is_empty());
            assert!(outcome.messages.concat().contains(said), "{:?}", outcome.messages);
        }
    }

    #[test]
    fn without_a_daemon_the_pins_speak() {
        let Outcome { status, exit, messages } = judge(Err(unreachable()), || Ok(attached())).unwrap();
        assert_eq!((status, exit), (attached(), Exit::Unreachable));
        assert!(messages[0].starts_with("no netpath daemon answers on /run/sock"), "{messages:?}");
    }

    #[test]
    fn without_anything_the_user_learns_what_to_do() {
        let Outcome { status, exit, messages } = judge(Err(unreachable()), no_pins).unwrap();
        assert_eq!((status, exit), (Status::default(), Exit::Unreachable));
        assert_eq!(messages[1], "nothing is attached under /pins; start it with `netpath run`");
    }

    #[test]
    fn missing_permission_is_its_own_exit_code() {
        let unreadable = || Err(PinsError::Permission(PathBuf::from("/pins")).into());
        let error = judge(Err(unreachable()), unreadable).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Permission);
        let outcome = judge(Err(ClientError::Permission(socket())), no_pins).unwrap();
        assert_eq!(outcome.exit, Exit::Permission);
        let error = judge(Err(unreachable()), || Err(anyhow!("broken map"))).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Failure);
    }

    #[test]
    fn the_table_tells_everything_at_a_glance() {
        let endpoint = EndpointStatus {
            endpoint_id: String::new(),
            container_id: "c".repeat(64),
            container_name: "web".to_owned(),
            network_id: String::new(),
            network_name: "bridge".to_owned(),
            address: [172, 17, 0, 2].into(),
            mac: String::new(),
            veth: "veth1234567".to_owned(),
            ifindex: 9,
            attached: true,
        };
        let status = Status {
            uplinks: vec![UplinkStatus {
                name: "eth0".to_owned(),
                addresses: vec!["192.0.2.1/24".to_owned()],
                hook: Some("tcx".to_owned()),
                egress: Some("tcx".to_owned()),
                ..Default::default()
            }],
            networks: vec![Network {
                network: NetworkStatus { name: "bridge".to_owned(), ..Default::default() },
                datapath: Some("tcx".to_owned()),
            }],
            endpoints: vec![endpoint],
            published_ports: 3,
            host_access: HostAccessStatus { attached: true, error: None },
            flows: Flows::new(2, 1024),
            traffic: [("masquerade_out", 3), ("local", 0)]
                .map(|(name, packets)| (name.to_owned(), Traffic { packets, bytes: packets * 1500 }))
                .into(),
            drops: [("no_flow", 4), ("truncated", 0)].map(|(name, packets)| (name.to_owned(), packets)).into(),
            ..in_step()
        };
        assert_eq!(
            table(&status),
            "netpath is attached and in step with Docker
  Daemon:  netpath 0.1.0, pid 7
  Docker:  /var/run/docker.sock, connected, API 1.41
  Mode:    takeover
  Flows:   2 of 1024
  Ports:   3 published
  Host:    its own connections to published ports go straight to the containers
  Drops:   4 packets

UPLINK   HOOK   EGRESS   XDP   ADDRESSES
eth0     tcx    tcx      off   192.0.2.1/24

NETWORK ID   NAME     DRIVER   SUBNET   BRIDGE   DATAPATH   ENDPOINTS
-            bridge   -        -        -        tcx        0

CONTAINER   NETWORK   ADDRESS      INTERFACE     ATTACHED
web         bridge    172.17.0.2   veth1234567   yes

TRAFFIC          PACKETS   BYTES
masquerade_out   3         4.5 kB

DROPS     PACKETS
no_flow   4
"
        );
    }

    #[test]
    fn the_table_says_why_the_host_goes_the_kernels_way() {
        let host_access = HostAccessStatus { attached: false, error: Some("no cgroup2".to_owned()) };
        let text = table(&Status { host_access, ..in_step() });
        let line = "  Host:    its own connections to published ports stay with the kernel: no cgroup2\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn the_table_says_what_is_not() {
        assert_eq!(table(&Status::default()), "netpath isn't attached\n  Daemon:  not running\n");
        let text = table(&Status { daemon: Daemon::default(), ..attached() });
        assert!(text.starts_with("netpath is attached, but no daemon runs\n"), "{text}");
        let docker = DockerStatus {
            socket: "/d.sock".to_owned(),
            last_error: Some("connection refused".to_owned()),
            ..Default::default()
        };
        let text = table(&Status { docker, in_sync: false, ..in_step() });
        assert!(text.contains("Docker:  /d.sock, not connected (connection refused)\n"), "{text}");
    }

    #[test]
    fn json_has_the_same_fields_with_and_without_a_daemon() {
        let fields = |status: &Status| -> Vec<String> {
            let json = serde_json::to_value(status).unwrap();
            json.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(fields(&in_step()), fields(&Status::default()));
        let json = serde_json::to_value(Status::default()).unwrap();
        assert_eq!(json["attached"], json!(false));
        assert_eq!(json["daemon"], json!({"running": false, "pid": null, "version": null, "pin_dir": null}));
        assert_eq!(json["flows"], json!({"used": 0, "capacity": 0, "nearly_full": false}));
    }

    #[test]
    fn a_nearly_full_table_is_shown_as_such() {
        assert_eq!(flows(&Flows::new(899, 1000)), "899 of 1000");
        assert_eq!(flows(&Flows::new(900, 1000)), "900 of 1000, NEARLY FULL: see `netpath ct stats`");
        assert_eq!(flows(&Flows::new(0, 0)), "0 of 0");
    }
}
