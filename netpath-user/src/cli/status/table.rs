//! The report of `netpath status` for people: what there is one of in a line each, the rest in tables.

use netpath_common::{abi::PathCount, drop::DropReason};

use super::STARTING;
use crate::{
    cli::{
        list::Look,
        net,
        output::{Table, human_bytes},
    },
    report::{ClosedPortsStatus, DockerStatus, FirewallStatus, HostAccessStatus, MacvlanParent, MacvlanStatus},
    status::{Flows, Status},
};

pub(super) fn table(status: &Status) -> String {
    let mut text = headline(status).to_owned() + "\n" + &overview(status);
    let sections =
        [rules, uplinks, uncovered, networks, endpoints, macvlan, traffic, drops].map(|section| section(status));
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

pub(super) fn flows(flows: &Flows) -> String {
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

/// What netpath can't work on, and what to do about it.
fn uncovered(status: &Status) -> Option<String> {
    let mut table = Table::new(["NOT COVERED", "ADDRESSES", "WHY", "WHAT TO DO"]);
    for interface in &status.uncovered {
        let addresses = interface.addresses.join(",");
        table.row([interface.name.clone(), addresses, interface.because.clone(), interface.advice.clone()]);
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
