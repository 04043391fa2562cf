//! The one numbered list of reasons for which netpath drops a packet.
//!
//! A number is never given a second meaning and never reused: it is the index of a counter in the pinned map
//! `DROPS`, which outlives the daemon that made it.

use crate::counted::counted;

counted! {
    /// Why a packet was dropped. The number is the index in the map `DROPS`.
    DropReason:

    /// The frame ends before its headers do.
    Truncated = 0, "truncated";
    /// The IPv4 header is invalid: version, header length or total length.
    MalformedIpv4 = 1, "malformed_ipv4";
    /// The TCP, UDP or ICMP header is invalid: its length disagrees with the packet.
    MalformedTransport = 2, "malformed_transport";
    /// A frame from the wire was addressed straight to a container.
    DirectToContainer = 3, "direct_to_container";
    /// No free port was left for a new flow.
    PortsExhausted = 4, "ports_exhausted";
    /// The flow table is full.
    FlowTableFull = 5, "flow_table_full";
    /// The packet belongs to no flow and may not open one.
    NoFlow = 6, "no_flow";
    /// A container sent with a source address that isn't its own.
    ForeignSource = 7, "foreign_source";
    /// The route leads out of an interface that netpath doesn't translate for (sole mode).
    NotAnUplink = 8, "not_an_uplink";
    /// The packet is larger than the next link and may be neither fragmented nor handed to the kernel.
    TooBig = 9, "too_big";
    /// The time to live ended and the kernel can't answer for this packet.
    TtlExpired = 10, "ttl_expired";
    /// The protocol, or the kind of ICMP message, isn't translated.
    UnsupportedProtocol = 11, "unsupported_protocol";
    /// A fragment whose first fragment wasn't seen, and that could not be held.
    FragmentUnknown = 12, "fragment_unknown";
    /// An ICMP error of a container that quotes no flow.
    IcmpErrorUnrelated = 13, "icmp_error_unrelated";
    /// The packet's headers couldn't be rewritten; the kernel refused a write.
    RewriteFailed = 14, "rewrite_failed";
    /// A container addressed a container of another network (sole mode), or a port that another network publishes where
    /// the configuration forbids it.
    OtherNetwork = 15, "other_network";
    /// The next hop of a flow is gone.
    HopGone = 16, "hop_gone";
    /// A fragment that overlaps with one that has come.
    FragmentOverlap = 17, "fragment_overlap";
    /// A frame from the wire bore an address of 127.0.0.0/8, which must not appear outside a host (RFC 1122, section 3.2.1.3),
    /// or a container sent to one.
    LoopbackFromWire = 18, "loopback_from_wire";
    /// A frame from the wire bore the address of a container, of the host itself, or of nobody (a group) as its source.
    SpoofedSource = 19, "spoofed_source";
    /// A container addressed a neighbour on a network whose containers don't reach each other.
    IccOff = 20, "icc_off";
    /// A container of an internal network addressed something outside it (sole mode).
    InternalNetwork = 21, "internal_network";
    /// The operator's policy denies the client the published port.
    PolicyDenied = 22, "policy_denied";
    /// A packet was about to leave by an uplink with a container's address.
    Untranslated = 23, "untranslated";
    /// A datagram to one of the host's ports that no socket is bound to, beyond what the kernel answers (port unreachable).
    PortClosed = 24, "port_closed";
}

impl DropReason {
    /// Slots of the counter map: more than reasons, so that a later version can add some to a pinned map.
    pub const SLOTS: u32 = 64;
}

const _: () = assert!(DropReason::ALL.len() <= DropReason::SLOTS as usize, "every reason has a counter");

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn numbers_are_their_position_and_names_are_unique() {
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position);
            assert!(!reason.explanation().is_empty());
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
