//! The real dataplane: the one place that writes maps.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use netpath_common::{
    abi::{
        self, Address, Admitted, AdmittedKey, ClosedPorts, Config, Direction, Flow, FlowKey, Ipv6Address, Mode,
        names::{map, program},
    },
    conntrack::PairState,
};
use nix::fcntl::Flock;

use super::{
    AttachmentReport, Dataplane, Options, Pins, PolicyPins,
    attach::{self, Links},
    bpf,
    collector::Collected,
    convert, grace,
    handover::Filter,
    hops::Hops,
    host_access, interface,
    layout::Layout,
    load, programs, remover,
};
use crate::{
    desired::{
        model::{Admission, Change, Endpoint, Entrance, IfIndex, State, Uplink},
        ports::{PortBlock, PublishedTarget},
    },
    report::HostAccessStatus,
};

/// Maps, programs and links in the kernel.
pub struct Kernel {
    pub(super) state: State,
    pub(super) ebpf: Ebpf,
    pub(super) links: Links,
    /// Whether another version's programs are attached still, with maps of their own.
    pub(super) succeeds: bool,
    pub(super) pins: Pins,
    pub(super) hops: Hops,
    pub(super) config: Array<MapData, Config>,
    pub(super) closed_ports: Array<MapData, ClosedPorts>,
    endpoints: HashMap<MapData, Address, abi::Endpoint>,
    admitted: HashMap<MapData, AdmittedKey, Admitted>,
    uplinks: HashMap<MapData, u32, abi::Uplink>,
    host_addresses: HashMap<MapData, Address, u32>,
    host_addresses_ipv6: HashMap<MapData, Ipv6Address, u32>,
    published: MapData,
    policy: PolicyPins,
    pub(super) handover: MapData,
    pub(super) handover_filter: Filter,
    pub(super) cones: MapData,
    /// The bucket of the flow table that the collector goes on at.
    pub(super) sweep: u32,
    pub(super) swept: Collected,
    pub(super) timeouts: BTreeMap<PairState, u32>,
    pub(super) layout: Layout,
    _lock: Flock<File>,
    pub(super) host_access: HostAccessStatus,
    #[cfg(feature = "trace")]
    pub(super) packet_log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl Kernel {
    /// Loads the programs, adopts what is pinned and swaps the programs of pinned links in place.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, pinned maps have another layout, or another daemon works on the same pins.
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let layout = Layout::new(&options.pin_dir);
        layout.prepare()?;
        let lock = layout.lock()?;
        if let Err(error) = grace::put_back_what_is_left(&layout) {
            tracing::warn!(error = %format!("{error:#}"), "the kernel's grace periods stay expedited");
        }
        // The number 0 is no namespace's: without it the programs of sockets do nothing.
        let netns_cookie = interface::netns_cookie().unwrap_or(0);
        let (mut ebpf, table) = load::load(&layout, options.flows_max, netns_cookie)?;
        programs::load(&layout, &mut ebpf, programs::build_of(load::object(), netns_cookie, table))?;
        let links = Links::find(layout.clone(), options.xdp, options.tc)?;
        remover::pin(&layout, attach::classifier(&mut ebpf, program::REMOVE)?)?;
        let mut kernel = Self {
            state: State::default(),
            links,
            succeeds: false,
            pins: Pins::open(&options.pin_dir)?,
            hops: Hops::adopt(typed(&mut ebpf, map::HOPS)?, &layout)?,
            config: typed(&mut ebpf, map::CONFIG)?,
            closed_ports: typed(&mut ebpf, map::CLOSED_PORTS)?,
            endpoints: typed(&mut ebpf, map::ENDPOINTS)?,
            admitted: typed(&mut ebpf, map::ADMITTED)?,
            uplinks: typed(&mut ebpf, map::UPLINKS)?,
            host_addresses: typed(&mut ebpf, map::HOST_ADDRESSES)?,
            host_addresses_ipv6: typed(&mut ebpf, map::HOST_ADDR_IPV6)?,
            published: raw(&mut ebpf, map::PUBLISHED)?,
            policy: PolicyPins::open(&options.pin_dir)?,
            handover: raw(&mut ebpf, map::HANDOVER)?,
            handover_filter: Filter::read(typed(&mut ebpf, map::HANDOVER_FILTER)?)?,
            cones: raw(&mut ebpf, map::CONES)?,
            sweep: 0,
            swept: Collected::default(),
            timeouts: options.timeouts.iter().collect(),
            layout,
            _lock: lock,
            host_access: HostAccessStatus::default(),
            #[cfg(feature = "trace")]
            packet_log: aya_log::EbpfLogger::init(&mut ebpf).context("can't open the programs' log")?,
            ebpf,
        };
        kernel.configure(options)?;
        kernel.succeed()?;
        kernel.state = kernel.read_state()?;
        host_access::let_answers_in(kernel.state.mode);
        // Here, and not when the last such network goes: until then its flows keep their ports.
        let has_cones = kernel.state.endpoints.values().any(|endpoint| endpoint.full_cone);
        kernel.write_cone_timeout(has_cones)?;
        Ok(kernel)
    }

    /// Ends the flows that the policy in force denies, and gives how many there were.
    ///
    /// # Errors
    ///
    /// When maps can't be read, or the kernel doesn't run the program that ends flows.
    pub fn end_denied(&mut self) -> anyhow::Result<u64> {
        let policy = self.policy.packed()?;
        self.end_flows(|key, flow| policy.denies(key, flow))
    }

    /// Ends the flows that fit, which is asked of the directions that opened them, and gives how many there were.
    fn end_flows(&mut self, fits: impl Fn(&FlowKey, &Flow) -> bool) -> anyhow::Result<u64> {
        let mut found = Vec::new();
        self.pins.table.walk(|key, flow| {
            if flow.direction() == Direction::Original && fits(&key, &flow) {
                found.push(key);
            }
        })?;
        let program = attach::classifier(&mut self.ebpf, program::REMOVE)?;
        remover::run(program, &found).context("the program that removes flows failed")
    }

    /// Ends the host's own connections that were led to a container's address which is nobody's any more.
    pub fn end_connections(&self, address: Ipv4Addr) {
        host_access::end_connections(&self.layout, address);
    }

    /// What is attached, and how.
    #[must_use]
    pub fn attachments(&self) -> Vec<AttachmentReport> {
        self.links.reports()
    }

    /// The read-only view of the same maps.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    fn set_mode(&mut self, mode: Mode) -> anyhow::Result<()> {
        host_access::let_answers_in(mode);
        let config = self.pins.config()?;
        self.write_config(Config { mode: mode as u8, ..config })
    }

    fn set_endpoint(&mut self, address: Ipv4Addr, endpoint: &Endpoint) -> anyhow::Result<()> {
        let hop = convert::endpoint_hop(endpoint);
        let old = self.state.endpoints.get(&address);
        let index = match (old, self.endpoint_hop(address)) {
            // The same container with another detail keeps its flows; another container ends them.
            (Some(old), Some(index)) if old.ifindex == endpoint.ifindex && old.mac == endpoint.mac => {
                self.hops.update(index, hop)?;
                index
            }
            (_, Some(index)) => {
                self.hops.replace(index, hop)?;
                index
            }
            (_, None) => self.hops.assign(hop)?,
        };
        if endpoint.full_cone {
            self.write_cone_timeout(true)?;
        }
        let entry = convert::endpoint_entry(endpoint, index);
        self.endpoints.insert(address.octets(), entry, 0).with_context(|| format!("can't write the endpoint {address}"))
    }

    fn remove_endpoint(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let Some(hop) = self.endpoint_hop(address) else { return Ok(()) };
        self.endpoints.remove(&address.octets()).with_context(|| format!("can't remove the endpoint {address}"))?;
        self.hops.release(hop)
    }

    fn endpoint_hop(&self, address: Ipv4Addr) -> Option<u32> {
        self.endpoints.get(&address.octets(), 0).ok().map(|endpoint| endpoint.hop)
    }

    fn set_admitted(&mut self, entrance: Entrance, admission: &Admission) -> anyhow::Result<()> {
        let entry = convert::admitted_entry(entrance, admission);
        self.admitted
            .insert(convert::admitted_key(entrance), entry, 0)
            .with_context(|| format!("can't write what is let in: {entrance:?}"))
    }

    fn remove_admitted(&mut self, entrance: Entrance) -> anyhow::Result<()> {
        match self.admitted.remove(&convert::admitted_key(entrance)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("can't remove what is let in: {entrance:?}")),
        }
    }

    fn set_uplink(&mut self, ifindex: IfIndex, uplink: &Uplink) -> anyhow::Result<()> {
        let hop = convert::uplink_hop(ifindex, uplink);
        let index = match self.uplink_hop(ifindex) {
            Some(index) => {
                self.hops.update(index, hop)?;
                index
            }
            None => self.hops.assign(hop)?,
        };
        let entry = convert::uplink_entry(uplink, index);
        self.uplinks.insert(ifindex, entry, 0).with_context(|| format!("can't write the uplink {ifindex}"))
    }

    fn remove_uplink(&mut self, ifindex: IfIndex) -> anyhow::Result<()> {
        let Some(hop) = self.uplink_hop(ifindex) else { return Ok(()) };
        self.uplinks.remove(&ifindex).with_context(|| format!("can't remove the uplink {ifindex}"))?;
        self.hops.release(hop)
    }

    fn uplink_hop(&self, ifindex: IfIndex) -> Option<u32> {
        self.uplinks.get(&ifindex, 0).ok().map(|uplink| uplink.hop)
    }

    fn set_published(&self, blocks: &[(PortBlock, PublishedTarget)]) -> anyhow::Result<()> {
        let entries: Vec<_> = blocks.iter().map(|(block, target)| convert::published_entry(block, target)).collect();
        let what = || format!("can't write {} blocks of published ports", blocks.len());
        bpf::update(&self.published, &entries).with_context(what)
    }

    fn remove_published(&self, blocks: &[PortBlock]) -> anyhow::Result<()> {
        let keys: Vec<_> = blocks.iter().map(convert::published_key).collect();
        let what = || format!("can't remove {} blocks of published ports", blocks.len());
        bpf::delete(&self.published, &keys).with_context(what)
    }

    fn add_host_address(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.host_addresses
            .insert(address.octets(), 1, 0)
            .with_context(|| format!("can't write the host address {address}"))
    }

    /// An address that the host has lost nobody may send with any more, as the kernel's masquerade has it
    /// (`inet_cmp` in net/netfilter/nf_nat_masquerade.c): flows that leave with it end, and what they send next begins others.
    fn remove_host_address(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        match self.host_addresses.remove(&address.octets()) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("can't remove the host address {address}")),
        }
        let ended = self.end_flows(|key, flow| flow.leaves_with(key, address.octets())).with_context(|| {
            format!("can't end the flows that leave with {address}, which the host hasn't any more")
        })?;
        if ended > 0 {
            tracing::info!(%address, flows = ended, "the host has lost an address; the flows that left with it have ended");
        }
        Ok(())
    }

    fn add_host_address_ipv6(&mut self, address: Ipv6Addr) -> anyhow::Result<()> {
        self.host_addresses_ipv6
            .insert(convert::ipv6_words(address), 1, 0)
            .with_context(|| format!("can't write the host address {address}"))
    }

    fn remove_host_address_ipv6(&mut self, address: Ipv6Addr) -> anyhow::Result<()> {
        match self.host_addresses_ipv6.remove(&convert::ipv6_words(address)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("can't remove the host address {address}")),
        }
    }

    fn make(&mut self, change: &Change) -> anyhow::Result<()> {
        match change {
            Change::SetMode(mode) => self.set_mode(*mode),
            Change::SetPolicy(policy) => self.policy.set(policy),
            Change::SetEndpoint(address, endpoint) => self.set_endpoint(*address, endpoint),
            Change::RemoveEndpoint(address) => self.remove_endpoint(*address),
            Change::SetAdmitted(entrance, admission) => self.set_admitted(*entrance, admission),
            Change::RemoveAdmitted(entrance) => self.remove_admitted(*entrance),
            Change::SetPublished(blocks) => self.set_published(blocks),
            Change::RemovePublished(blocks) => self.remove_published(blocks),
            Change::SetUplink(ifindex, uplink) => self.set_uplink(*ifindex, uplink),
            Change::RemoveUplink(ifindex) => self.remove_uplink(*ifindex),
            Change::AddHostAddress(address) => self.add_host_address(*address),
            Change::RemoveHostAddress(address) => self.remove_host_address(*address),
            Change::AddHostAddressIpv6(address) => self.add_host_address_ipv6(*address),
            Change::RemoveHostAddressIpv6(address) => self.remove_host_address_ipv6(*address),
            Change::Attach(attachment) => self.links.attach(&mut self.ebpf, *attachment),
            Change::Detach(attachment) => self.links.detach(*attachment),
        }
    }

    /// The state that adopted maps and links hold.
    fn read_state(&self) -> anyhow::Result<State> {
        let pins = &self.pins;
        let mut endpoints = BTreeMap::new();
        for (address, endpoint) in pins.endpoints()? {
            endpoints.insert(address, convert::read_endpoint(&endpoint, &pins.hops(endpoint.hop)?));
        }
        let mut admitted = BTreeMap::new();
        for entry in &self.admitted {
            let (key, value) = entry.context("can't read what is let in")?;
            let (entrance, admission) = convert::read_admitted(&key, &value);
            admitted.insert(entrance, admission);
        }
        let mut uplinks = BTreeMap::new();
        for (ifindex, uplink) in pins.uplinks()? {
            uplinks.insert(ifindex, convert::read_uplink(&uplink, &pins.hops(uplink.hop)?));
        }
        let host_addresses = self.host_addresses.keys().map(|address| address.map(Ipv4Addr::from));
        let ipv6 = self.host_addresses_ipv6.keys().map(|words| words.map(convert::read_ipv6));
        Ok(State {
            mode: pins.config()?.mode(),
            policy: self.policy.policy()?,
            endpoints,
            admitted,
            published: pins.published()?,
            uplinks,
            host_addresses: host_addresses.collect::<Result<_, _>>().context("can't read the host's addresses")?,
            host_addresses_ipv6: ipv6.collect::<Result<_, _>>().context("can't read the host's IPv6 addresses")?,
            attachments: self.links.attachments().collect(),
        })
    }
}

impl Dataplane for Kernel {
    fn actual(&self) -> &State {
        &self.state
    }

    fn apply(&mut self, change: &Change) -> anyhow::Result<()> {
        self.make(change)?;
        let left = host_access::left(&self.state, change);
        self.state.apply(change);
        host_access::end_sockets(&self.layout, &left);
        Ok(())
    }
}

fn raw(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<MapData> {
    match ebpf.take_map(name) {
        Some(Map::HashMap(data) | Map::LpmTrie(data)) => Ok(data),
        Some(_) => Err(anyhow!("the map {name} is no hash and no trie")),
        None => Err(anyhow!("the eBPF object lacks the map {name}")),
    }
}

pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<T> {
    let map = ebpf.take_map(name).ok_or_else(|| anyhow!("the eBPF object lacks the map {name}"))?;
    T::try_from(map).with_context(|| format!("the map {name} has another type"))
}
