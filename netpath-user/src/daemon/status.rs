//! The daemon's report, made from what it knows after a round.

use std::{collections::BTreeMap, net::Ipv4Addr};

use netpath_common::abi::Mode;

use super::{core::Core, engine::Engine, journal};
use crate::{
    desired::{
        docker::{DockerModel, Id, Network, Owner},
        host::HostModel,
        model::{Attachment, Hook, IfIndex, Protocol, State},
        uplinks::{self, UplinkChoice},
    },
    report::{
        DaemonStatus, EndpointStatus, NetworkStatus, PendingFailure, PolicyRuleStatus, PolicyStatus, PublishedStatus,
        UncoveredInterface, UplinkStatus,
    },
    settings::{PortRange, policy::Prefix},
};

/// The report.
pub(super) fn report<E: Engine>(core: &Core<E>) -> DaemonStatus {
    let nothing = DockerModel::default();
    let docker = core.docker.model.as_deref().unwrap_or(&nothing);
    let owners = docker.owners();
    let actual = core.engine.actual();
    DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        mode: core.mode().map(|mode| mode.name().to_owned()).unwrap_or_default(),
        in_sync: core.is_in_sync(),
        docker: core.docker.status.clone(),
        uplinks: uplinks(core),
        networks: docker
            .networks
            .iter()
            .filter(|(_, network)| network.is_managed())
            .map(|(id, at)| network(core, id, at))
            .collect(),
        endpoints: endpoints(actual, &core.host, &owners),
        published: published(actual, &owners),
        pending: pending(core),
        host_access: core.engine.host_access(),
        policy: policy(core, docker),
        firewall: core.bypass.status(),
        closed_ports: core.closed_ports.status(),
        macvlan: core.macvlan.clone(),
        uncovered: uncovered(core),
    }
}

/// The policy in the operator's words; how often its rules fitted is added by who reads the pins.
/// In takeover mode Docker's rules translate for the other interfaces.
fn uncovered<E: Engine>(core: &Core<E>) -> Vec<UncoveredInterface> {
    match core.mode() {
        Some(Mode::Sole) => uplinks::uncovered(&core.host),
        Some(Mode::Takeover) => uplinks::left_to_rules(&uplinks::meant(&core.wishes.uplinks, &core.host), &core.host),
        None => Vec::new(),
    }
}

fn policy<E: Engine>(core: &Core<E>, docker: &DockerModel) -> PolicyStatus {
    let (wish, wanted) = (&core.wishes.policy, &core.wanted.state.policy);
    let words = |values: &[PortRange]| values.iter().map(PortRange::to_string).collect();
    let rules = (1..).zip(&wish.rules).zip(wanted.groups()).map(|((number, rule), group)| PolicyRuleStatus {
        number,
        line: rule.line,
        action: rule.action.name().to_owned(),
        source: rule.source.iter().map(Prefix::to_string).collect(),
        from: rule.from.map(|from| from.name().to_owned()),
        network: rule.network.clone(),
        missing: rule.network.iter().filter(|name| docker.managed_network(name).is_none()).cloned().collect(),
        port: words(&rule.port),
        protocol: rule.protocol.iter().map(Protocol::to_string).collect(),
        counter: group.first().map_or(0, |rule| rule.counter),
        ..PolicyRuleStatus::default()
    });
    PolicyStatus {
        file: core.policy_file.clone(),
        default: wish.default.name().to_owned(),
        dry_run: wish.dry_run,
        rules: rules.collect(),
        ..PolicyStatus::default()
    }
}

fn uplinks<E: Engine>(core: &Core<E>) -> Vec<UplinkStatus> {
    let attached = core.engine.actual().attachments.iter().filter(|attachment| attachment.hook == Hook::Uplink);
    let attached = attached.map(|attachment| (Some(attachment.ifindex), core.journal.link(attachment.ifindex)));
    let named: Vec<(Option<IfIndex>, String)> = match &core.wishes.uplinks {
        UplinkChoice::Named(names) => {
            names.iter().map(|name| (core.host.link_named(name).map(|(ifindex, _)| ifindex), name.clone())).collect()
        }
        UplinkChoice::DefaultRoutes => attached.collect(),
    };
    let reports = core.engine.attachments();
    let find = |ifindex, hook| reports.iter().find(|report| Some(report.ifindex) == ifindex && report.hook == hook);
    named
        .into_iter()
        .map(|(ifindex, name)| UplinkStatus {
            name,
            ifindex,
            addresses: ifindex
                .and_then(|ifindex| core.engine.actual().uplinks.get(&ifindex))
                .map(|uplink| journal::addresses(&uplink.addresses))
                .unwrap_or_default(),
            hook: find(ifindex, Hook::Uplink).map(|report| report.mechanism.to_owned()),
            egress: find(ifindex, Hook::Egress).map(|report| report.mechanism.to_owned()),
            xdp_mode: find(ifindex, Hook::XdpUplink).and_then(|report| report.xdp_mode).map(str::to_owned),
        })
        .collect()
}

fn network<E: Engine>(core: &Core<E>, id: &Id, network: &Network) -> NetworkStatus {
    let bridge_ifindex = core.host.link_named(&network.bridge).map(|(ifindex, _)| ifindex);
    let of_bridge = |ifindex| core.host.first_address(ifindex);
    let endpoints = core.engine.actual().endpoints.values();
    NetworkStatus {
        id: id.clone(),
        name: network.name.clone(),
        driver: network.driver.clone(),
        bridge: network.bridge.clone(),
        bridge_ifindex,
        subnets: journal::addresses(&network.subnets),
        gateway: network.gateway.or_else(|| bridge_ifindex.and_then(of_bridge)),
        internal: network.internal,
        number: bridge_ifindex.and_then(|bridge| core.wanted.numbers.get(&bridge)).copied().unwrap_or(0),
        endpoints: endpoints.filter(|endpoint| Some(endpoint.bridge_ifindex) == bridge_ifindex).count(),
        options: options(network),
        refused: core.bypass.because(id),
    }
}

/// What `netpath net inspect` shows of a network's options: a row for each that is set.
fn options(network: &Network) -> BTreeMap<String, String> {
    let rows = [
        ("masquerade", network.masquerade.map(|address| address.to_string())),
        ("full_cone", network.full_cone.clone()),
    ];
    rows.into_iter().filter_map(|(option, value)| Some((option.to_owned(), value?))).collect()
}

fn endpoints(actual: &State, host: &HostModel, owners: &BTreeMap<Ipv4Addr, Owner<'_>>) -> Vec<EndpointStatus> {
    let statuses = actual.endpoints.iter().map(|(address, endpoint)| {
        let owner = owners.get(address);
        EndpointStatus {
            endpoint_id: owner.map(|owner| owner.interface.endpoint.clone()).unwrap_or_default(),
            container_id: owner.map(|owner| owner.id.clone()).unwrap_or_default(),
            container_name: owner.map(|owner| owner.container.name.clone()).unwrap_or_default(),
            network_id: owner.map(|owner| owner.interface.network.clone()).unwrap_or_default(),
            network_name: owner.map(|owner| owner.network.name.clone()).unwrap_or_default(),
            address: *address,
            mac: ethernet_address(endpoint.mac),
            veth: host.links.get(&endpoint.ifindex).map(|link| link.name.clone()).unwrap_or_default(),
            ifindex: endpoint.ifindex,
            attached: actual.attachments.contains(&Attachment { ifindex: endpoint.ifindex, hook: Hook::Container }),
        }
    });
    statuses.collect()
}

fn published(actual: &State, owners: &BTreeMap<Ipv4Addr, Owner<'_>>) -> Vec<PublishedStatus> {
    let ports = actual.published.iter().flat_map(|(block, target)| block.ports(*target));
    let statuses = ports.map(|(port, target)| {
        let owner = owners.get(&target.address);
        PublishedStatus {
            host_address: port.address,
            host_port: port.port,
            protocol: port.protocol,
            container_id: owner.map(|owner| owner.id.clone()).unwrap_or_default(),
            container_name: owner.map(|owner| owner.container.name.clone()).unwrap_or_default(),
            address: target.address,
            port: target.port,
        }
    });
    statuses.collect()
}

fn pending<E: Engine>(core: &Core<E>) -> Vec<PendingFailure> {
    let once =
        |object: &str, error: &str| PendingFailure { object: object.to_owned(), error: error.to_owned(), attempts: 1 };
    let unresolved = core.wanted.unresolved.iter().map(|(object, error)| once(object, error));
    let troubles = core.docker.troubles.iter().map(|trouble| once("Docker", trouble));
    core.failures.report().chain(unresolved).chain(troubles).collect()
}

fn ethernet_address(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
