//! The seam between the packet path and everything that isn't the packet: maps, the kernel's routes and sockets.
//!
//! The kernel side implements it over maps and helpers, tests and the fuzzer over ordinary collections
//! ([`crate::model`]). Time is an argument: see [`Arrival`].

use crate::{
    abi::{
        Address, Admitted, AdmittedKey, ClosedPorts, Cone, ConeKey, ConeOwner, Config, Endpoint, Event, Flow, FlowKey,
        FragmentKey, FragmentPorts, Hop, Ipv6Address, PathCount, Policy, Port, PublishedBlock, PublishedKey, Rate,
        Refusal, Sender, Uplink,
    },
    conntrack::PairState,
    parse::Headers,
    wire::protocol::ICMP,
};

/// Where and when a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The interface.
    pub ifindex: u32,
    /// Nanoseconds of the kernel's monotonic clock.
    pub now_ns: u64,
}

/// Why an entry couldn't be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// The key is there already.
    Exists,
    /// The map is full.
    Full,
}

/// What the kernel's routes say of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It is reached by this interface.
    Via {
        /// The interface.
        ifindex: u32,
        /// The next hop: the gateway, or the destination itself when it is on the link.
        next_hop: Address,
        /// Whether the next hop's Ethernet address is known.
        neighbour: Neighbour,
    },
    /// There is no way, or the destination is the host itself: the kernel knows what to answer.
    Kernel,
}

/// What the kernel knows of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Its Ethernet address.
    Known,
    /// Nothing yet, or that it didn't answer: it is asked for when a packet is sent there.
    Unknown,
}

/// Who is to send the packet that a route is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A container: the query's interface is the one by which the packet came in.
    Container,
    /// The host itself: the query's interface is the one by which the packet is to leave.
    Host,
}

/// A route that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteQuery {
    /// Where the packet comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Type of service.
    pub tos: u8,
    /// Who sends it.
    pub origin: Origin,
    /// The interface that routing takes for its origin: the bridge, as in Docker's own path. For [`Origin::Host`] the uplink.
    pub ifindex: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Source and destination port, which rules may ask for (`ip rule add dport 443`); zero where there are none.
    pub ports: [Port; 2],
}

impl RouteQuery {
    /// Asks for a packet as its sender sent it, which comes from the network of this bridge.
    #[inline(always)]
    #[must_use]
    pub const fn of(headers: &Headers, bridge_ifindex: u32) -> Self {
        let FlowKey { source, destination, protocol, source_port, destination_port, .. } = headers.key;
        // An identifier of ICMP's lies where ports do, and routing doesn't know it.
        let ports = if protocol == ICMP { [[0; 2]; 2] } else { [source_port, destination_port] };
        let (tos, origin, ifindex) = (headers.tos, Origin::Container, bridge_ifindex);
        Self { source, destination, tos, origin, ifindex, protocol, ports }
    }

    /// Asks as the kernel does by itself for a packet that was given to an uplink without a next hop: with the translated
    /// source, and without ports (`__bpf_redirect_neigh_v4` in net/core/filter.c).
    #[inline(always)]
    #[must_use]
    pub const fn of_translated(headers: &Headers, source: Address, uplink_ifindex: u32) -> Self {
        let FlowKey { destination, protocol, .. } = headers.key;
        let (tos, origin, ifindex, ports) = (headers.tos, Origin::Host, uplink_ifindex, [[0; 2]; 2]);
        Self { source, destination, tos, origin, ifindex, protocol, ports }
    }
}

/// Where a published port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The container's address; an entry of the map of endpoints.
    pub address: Address,
    /// The container's port.
    pub port: Port,
    /// Zero, which the verifier can't see.
    pub reserved: [u8; 2],
}

impl Published {
    /// Where a port of a block leads that was asked for.
    #[inline(always)]
    #[must_use]
    pub const fn of(block: PublishedBlock, asked: Port) -> Self {
        let port = u16::from_be_bytes(asked).wrapping_add(block.shift);
        Self { address: block.address, port: port.to_be_bytes(), reserved: block.reserved }
    }
}

/// Maps, routes and sockets.
pub trait Tables {
    /// A handle to an entry of the flow table.
    type Entry: Copy;

    /// Looks a flow up.
    fn flow(&self, key: &FlowKey) -> Option<Self::Entry>;

    /// Reads an entry.
    fn load(&self, entry: Self::Entry) -> Flow;

    /// Writes when an entry was last seen and what it has shown.
    fn touch(&mut self, entry: Self::Entry, now_ns: u64, seen: u8);

    /// Writes the sequence numbers that an entry has come to: [`Flow::sequence_end`] and [`Flow::acknowledged`].
    fn follow(&mut self, entry: Self::Entry, sequence_end: u32, acknowledged: u32);

    /// Writes where an entry's packets go behind their uplink: the number of a [`crate::abi::NextHop`].
    fn lead(&mut self, entry: Self::Entry, next_hop: u8);

    /// How an entry's pair stands: what [`crate::conntrack::standing`] says. The kernel's is a function that the verifier goes through
    /// once, and not again from each place that asks.
    fn standing(&self, entry: Self::Entry, protocol: u8, now_ns: u64) -> u32;

    /// How long a pair in a state may be silent, in seconds.
    fn timeout_s(&self, state: PairState) -> u32;

    /// Whether no flow may be translated to a port (host order), whatever its protocol.
    fn is_reserved_port(&self, port: u16) -> bool;

    /// Says that a key is about to be inserted, for its place to be on its way from memory by then.
    fn foresee_flow(&self, key: &FlowKey);

    /// Inserts a flow that isn't there yet; atomic against other CPUs.
    ///
    /// # Errors
    ///
    /// The key exists, or the table is full.
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError>;

    /// Remembers the key of a new flow, at the place that a hash of it gives.
    fn remember_recent(&mut self, hash: u32, key: &FlowKey);

    /// The key at a place; it may be that of a flow long gone.
    fn recent(&self, hash: u32) -> Option<FlowKey>;

    /// Whether netpath may answer one more packet by itself now: answers are few, whatever comes.
    fn may_answer(&mut self, now_ns: u64) -> bool;

    /// Removes a flow; nothing happens when it isn't there.
    fn remove_flow(&mut self, key: &FlowKey);

    /// Who has a port of the host.
    fn cone(&self, key: &ConeKey) -> Option<Cone>;

    /// Writes when it was last refreshed; nothing happens when nobody has it.
    fn touch_cone(&mut self, key: &ConeKey, now_ns: u64);

    /// Gives a port away that nobody has; atomic against other CPUs.
    ///
    /// # Errors
    ///
    /// Somebody has it, or the table is full.
    fn insert_cone(&mut self, key: &ConeKey, cone: &Cone) -> Result<(), InsertError>;

    /// Takes a port back; nothing happens when nobody has it.
    fn remove_cone(&mut self, key: &ConeKey);

    /// The port of a container's cone, which may have ended.
    fn cone_port(&self, owner: &ConeOwner) -> Option<Port>;

    /// Remembers the port of a container's cone.
    fn set_cone_port(&mut self, owner: &ConeOwner, port: Port);

    /// Forgets the port of a container's cone.
    fn remove_cone_port(&mut self, owner: &ConeOwner);

    /// The configuration.
    fn config(&self) -> Config;

    /// An endpoint by its address.
    fn endpoint(&self, address: Address) -> Option<Endpoint>;

    /// What an interface lets in.
    fn admitted(&self, key: &AdmittedKey) -> Option<Admitted>;

    /// A hop by its index.
    fn hop(&self, index: u32) -> Option<Hop>;

    /// The smallest block of published ports that a port is in.
    fn published(&self, key: &PublishedKey) -> Option<PublishedBlock>;

    /// An uplink by its interface.
    fn uplink(&self, ifindex: u32) -> Option<Uplink>;

    /// Whether an address is one of the host's own.
    fn is_host_address(&self, address: Address) -> bool;

    /// Whether an IPv6 address is one of the host's own.
    fn is_host_address_ipv6(&self, address: Ipv6Address) -> bool;

    /// Whether a flow stays with nf_conntrack; keeps it there for another of its timeouts.
    fn is_handed_over(&mut self, key: &FlowKey, now_ns: u64) -> bool;

    /// Remembers the ports of a fragmented datagram.
    fn remember_fragment(&mut self, key: &FragmentKey, ports: &FragmentPorts);

    /// The ports of a fragmented datagram.
    fn fragment_ports(&self, key: &FragmentKey) -> Option<FragmentPorts>;

    /// Asks the kernel's routes.
    fn route(&self, query: &RouteQuery) -> Route;

    /// Whether a socket of the host would take a packet with this tuple: a listener on the destination port or a
    /// connection of the host itself.
    fn host_socket_takes(&self, key: &FlowKey) -> bool;

    /// What becomes of datagrams to closed ports.
    fn closed_ports(&self) -> Option<&ClosedPorts>;

    /// What is noted about the senders of a place.
    fn sender(&self, place: u32) -> Sender;

    /// Writes [`Sender::full_at_ns`].
    fn spend_of_sender(&mut self, place: u32, full_at_ns: u64);

    /// Writes [`Sender::asked_at_ns`].
    fn ask_sender(&mut self, place: u32, now_ns: u64);

    /// Whether the kernel may get one more datagram to a closed port now, whoever sent it.
    fn may_ask_kernel(&mut self, rate: &Rate, now_ns: u64) -> bool;

    /// The last refusal of a place.
    fn refusal(&self, place: u32) -> Refusal;

    /// Writes the last refusal of a place.
    fn set_refusal(&mut self, place: u32, refusal: Refusal);

    /// Whether somebody listens to events now.
    fn is_listened_to(&self, now_ns: u64) -> bool;

    /// Tells whoever listens of a flow that has begun or ended. What can't be told is counted as lost. The event is made where it is
    /// told, and doesn't lie on the stack meanwhile.
    fn announce(&mut self, event: impl FnOnce(&Self) -> Event);

    /// The operator's policy that is in force; `None` is as good as one without rules.
    fn policy(&self) -> Option<&Policy>;

    /// Counts one packet of `bytes` that a rule of the policy fitted, or none did.
    fn count_policy(&mut self, counter: u16, bytes: u32);

    /// Counts one packet of `bytes` on its way.
    fn count(&mut self, path: PathCount, bytes: u32);
}
