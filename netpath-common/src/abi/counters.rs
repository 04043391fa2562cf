//! Counters by the way that packets took.

use super::abi;
use crate::counted::counted;

abi! {
    /// Packets and bytes (of the frame) on one CPU.
    pub struct Traffic[16] {
        /// Packets; a merged (GRO or GSO) packet counts once.
        pub packets: u64,
        /// Bytes of the frames.
        pub bytes: u64,
    }
}

counted! {
    /// The way a packet took. The number is the index in the map `TRAFFIC`.
    PathCount:

    /// Container to world, source translated.
    MasqueradeOut = 0, "masquerade_out";
    /// World to container, answer to a masqueraded flow.
    MasqueradeIn = 1, "masquerade_in";
    /// World to container through a published port.
    PublishedIn = 2, "published_in";
    /// Container to world, answer from a published port.
    PublishedOut = 3, "published_out";
    /// Container to container of one network.
    Local = 4, "local";
    /// Host to container.
    HostToContainer = 5, "host_to_container";
    /// Container to the host itself.
    ContainerToHost = 6, "container_to_host";
    /// ICMP errors translated with the flow that they quote.
    IcmpError = 7, "icmp_error";
    /// Left to the kernel: the flow belongs to nf_conntrack.
    Handover = 8, "handover";
    /// Left to the kernel: not netpath's to carry (other protocols, broadcast, addresses of others).
    ToKernel = 9, "to_kernel";
    /// Left to the kernel so that it answers the sender with an ICMP error (size, time to live, no route).
    KernelAnswers = 10, "kernel_answers";
    /// New flows opened.
    FlowsOpened = 11, "flows_opened";
    /// Flows deleted by the collector.
    FlowsCollected = 12, "flows_collected";
    /// Container to container by a published port of the host, both ways.
    Hairpin = 13, "hairpin";
    /// Flows that made room for new ones: they had ended, or were half open, closed, unanswered, or no stream.
    FlowsEvicted = 14, "flows_evicted";
    /// ICMP errors that netpath itself sent to a container.
    Answered = 15, "answered";
    /// Fragments that overtook their first and were held until it came, or in vain.
    FragmentHeld = 16, "fragment_held";
    /// Flows removed by an operator.
    FlowsRemoved = 17, "flows_removed";
    /// Events of flows that a listener missed because the ring buffer was full.
    EventsLost = 18, "events_lost";
    /// Host to world, source port translated because a container's flow holds it.
    HostOut = 19, "host_out";
    /// World to host, answer to such a flow.
    HostIn = 20, "host_in";
    /// World to container through the container's cone.
    ConeIn = 21, "cone_in";
    /// Container to world, answer from a cone.
    ConeOut = 22, "cone_out";
    /// Cones, and claims of ports, that the collector removed.
    ConesCollected = 23, "cones_collected";
    /// Between a container and somebody outside its network under their own addresses, both ways.
    Routed = 24, "routed";
    /// Packets that the policy would have denied, were it not a dry run.
    PolicyWouldDeny = 25, "policy_would_deny";
}

impl PathCount {
    /// Slots of the counter map: more than ways, so that a later version can add some to a pinned map.
    pub const SLOTS: u32 = 64;
}

const _: () = assert!(PathCount::ALL.len() <= PathCount::SLOTS as usize, "every way has a counter");
