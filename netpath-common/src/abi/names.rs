//! Names of maps, programs and pins. No other file spells one.
//!
//! A map's pin is named `<map>_v<SCHEMA>`: a daemon with another schema doesn't mistake it for its own.

/// Version of all map layouts together. Raised when a type in [`crate::abi`] or the meaning of a field changes.
pub const SCHEMA: u32 = 6;

/// Map names, as declared in the eBPF object.
pub mod map {
    /// The flow table as a whole: index 0 to [`crate::abi::FlowTable`].
    pub const FLOW_TABLE: &str = "FLOW_TABLE";
    /// The flow table's entries: bucket to [`crate::abi::FlowBucket`].
    pub const FLOW_BUCKETS: &str = "FLOW_BUCKETS";
    /// Which of the entries there are: region to [`crate::abi::FlowRegion`].
    pub const FLOW_TAGS: &str = "FLOW_TAGS";
    /// Who may write to a bucket: region to the kernel's `bpf_spin_lock`.
    pub const FLOW_LOCKS: &str = "FLOW_LOCKS";
    /// Endpoints: address to [`crate::abi::Endpoint`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// What interfaces let in: [`crate::abi::AdmittedKey`] to [`crate::abi::Admitted`].
    pub const ADMITTED: &str = "ADMITTED";
    /// Hops: index to [`crate::abi::Hop`].
    pub const HOPS: &str = "HOPS";
    /// Published ports in blocks: [`crate::abi::PublishedKey`] to [`crate::abi::PublishedBlock`].
    pub const PUBLISHED: &str = "PUBLISHED";
    /// Uplinks: ifindex to [`crate::abi::Uplink`].
    pub const UPLINKS: &str = "UPLINKS";
    /// The host's own addresses: address to 1.
    pub const HOST_ADDRESSES: &str = "HOST_ADDRESSES";
    /// The host's own IPv6 addresses: address to 1.
    pub const HOST_ADDR_IPV6: &str = "HOST_ADDR_IPV6";
    /// Flows that stay with nf_conntrack: [`crate::abi::FlowKey`] to [`crate::abi::Handover`].
    pub const HANDOVER: &str = "HANDOVER";
    /// Which keys may be there: bits at [`crate::abi::Handover::place`].
    pub const HANDOVER_FILTER: &str = "HANDOVER_FILTER";
    /// Ports of a fragmented datagram: [`crate::abi::FragmentKey`] to [`crate::abi::FragmentPorts`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// The configuration: index 0 to [`crate::abi::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// Timeouts in seconds by [`crate::conntrack::PairState`].
    pub const TIMEOUTS: &str = "TIMEOUTS";
    /// Bits of ports that no flow is translated to, 64 in a word.
    pub const RESERVED_PORTS: &str = "RESERVED_PORTS";
    /// What the host's sockets asked for: [`crate::abi::AskedKey`] to [`crate::abi::Asked`].
    pub const ASKED: &str = "ASKED";
    /// Dropped packets by [`crate::drop::DropReason`], per CPU.
    pub const DROPS: &str = "DROPS";
    /// Packets and bytes by [`crate::abi::PathCount`], per CPU.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// Ports of the host that belong to containers: [`crate::abi::ConeKey`] to [`crate::abi::Cone`].
    pub const CONES: &str = "CONES";
    /// The way to a cone from inside: [`crate::abi::ConeOwner`] to the host's port.
    pub const CONE_PORTS: &str = "CONE_PORTS";

    /// What becomes of datagrams to closed ports of the host: index 0 to [`crate::abi::ClosedPorts`].
    pub const CLOSED_PORTS: &str = "CLOSED_PORTS";
    /// What is noted about senders: hash of the address to [`crate::abi::Sender`].
    pub const SENDERS: &str = "SENDERS";

    /// Flows that begin and end: a ring buffer of [`crate::abi::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Until when somebody listens to events: index 0 to nanoseconds of the monotonic clock.
    pub const LISTENER: &str = "LISTENER";

    /// The operator's policy, the list in force and the last one: place to [`crate::abi::Policy`].
    pub const POLICIES: &str = "POLICIES";
    /// Which of the policies is in force: index 0 to its place.
    pub const POLICY_IN_FORCE: &str = "POLICY_IN_FORCE";
    /// Packets and bytes that a rule of the policy fitted: [`crate::abi::Traffic`], per CPU.
    pub const POLICY_HITS: &str = "POLICY_HITS";

    /// Every map, in the order above. All of them are pinned.
    pub const ALL: &[&str] = &[
        FLOW_TABLE,
        FLOW_BUCKETS,
        FLOW_TAGS,
        FLOW_LOCKS,
        ENDPOINTS,
        ADMITTED,
        HOPS,
        PUBLISHED,
        UPLINKS,
        HOST_ADDRESSES,
        HOST_ADDR_IPV6,
        HANDOVER,
        HANDOVER_FILTER,
        FRAGMENTS,
        CONFIG,
        TIMEOUTS,
        RESERVED_PORTS,
        ASKED,
        DROPS,
        TRAFFIC,
        CONES,
        CONE_PORTS,
        CLOSED_PORTS,
        SENDERS,
        EVENTS,
        LISTENER,
        POLICIES,
        POLICY_IN_FORCE,
        POLICY_HITS,
    ];
}

/// Program names, as declared in the eBPF object. At most 15 characters, so that the kernel shows them whole.
pub mod program {
    /// XDP in an uplink's driver: early drops.
    pub const XDP_UPLINK: &str = "np_xdp_uplink";
    /// The same behind the driver.
    pub const XDP_GENERIC: &str = "np_xdp_generic";
    /// tc ingress on an uplink: packets from the wire.
    pub const UPLINK: &str = "np_uplink";
    /// tc egress on an uplink: the host's own packets to the world.
    pub const EGRESS: &str = "np_egress";
    /// tc ingress on the host side of a container's veth: packets from the container.
    pub const CONTAINER: &str = "np_container";
    /// tc egress on a bridge: packets from the host to its containers.
    pub const BRIDGE: &str = "np_bridge";
    /// tc egress on the loopback interface: the host's datagrams to its IPv6 addresses.
    pub const LOOPBACK: &str = "np_loopback";
    /// Never attached: deletes expired flows that userspace hands it as packet data.
    pub const COLLECT: &str = "np_collect";
    /// Never attached: removes cones that have ended, which userspace hands it as packet data.
    pub const COLLECT_CONES: &str = "np_collect_cone";
    /// Never attached, but pinned: removes the flows that userspace hands it as packet data, whatever their state.
    pub const REMOVE: &str = "np_remove";

    /// cgroup, connect() of IPv4: the host's sockets on their way to a published port.
    pub const CONNECT4: &str = "np_connect4";
    /// The same for IPv6.
    pub const CONNECT6: &str = "np_connect6";
    /// cgroup, sendto() of IPv4 on a UDP socket that isn't connected.
    pub const SENDMSG4: &str = "np_sendmsg4";
    /// The same for IPv6: only remembers what was asked.
    pub const SENDMSG6: &str = "np_sendmsg6";
    /// cgroup, recvfrom() of IPv4 on a UDP socket.
    pub const RECVMSG4: &str = "np_recvmsg4";
    /// The same for IPv6.
    pub const RECVMSG6: &str = "np_recvmsg6";
    /// cgroup, getpeername() of IPv4.
    pub const GETPEERNAME4: &str = "np_getpeername4";
    /// The same for IPv6.
    pub const GETPEERNAME6: &str = "np_getpeername6";

    /// The programs of the host's sockets.
    pub const SOCKETS: &[&str] =
        &[CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, RECVMSG4, RECVMSG6, GETPEERNAME4, GETPEERNAME6];
}

/// Variables of the eBPF object that the loader sets.
pub mod variable {
    /// The kernel's number of the network namespace that netpath works for, a `u64`.
    pub const HOST_NETNS_COOKIE: &str = "HOST_NETNS_COOKIE";
    /// [`crate::abi::FlowTable::seed`], a `u64`.
    pub const FLOW_SEED: &str = "FLOW_SEED";
    /// [`crate::abi::FlowTable::entries_max`], a `u32`.
    pub const FLOW_ENTRIES_MAX: &str = "FLOW_ENTRIES_MAX";
    /// How many regions the flow table has ([`crate::flow_table::regions`]), a `u32`.
    pub const FLOW_REGIONS: &str = "FLOW_REGIONS";
}
