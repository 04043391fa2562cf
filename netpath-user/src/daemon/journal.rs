//! The log's lines about what came and went, in names instead of numbers.
//!
//! Names are remembered for as long as something has them: what leaves is named too.

use std::{collections::BTreeMap, net::Ipv4Addr};

use tracing::{debug, info};

use crate::desired::{
    describe,
    docker::DockerModel,
    host::HostModel,
    model::{Change, Endpoint, IfIndex, State, Uplink},
    ports::{PortBlock, PublishedTarget},
};

/// Names of what is or was there.
#[derive(Debug, Default)]
pub(super) struct Journal {
    links: BTreeMap<IfIndex, String>,
    containers: BTreeMap<Ipv4Addr, Names>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    container: String,
    network: String,
}

/// What a change finds.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The interface of the endpoint or uplink that it replaces.
    interface: Option<IfIndex>,
    /// Where the published ports led that it removes.
    targets: Vec<Ipv4Addr>,
}

impl Before {
    pub(super) fn of(change: &Change, actual: &State) -> Self {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        match change {
            Change::SetEndpoint(address, _) => {
                let interface = actual.endpoints.get(address).map(|endpoint| endpoint.ifindex);
                Self { interface, ..Self::default() }
            }
            Change::SetUplink(ifindex, _) => {
                let interface = actual.uplinks.contains_key(ifindex).then_some(*ifindex);
                Self { interface, ..Self::default() }
            }
            Change::RemovePublished(ports) => {
                let target = |port| actual.published.get(port).map_or(nowhere, |target| target.address);
                Self { targets: ports.iter().map(target).collect(), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

impl Journal {
    /// Learns the names of links. Interface indexes aren't used twice, so names of links that are gone do no harm; they
    /// are forgotten when nothing in the dataplane refers to them.
    pub(super) fn learn_links(&mut self, host: &HostModel, actual: &State) {
        let in_use = |ifindex: &IfIndex| actual.attachments.iter().any(|attachment| attachment.ifindex == *ifindex);
        self.links.retain(|ifindex, _| host.links.contains_key(ifindex) || in_use(ifindex));
        self.links.extend(host.links.iter().map(|(ifindex, link)| (*ifindex, link.name.clone())));
    }

    /// Learns the names of containers and networks.
    pub(super) fn learn_containers(&mut self, docker: &DockerModel, actual: &State) {
        let owners = docker.owners();
        self.containers.retain(|address, _| owners.contains_key(address) || actual.endpoints.contains_key(address));
        for (address, owner) in owners {
            // An address that changes hands at this moment is removed under its old name and added under its new one.
            let names = Names { container: owner.container.name.clone(), network: owner.network.name.clone() };
            self.containers.insert(address, names);
        }
    }

    /// The name of an interface, or its number.
    pub(super) fn link(&self, ifindex: IfIndex) -> String {
        self.links.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"))
    }

    /// One line for each object of a change that has been made.
    pub(super) fn write(&self, change: &Change, before: &Before) {
        match change {
            Change::SetMode(mode) => info!(mode = mode.name(), "mode changes"),
            Change::SetPolicy(policy) => info!(
                default = policy.default.name(),
                rules = policy.groups().count(),
                dry_run = policy.dry_run,
                "policy in force"
            ),
            Change::SetEndpoint(address, endpoint) => self.endpoint(*address, endpoint, before),
            Change::RemoveEndpoint(address) => {
                let Names { container, network } = self.names(*address);
                info!(container, network, %address, "container goes");
            }
            Change::SetPublished(ports) => {
                for (port, target) in ports {
                    self.published(port, *target);
                }
            }
            Change::RemovePublished(ports) => {
                for (port, target) in ports.iter().zip(&before.targets) {
                    info!(%port, container = self.names(*target).container, "published port goes");
                }
            }
            Change::SetUplink(ifindex, uplink) => self.uplink(*ifindex, uplink, before),
            Change::RemoveUplink(ifindex) => info!(uplink = self.link(*ifindex), "uplink goes"),
            Change::SetAdmitted(..) | Change::RemoveAdmitted(_) => debug!(?change, "what an interface lets in changes"),
            Change::AddHostAddress(_)
            | Change::RemoveHostAddress(_)
            | Change::AddHostAddressIpv6(_)
            | Change::RemoveHostAddressIpv6(_) => debug!(?change, "the host's addresses change"),
            Change::Attach(at) => {
                debug!(interface = self.link(at.ifindex), program = describe::hook(at.hook), "attaching");
            }
            Change::Detach(at) => {
                debug!(interface = self.link(at.ifindex), program = describe::hook(at.hook), "detaching");
            }
        }
    }

    fn endpoint(&self, address: Ipv4Addr, endpoint: &Endpoint, before: &Before) {
        let Names { container, network } = self.names(address);
        let veth = self.link(endpoint.ifindex);
        if before.interface == Some(endpoint.ifindex) {
            info!(container, network, %address, veth, "container changes");
        } else {
            info!(container, network, %address, veth, "container comes");
        }
    }

    fn published(&self, port: &PortBlock, target: PublishedTarget) {
        let Names { container, .. } = self.names(target.address);
        let last = target.port.wrapping_add(port.last() - port.first.port);
        let range = if last == target.port { String::new() } else { format!("-{last}") };
        let target = format_args!("{}:{}{range}", target.address, target.port);
        info!(%port, container, %target, "published port comes");
    }

    fn uplink(&self, ifindex: IfIndex, uplink: &Uplink, before: &Before) {
        let name = self.link(ifindex);
        let addresses = addresses(&uplink.addresses).join(" ");
        if before.interface == Some(ifindex) {
            info!(uplink = name, addresses, mtu = uplink.mtu, "uplink changes");
        } else {
            info!(uplink = name, addresses, mtu = uplink.mtu, "uplink comes");
        }
    }

    fn names(&self, address: Ipv4Addr) -> Names {
        self.containers.get(&address).cloned().unwrap_or_default()
    }
}

/// Addresses as `192.0.2.1/24`.
pub(super) fn addresses(addresses: &[(Ipv4Addr, u8)]) -> Vec<String> {
    addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect()
}
