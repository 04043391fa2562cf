//! The one report of `netpath status` and `GET /v1/status`: what the daemon says, joined with what the pins hold.
//!
//! The same shape with and without a daemon. Without one the pins alone speak: they know addresses, interfaces, flows
//! and counters, but neither containers' names nor Docker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use netpath_common::abi;
use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{AttachmentReport, Pins},
    desired::{
        self,
        model::{Hook, IfIndex},
    },
    report::{
        ClosedPortsStatus, DaemonStatus, DockerStatus, EndpointStatus, FirewallStatus, HostAccessStatus, MacvlanStatus,
        NetworkStatus, PendingFailure, UncoveredInterface, UplinkStatus,
    },
    settings::{self, Profile},
};

/// Everything that `netpath status` shows. Fields are added, never renamed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Status {
    /// Whether programs are attached.
    pub attached: bool,
    /// Whether all that is wanted is in the dataplane and Docker's last list has been applied.
    pub in_sync: bool,
    /// `takeover`, `sole`, or empty while it isn't known.
    pub mode: String,
    /// The process.
    pub daemon: Daemon,
    /// The connection to Docker.
    pub docker: DockerStatus,
    /// Uplinks.
    pub uplinks: Vec<UplinkStatus>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Containers' addresses.
    pub endpoints: Vec<EndpointStatus>,
    /// How many ports are published.
    pub published_ports: usize,
    /// The host's own way to published ports.
    pub host_access: HostAccessStatus,
    /// The firewall's rules that netpath would pass by.
    pub firewall: FirewallStatus,
    /// What becomes of datagrams to ports of the host that nobody listens on.
    pub closed_ports: ClosedPortsStatus,
    /// The host's own way to macvlan containers.
    pub macvlan: MacvlanStatus,
    /// Interfaces by which netpath carries nothing: in sole mode those that can't be uplinks, in takeover mode bridges whose
    /// packets Docker's rules get first; none without a daemon.
    pub uncovered: Vec<UncoveredInterface>,
    /// The flow table.
    pub flows: Flows,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
    /// Packets and bytes by the way they took.
    pub traffic: BTreeMap<String, Traffic>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Changes that failed and will be tried again.
    pub pending: Vec<PendingFailure>,
}

/// How long flows may be silent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Timeouts {
    /// `netfilter` or `rfc`.
    pub profile: String,
    /// Whether packets from the world keep a masqueraded UDP flow alive.
    pub inbound_refresh: bool,
    /// Seconds by the keys of the configuration file.
    pub seconds: BTreeMap<String, u32>,
}

/// The daemon's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Daemon {
    /// Whether it answers.
    pub running: bool,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// Where its maps and links are pinned.
    pub pin_dir: Option<PathBuf>,
}

/// A network and how its packets are carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Network {
    /// The network itself.
    #[serde(flatten)]
    pub network: NetworkStatus,
    /// How the bridge's program is attached, `tcx` or `clsact`; absent: it isn't.
    pub datapath: Option<String>,
}

/// How full the flow table is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Flows {
    /// Flows in the table.
    pub used: u64,
    /// Flows that it holds at most.
    pub capacity: u64,
    /// Whether it is time to do something about it.
    pub nearly_full: bool,
}

impl Flows {
    /// From this fill on the table is called nearly full, in percent.
    const NEARLY_FULL_PERCENT: u64 = 90;

    /// A count of the flows in a table.
    #[must_use]
    pub const fn new(used: u64, capacity: u64) -> Self {
        let nearly_full = capacity > 0 && used * 100 >= capacity * Self::NEARLY_FULL_PERCENT;
        Self { used, capacity, nearly_full }
    }
}

/// Packets and bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

impl Status {
    /// What the daemon whose pins are in `pin_dir` says, without what only the pins know.
    #[must_use]
    pub fn of_daemon(daemon: DaemonStatus, pin_dir: &Path) -> Self {
        let attached = daemon.uplinks.iter().any(|uplink| uplink.hook.is_some())
            || daemon.endpoints.iter().any(|endpoint| endpoint.attached);
        Self {
            attached,
            in_sync: daemon.in_sync,
            mode: daemon.mode,
            daemon: Daemon {
                running: true,
                pid: Some(daemon.pid),
                version: Some(daemon.version),
                pin_dir: Some(pin_dir.to_owned()),
            },
            docker: daemon.docker,
            uplinks: daemon.uplinks,
            networks: daemon.networks.into_iter().map(|network| Network { network, ..Network::default() }).collect(),
            endpoints: daemon.endpoints,
            published_ports: daemon.published.len(),
            host_access: daemon.host_access,
            firewall: daemon.firewall,
            closed_ports: daemon.closed_ports,
            macvlan: daemon.macvlan,
            uncovered: daemon.uncovered,
            pending: daemon.pending,
            ..Self::default()
        }
    }

    /// What the pins say when no daemon does.
    ///
    /// # Errors
    ///
    /// When a pinned map can't be read.
    pub fn of_pins(pins: &Pins) -> anyhow::Result<Self> {
        let attachments = pins.attachments().context("listing the pinned links")?;
        let endpoints = pins.endpoints().context("reading the pinned endpoints")?;
        let mut status = Self {
            mode: pins.config().context("reading the pinned configuration")?.mode().name().to_owned(),
            uplinks: uplinks(&pins.uplinks().context("reading the pinned uplinks")?, &attachments),
            networks: networks(&endpoints),
            endpoints: endpoints
                .iter()
                .map(|(address, endpoint)| container(*address, endpoint, &attachments))
                .collect(),
            published_ports: pins
                .published()
                .context("reading the pinned published ports")?
                .keys()
                .map(|block| block.count())
                .sum(),
            host_access: HostAccessStatus { attached: pins.host_access(), error: None },
            macvlan: macvlan(),
            ..Self::default()
        };
        status.add_pins(pins)?;
        Ok(status)
    }

    /// Adds what the pinned links tell: whether anything is attached, and to which bridges.
    ///
    /// # Errors
    ///
    /// When the links can't be listed.
    pub fn add_attachments(&mut self, pins: &Pins) -> anyhow::Result<()> {
        let attachments = pins.attachments().context("listing the pinned links")?;
        self.attached |= !attachments.is_empty();
        add_datapath(&mut self.networks, &attachments);
        Ok(())
    }

    /// Adds all that the pins tell: attachments, flows, counters.
    ///
    /// # Errors
    ///
    /// When a pinned map can't be read.
    pub fn add_pins(&mut self, pins: &Pins) -> anyhow::Result<()> {
        self.add_attachments(pins)?;
        let used = pins.flows_used().context("counting the pinned flows")?;
        self.flows = Flows::new(used, u64::from(pins.flows_capacity()));
        let config = pins.config().context("reading the pinned configuration")?;
        self.timeouts.profile = Profile::numbered(config.timeout_profile).name().to_owned();
        self.timeouts.inbound_refresh = config.inbound_refresh != 0;
        let timeouts = pins.timeouts().context("reading the pinned timeouts")?;
        self.timeouts.seconds =
            timeouts.into_iter().map(|(state, seconds)| (settings::key(state).to_owned(), seconds)).collect();
        let traffic = pins.traffic().context("reading the pinned traffic counters")?;
        self.traffic = traffic
            .into_iter()
            .map(|(path, count)| (path.name().to_owned(), Traffic { packets: count.packets, bytes: count.bytes }))
            .collect();
        let drops = pins.drops().context("reading the pinned drop counters")?;
        self.drops = drops.into_iter().map(|(reason, packets)| (reason.name().to_owned(), packets)).collect();
        Ok(())
    }

    /// One line for the log and for whoever started the daemon.
    #[must_use]
    pub fn summary(&self) -> String {
        let uplinks = match self.uplinks.as_slice() {
            [] => "none".to_owned(),
            uplinks => uplinks.iter().map(describe_uplink).collect::<Vec<_>>().join(", "),
        };
        let (endpoints, ports) = (self.endpoints.len(), self.published_ports);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        format!(
            "netpath is attached: mode {}, uplinks {uplinks}, {endpoints} endpoint{}, {ports} published port{}",
            self.mode,
            plural(endpoints),
            plural(ports),
        )
    }
}

/// `eth0 (tcx, xdp native)`.
fn describe_uplink(uplink: &UplinkStatus) -> String {
    let hook = uplink.hook.as_deref().unwrap_or("not attached");
    let xdp = uplink.xdp_mode.as_deref().unwrap_or("off");
    format!("{} ({hook}, xdp {xdp})", uplink.name)
}

/// How `hook` is attached to `ifindex`.
fn mechanism(attachments: &[AttachmentReport], ifindex: IfIndex, hook: Hook) -> Option<&AttachmentReport> {
    attachments.iter().find(|attachment| attachment.ifindex == ifindex && attachment.hook == hook)
}

fn uplinks(pinned: &[(u32, abi::Uplink)], attachments: &[AttachmentReport]) -> Vec<UplinkStatus> {
    pinned
        .iter()
        .map(|&(ifindex, ref uplink)| UplinkStatus {
            name: interface_name(ifindex),
            ifindex: Some(ifindex),
            addresses: uplink
                .addresses
                .iter()
                .take(usize::try_from(uplink.address_count).unwrap_or(usize::MAX))
                .map(|entry| {
                    format!("{}/{}", Ipv4Addr::from(entry.address), u32::from_be_bytes(entry.mask).count_ones())
                })
                .collect(),
            hook: mechanism(attachments, ifindex, Hook::Uplink).map(|attachment| attachment.mechanism.to_owned()),
            egress: mechanism(attachments, ifindex, Hook::Egress).map(|attachment| attachment.mechanism.to_owned()),
            xdp_mode: mechanism(attachments, ifindex, Hook::XdpUplink)
                .and_then(|attachment| attachment.xdp_mode.map(str::to_owned)),
        })
        .collect()
}

/// The host's own macvlan interfaces, which outlive a daemon.
fn macvlan() -> MacvlanStatus {
    let links = nix::net::if_::if_nameindex().ok();
    let links: Vec<(IfIndex, String)> = links
        .iter()
        .flat_map(|links| links.iter())
        .map(|link| (link.index(), link.name().to_string_lossy().into_owned()))
        .collect();
    let parents = desired::macvlan::parents_of_links(&links);
    MacvlanStatus { host_access: !parents.is_empty(), error: None, parents }
}

/// The networks that the endpoints belong to; Docker's ids and names are the daemon's knowledge.
fn networks(endpoints: &[(Ipv4Addr, abi::Endpoint)]) -> Vec<Network> {
    let bridges: BTreeSet<_> =
        endpoints.iter().map(|(_, endpoint)| (endpoint.network, endpoint.bridge_ifindex)).collect();
    bridges
        .into_iter()
        .map(|(number, bridge_ifindex)| Network {
            network: NetworkStatus {
                bridge: interface_name(bridge_ifindex),
                bridge_ifindex: Some(bridge_ifindex),
                number,
                endpoints: endpoints.iter().filter(|(_, endpoint)| endpoint.network == number).count(),
                ..NetworkStatus::default()
            },
            datapath: None,
        })
        .collect()
}

/// Notes on each network how its bridge's program is attached.
fn add_datapath(networks: &mut [Network], attachments: &[AttachmentReport]) {
    for network in networks {
        network.datapath = network
            .network
            .bridge_ifindex
            .and_then(|ifindex| mechanism(attachments, ifindex, Hook::Bridge))
            .map(|attachment| attachment.mechanism.to_owned());
    }
}

fn container(address: Ipv4Addr, endpoint: &abi::Endpoint, attachments: &[AttachmentReport]) -> EndpointStatus {
    let mac: Vec<_> = endpoint.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    EndpointStatus {
        endpoint_id: String::new(),
        container_id: String::new(),
        container_name: String::new(),
        network_id: String::new(),
        network_name: String::new(),
        address,
        mac: mac.join(":"),
        veth: interface_name(endpoint.ifindex),
        ifindex: endpoint.ifindex,
        attached: mechanism(attachments, endpoint.ifindex, Hook::Container).is_some(),
    }
}

/// The interface's name, empty when it is gone.
fn interface_name(ifindex: IfIndex) -> String {
    nix::net::if_::if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Network, Status, add_datapath, networks, uplinks};
    use crate::{
        dataplane::AttachmentReport,
        desired::model::Hook,
        report::{DaemonStatus, NetworkStatus, UplinkStatus},
    };
    use netpath_common::abi::{Endpoint, Uplink, UplinkAddress};

    fn attachment(ifindex: u32, hook: Hook) -> AttachmentReport {
        let xdp_mode = (hook == Hook::XdpUplink).then_some("generic");
        AttachmentReport { ifindex, hook, mechanism: if xdp_mode.is_some() { "xdp" } else { "tcx" }, xdp_mode }
    }

    #[test]
    fn a_daemon_whose_uplink_has_no_program_is_not_attached() {
        let mut daemon = DaemonStatus { uplinks: vec![UplinkStatus::default()], in_sync: true, ..Default::default() };
        assert!(!Status::of_daemon(daemon.clone(), Path::new("/pins")).attached);
        daemon.uplinks[0].hook = Some("tcx".to_owned());
        let status = Status::of_daemon(daemon, Path::new("/pins"));
        assert!(status.attached && status.in_sync && status.daemon.running);
    }

    #[test]
    fn uplinks_are_told_from_the_pins() {
        let mut uplink: Uplink = bytemuck::Zeroable::zeroed();
        uplink.address_count = 1;
        uplink.addresses[0] = UplinkAddress { address: [192, 0, 2, 1], mask: [255, 255, 255, 0] };
        let told = uplinks(&[(1, uplink)], &[attachment(1, Hook::Uplink), attachment(1, Hook::XdpUplink)]);
        let [told] = told.as_slice() else { panic!("one uplink") };
        assert_eq!((told.name.as_str(), told.addresses.as_slice()), ("lo", ["192.0.2.1/24".to_owned()].as_slice()));
        assert_eq!((told.hook.as_deref(), told.xdp_mode.as_deref()), (Some("tcx"), Some("generic")));
    }

    #[test]
    fn endpoints_of_one_bridge_are_one_network() {
        let endpoint = |network| {
            let zeroed: Endpoint = bytemuck::Zeroable::zeroed();
            Endpoint { network, bridge_ifindex: 1000 + u32::from(network), ..zeroed }
        };
        let pinned = [
            ([172, 17, 0, 2].into(), endpoint(1)),
            ([172, 17, 0, 3].into(), endpoint(1)),
            ([172, 18, 0, 2].into(), endpoint(2)),
        ];
        let told: Vec<_> = networks(&pinned).iter().map(|told| (told.network.number, told.network.endpoints)).collect();
        assert_eq!(told, [(1, 2), (2, 1)]);
    }

    #[test]
    fn a_network_says_how_its_bridge_is_attached() {
        let network = |ifindex| Network {
            network: NetworkStatus { bridge_ifindex: Some(ifindex), ..Default::default() },
            datapath: Some("clsact".to_owned()),
        };
        let mut told = [network(7), network(8)];
        add_datapath(&mut told, &[attachment(7, Hook::Bridge), attachment(8, Hook::Container)]);
        assert_eq!(told.map(|network| network.datapath), [Some("tcx".to_owned()), None]);
    }

    #[test]
    fn the_summary_fits_one_line() {
        let status = Status {
            mode: "takeover".to_owned(),
            uplinks: vec![UplinkStatus {
                name: "eth0".to_owned(),
                hook: Some("tcx".to_owned()),
                xdp_mode: Some("native".to_owned()),
                ..Default::default()
            }],
            published_ports: 1,
            ..Default::default()
        };
        assert_eq!(
            status.summary(),
            "netpath is attached: mode takeover, uplinks eth0 (tcx, xdp native), 0 endpoints, 1 published port"
        );
    }
}
