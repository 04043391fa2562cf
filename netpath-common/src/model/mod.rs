//! A slow and simple model of everything that isn't the packet: tables in ordinary collections, routes and sockets as
//! a test sets them. For tests and the fuzzer.

mod exercise;
mod sums;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

pub use exercise::{exercise, seeds};

use crate::{
    abi::{
        Address, Admitted, AdmittedKey, ClosedPorts, Cone, ConeKey, ConeOwner, Config, Endpoint, Event, Flow, FlowKey,
        FragmentKey, FragmentPorts, Hop, HopKind, Ipv6Address, Mode, PathCount, Policy, Port, PublishedBlock,
        PublishedKey, Rate, Refusal, Sender, Uplink, UplinkAddress,
    },
    conntrack::{self, PairState},
    nat::answer::spend,
    tables::{InsertError, Neighbour, Origin, Route, RouteQuery, Tables},
};

/// Tables in memory.
#[derive(Debug, Clone)]
pub struct Model {
    /// The flow table.
    pub flows: HashMap<FlowKey, Flow>,
    /// How many entries it takes.
    pub flows_max: usize,
    /// Who has which port of the host.
    pub cones: HashMap<ConeKey, Cone>,
    /// The ports of containers' cones.
    pub cone_ports: HashMap<ConeOwner, Port>,
    /// The configuration.
    pub config: Config,
    /// Endpoints by address.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// What interfaces let in.
    pub admitted: BTreeMap<AdmittedKey, Admitted>,
    /// Hops by index.
    pub hops: BTreeMap<u32, Hop>,
    /// Blocks of published ports.
    pub published: HashMap<PublishedKey, PublishedBlock>,
    /// Uplinks by interface.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// The host's addresses.
    pub host_addresses: BTreeSet<Address>,
    /// The host's IPv6 addresses.
    pub host_addresses_ipv6: BTreeSet<Ipv6Address>,
    /// Flows of nf_conntrack.
    pub handover: HashSet<FlowKey>,
    /// Ports of fragmented datagrams.
    pub fragments: HashMap<FragmentKey, FragmentPorts>,
    /// What every route query gets.
    pub route: Route,
    /// What those for the host's own packets get instead; absent: the same.
    pub own_route: Option<Route>,
    /// The last of them.
    pub asked_route: Cell<Option<RouteQuery>>,
    /// Tuples that a host socket takes.
    pub sockets: HashSet<FlowKey>,
    /// Timeouts that aren't the states' own.
    pub timeouts: HashMap<PairState, u32>,
    /// Ports that no flow is translated to.
    pub reserved_ports: BTreeSet<u16>,
    /// Keys of new flows.
    pub recent: [Option<FlowKey>; Self::RECENT],
    /// The budget of answers ([`spend`]).
    pub answers_full_at_ns: u64,
    /// Packets by way.
    pub counts: BTreeMap<u32, u64>,
    /// Whether somebody listens to events.
    pub listened_to: bool,
    /// What was announced.
    pub events: Vec<Event>,
    /// The operator's policy.
    pub policy: Policy,
    /// How often a rule of the policy fitted, by its counter.
    pub policy_hits: BTreeMap<u16, u64>,
    /// What becomes of datagrams to closed ports.
    pub closed_ports: ClosedPorts,
    /// What is noted about senders.
    pub senders: BTreeMap<u32, Sender>,
    /// Refused datagrams to closed ports.
    pub refusals: BTreeMap<u32, Refusal>,
    /// The budget of datagrams to closed ports.
    pub closed_full_at_ns: u64,
    /// How often a flow was looked up.
    pub looks: Cell<u64>,
}

impl Model {
    /// Places for the keys of new flows.
    pub const RECENT: usize = 16;
    /// The uplink's interface.
    pub const UPLINK: u32 = 2;
    /// The bridge's interface.
    pub const BRIDGE: u32 = 3;
    /// The host's address on the uplink.
    pub const HOST: Address = [198, 51, 100, 1];
    /// A host on the wire.
    pub const REMOTE: Address = [198, 51, 100, 2];
    /// The bridge's address.
    pub const GATEWAY: Address = [172, 17, 0, 1];

    /// A host with one uplink, one bridge and two containers, 172.17.0.2 behind interface 12 and 172.17.0.3 behind 13.
    /// TCP and UDP port 8080 of every address lead to port 80 of the first.
    #[must_use]
    pub fn host(mode: Mode) -> Self {
        let mut uplink = Uplink {
            hop: 0,
            address_count: 1,
            addresses: [UplinkAddress { address: [0; 4], mask: [0; 4] }; Uplink::ADDRESSES_MAX],
        };
        uplink.addresses[0] = UplinkAddress { address: Self::HOST, mask: [255, 255, 255, 0] };
        let mut model = Self {
            flows: HashMap::new(),
            flows_max: 1024,
            cones: HashMap::new(),
            cone_ports: HashMap::new(),
            config: Config {
                mode: mode as u8,
                opens_flows: 1,
                port_first: 32768,
                port_last: 60999,
                inbound_refresh: 1,
                timeout_profile: 0,
                cone_timeout_s: 0,
                port_seed: 42,
            },
            endpoints: BTreeMap::new(),
            admitted: BTreeMap::new(),
            hops: BTreeMap::from([(0, Self::hop(HopKind::Uplink, Self::UPLINK, [0; 6]))]),
            published: HashMap::new(),
            uplinks: BTreeMap::from([(Self::UPLINK, uplink)]),
            host_addresses: BTreeSet::from([Self::HOST, Self::GATEWAY]),
            host_addresses_ipv6: BTreeSet::new(),
            handover: HashSet::new(),
            fragments: HashMap::new(),
            route: Route::Via { ifindex: Self::UPLINK, next_hop: Self::REMOTE, neighbour: Neighbour::Known },
            own_route: None,
            asked_route: Cell::new(None),
            sockets: HashSet::new(),
            timeouts: HashMap::new(),
            reserved_ports: BTreeSet::new(),
            recent: [None; Self::RECENT],
            answers_full_at_ns: 0,
            counts: BTreeMap::new(),
            listened_to: false,
            events: Vec::new(),
            policy: Policy::NONE,
            policy_hits: BTreeMap::new(),
            closed_ports: ClosedPorts::KERNEL,
            senders: BTreeMap::new(),
            refusals: BTreeMap::new(),
            closed_full_at_ns: 0,
            looks: Cell::new(0),
        };
        model.add_endpoint([172, 17, 0, 2], 12);
        model.add_endpoint([172, 17, 0, 3], 13);
        for protocol in [6, 17] {
            model.publish(([0; 4], 8080), protocol, ([172, 17, 0, 2], 80));
        }
        model
    }

    /// Adds a container on the bridge.
    pub fn add_endpoint(&mut self, address: Address, ifindex: u32) {
        let mac = Self::mac(ifindex);
        self.hops.insert(ifindex, Self::hop(HopKind::Endpoint, ifindex, mac));
        let endpoint = Endpoint {
            ifindex,
            bridge_ifindex: Self::BRIDGE,
            hop: ifindex,
            network: 1,
            mac,
            gateway: Self::GATEWAY,
            masquerade: [0; 4],
            terms: 0,
            full_cone: 0,
            reserved: 0,
        };
        self.endpoints.insert(address, endpoint);
        let admitted = Admitted { admits: Admitted::SENDS, network: 1, terms: 0 };
        self.admitted.insert(AdmittedKey::veth(ifindex), admitted);
    }

    /// Publishes a port of a host address (0.0.0.0: of each) as one of a container's.
    pub fn publish(&mut self, on: (Address, u16), protocol: u8, target: (Address, u16)) {
        self.publish_block(on, 0, protocol, target);
    }

    /// Publishes the 2^`bits` ports that begin with this one, a multiple of their number, as as many of a container's.
    pub fn publish_block(&mut self, on: (Address, u16), bits: u32, protocol: u8, target: (Address, u16)) {
        let one = PublishedKey::port(on.0, protocol, on.1.to_be_bytes());
        let key = PublishedKey { prefix_len: PublishedKey::BITS - bits, ..one };
        let block = PublishedBlock { address: target.0, shift: target.1.wrapping_sub(on.1), reserved: [0; 2] };
        self.published.insert(key, block);
    }

    /// Puts a container on another network, or gives its network a terms, and its veth with it.
    pub fn set_network(&mut self, address: Address, network: u16, terms: u16) {
        let Some(endpoint) = self.endpoints.get_mut(&address) else { return };
        endpoint.network = network;
        endpoint.terms = terms;
        let admitted = Admitted { admits: Admitted::SENDS, network, terms };
        self.admitted.insert(AdmittedKey::veth(endpoint.ifindex), admitted);
    }

    /// Gives the UDP ports of a container cones.
    pub fn open_cones(&mut self, address: Address) {
        self.config.cone_timeout_s = PairState::UdpStream.default_timeout_s();
        if let Some(endpoint) = self.endpoints.get_mut(&address) {
            endpoint.full_cone = 1;
        }
    }

    /// The Ethernet address of the container behind an interface.
    #[must_use]
    pub const fn mac(ifindex: u32) -> [u8; 6] {
        let [_, _, _, last] = ifindex.to_be_bytes();
        [2, 0, 0, 0, 0, last]
    }

    /// How often a way was taken.
    #[must_use]
    pub fn counted(&self, path: PathCount) -> u64 {
        self.counts.get(&(path as u32)).copied().unwrap_or(0)
    }

    const fn hop(kind: HopKind, ifindex: u32, destination_mac: [u8; 6]) -> Hop {
        Hop {
            ifindex,
            mtu: 1500,
            generation: 1,
            kind: kind as u8,
            takes_frames: if kind as u8 == HopKind::Endpoint as u8 { 1 } else { 0 },
            addresses: Hop::addresses(destination_mac, [2, 0, 0, 0, 0, 1]),
        }
    }
}

impl Tables for Model {
    type Entry = FlowKey;

    fn flow(&self, key: &FlowKey) -> Option<FlowKey> {
        self.looks.set(self.looks.get() + 1);
        self.flows.contains_key(key).then_some(*key)
    }

    fn load(&self, entry: FlowKey) -> Flow {
        self.flows[&entry]
    }

    fn touch(&mut self, entry: FlowKey, now_ns: u64, seen: u8) {
        if let Some(flow) = self.flows.get_mut(&entry) {
            flow.last_seen_ns = now_ns;
            flow.seen = seen;
        }
    }

    fn lead(&mut self, entry: FlowKey, next_hop: u8) {
        if let Some(flow) = self.flows.get_mut(&entry) {
            flow.next_hop = next_hop;
        }
    }

    fn follow(&mut self, entry: FlowKey, sequence_end: u32, acknowledged: u32) {
        if let Some(flow) = self.flows.get_mut(&entry) {
            flow.sequence_end = sequence_end;
            flow.acknowledged = acknowledged;
        }
    }

    fn standing(&self, entry: Self::Entry, protocol: u8, now_ns: u64) -> u32 {
        conntrack::standing(self, entry, protocol, now_ns)
    }

    fn timeout_s(&self, state: PairState) -> u32 {
        self.timeouts.get(&state).copied().unwrap_or(state.default_timeout_s())
    }

    fn is_reserved_port(&self, port: u16) -> bool {
        self.reserved_ports.contains(&port)
    }

    fn foresee_flow(&self, _key: &FlowKey) {}

    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        if self.flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if self.flows.len() >= self.flows_max {
            return Err(InsertError::Full);
        }
        self.flows.insert(*key, *flow);
        Ok(())
    }

    fn remember_recent(&mut self, hash: u32, key: &FlowKey) {
        self.recent[hash as usize % Self::RECENT] = Some(*key);
    }

    fn recent(&self, hash: u32) -> Option<FlowKey> {
        self.recent[hash as usize % Self::RECENT]
    }

    fn may_answer(&mut self, now_ns: u64) -> bool {
        spend(&mut self.answers_full_at_ns, now_ns)
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    fn cone(&self, key: &ConeKey) -> Option<Cone> {
        self.cones.get(key).copied()
    }

    fn touch_cone(&mut self, key: &ConeKey, now_ns: u64) {
        if let Some(cone) = self.cones.get_mut(key) {
            cone.last_seen_ns = now_ns;
        }
    }

    fn insert_cone(&mut self, key: &ConeKey, cone: &Cone) -> Result<(), InsertError> {
        if self.cones.contains_key(key) {
            return Err(InsertError::Exists);
        }
        self.cones.insert(*key, *cone);
        Ok(())
    }

    fn remove_cone(&mut self, key: &ConeKey) {
        self.cones.remove(key);
    }

    fn cone_port(&self, owner: &ConeOwner) -> Option<Port> {
        self.cone_ports.get(owner).copied()
    }

    fn set_cone_port(&mut self, owner: &ConeOwner, port: Port) {
        self.cone_ports.insert(*owner, port);
    }

    fn remove_cone_port(&mut self, owner: &ConeOwner) {
        self.cone_ports.remove(owner);
    }

    fn config(&self) -> Config {
        self.config
    }

    fn endpoint(&self, address: Address) -> Option<Endpoint> {
        self.endpoints.get(&address).copied()
    }

    fn admitted(&self, key: &AdmittedKey) -> Option<Admitted> {
        self.admitted.get(key).copied()
    }

    fn hop(&self, index: u32) -> Option<Hop> {
        self.hops.get(&index).copied()
    }

    fn published(&self, key: &PublishedKey) -> Option<PublishedBlock> {
        // What the kernel's trie compares, bit by bit.
        let bits = |key: &PublishedKey| {
            let [port, last] = key.port;
            let [a, b, c, d] = key.address;
            u64::from_be_bytes([a, b, c, d, key.protocol, key.reserved, port, last])
        };
        let is_in = |block: &PublishedKey| (bits(block) ^ bits(key)).leading_zeros() >= block.prefix_len;
        let blocks = self.published.iter().filter(|(block, _)| is_in(block));
        blocks.max_by_key(|(block, _)| block.prefix_len).map(|(_, target)| *target)
    }

    fn uplink(&self, ifindex: u32) -> Option<Uplink> {
        self.uplinks.get(&ifindex).copied()
    }

    fn is_host_address(&self, address: Address) -> bool {
        self.host_addresses.contains(&address)
    }

    fn is_host_address_ipv6(&self, address: Ipv6Address) -> bool {
        self.host_addresses_ipv6.contains(&address)
    }

    fn is_handed_over(&mut self, key: &FlowKey, _now_ns: u64) -> bool {
        self.handover.contains(key)
    }

    fn remember_fragment(&mut self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.insert(*key, *ports);
    }

    fn fragment_ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.get(key).copied()
    }

    fn route(&self, query: &RouteQuery) -> Route {
        self.asked_route.set(Some(*query));
        if query.origin == Origin::Host { self.own_route.unwrap_or(self.route) } else { self.route }
    }

    fn host_socket_takes(&self, key: &FlowKey) -> bool {
        self.sockets.contains(key)
    }

    fn closed_ports(&self) -> Option<&ClosedPorts> {
        Some(&self.closed_ports)
    }

    fn sender(&self, place: u32) -> Sender {
        self.senders.get(&place).copied().unwrap_or(Sender { full_at_ns: 0, asked_at_ns: 0 })
    }

    fn spend_of_sender(&mut self, place: u32, full_at_ns: u64) {
        let sender = Sender { full_at_ns, ..self.sender(place) };
        self.senders.insert(place, sender);
    }

    fn ask_sender(&mut self, place: u32, now_ns: u64) {
        let sender = Sender { asked_at_ns: now_ns, ..self.sender(place) };
        self.senders.insert(place, sender);
    }

    fn may_ask_kernel(&mut self, rate: &Rate, now_ns: u64) -> bool {
        rate.spend(&mut self.closed_full_at_ns, now_ns)
    }

    fn refusal(&self, place: u32) -> Refusal {
        self.refusals.get(&place).copied().unwrap_or(Refusal(0))
    }

    fn set_refusal(&mut self, place: u32, refusal: Refusal) {
        self.refusals.insert(place, refusal);
    }

    fn is_listened_to(&self, _now_ns: u64) -> bool {
        self.listened_to
    }

    fn announce(&mut self, event: impl FnOnce(&Self) -> Event) {
        let event = event(self).of_original();
        self.events.push(event);
    }

    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn count_policy(&mut self, counter: u16, _bytes: u32) {
        *self.policy_hits.entry(counter).or_default() += 1;
    }

    fn count(&mut self, path: PathCount, _bytes: u32) {
        *self.counts.entry(path as u32).or_default() += 1;
    }
}
