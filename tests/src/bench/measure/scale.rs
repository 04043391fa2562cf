//! How the cost of a packet, and of a new flow, grows with published ports, live flows and containers.

use super::super::carrier::{Carrier, Evidence};
use super::frames::{COST, NEW_FLOWS, OFFERED, PACKETS, edge, new_flows};
use super::{Effort, Grows, Measure, Setting};

/// Flows of the load while ports grow: one for each port at most.
const FLOWS: u32 = 10_000;

const EDGE: Measure = Measure {
    name: "scale-ports",
    title: "published UDP, counted at the container's end, 10,000 flows",
    evidence: Evidence::Translated("published_in"),
    carriers: &[Carrier::Iptables, Carrier::Nftables, Carrier::Netpath],
    figures: &[PACKETS, COST, OFFERED],
    setting: Setting::PLAIN,
    effort: Effort::Full,
    run: edge,
};

const OPENING: Measure = Measure {
    name: "scale-ports-new",
    title: "new UDP flows to published ports",
    figures: &[NEW_FLOWS],
    run: new_flows,
    ..EDGE
};

const fn ports(measure: Measure, ports: u32) -> Measure {
    let setting = Setting { grows: Some(Grows::Ports), ports, flows: FLOWS, ..Setting::PLAIN };
    Measure { setting, ..measure }
}

const fn flows(flows: u32) -> Measure {
    let setting = Setting { grows: Some(Grows::Flows), flows, ..Setting::PLAIN };
    let title = "published UDP, counted at the container's end";
    Measure { name: "scale-flows", title, setting, ..EDGE }
}

const fn containers(containers: u32) -> Measure {
    let setting = Setting { grows: Some(Grows::Containers), containers, ..Setting::PLAIN };
    let title = "published UDP, counted at the container's end, 1 flow";
    let carriers = &[Carrier::Iptables, Carrier::Netpath];
    Measure { name: "scale-containers", title, setting, carriers, ..EDGE }
}

pub(super) const MEASURES: &[Measure] = &[
    ports(EDGE, 1),
    ports(OPENING, 1),
    ports(EDGE, 100),
    ports(OPENING, 100),
    ports(EDGE, 1000),
    ports(OPENING, 1000),
    ports(EDGE, 10_000),
    ports(OPENING, 10_000),
    flows(1),
    flows(10_000),
    flows(250_000),
    containers(1),
    containers(100),
    containers(500),
];
