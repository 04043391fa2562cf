//! Whether two outcomes are the same, up to the choice of ports.
//!
//! Each dataplane chooses the port under which the world sees a container. The choices may differ, but one must be the
//! image of the other: per protocol and peer, one port of the one belongs to exactly one port of the other, throughout
//! the whole sequence. That a mapping changes in mid-flow, or two flows share one, is a difference then.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use super::seen::{Packet, Seen, Spot, Sum};

/// What became of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The packets that came out.
    pub seen: Vec<Seen>,
    /// The packets that went in, as they were then.
    pub sent: Vec<Vec<u8>>,
    /// Whether nf_conntrack called it invalid; only the reference says so.
    pub invalid: bool,
}

/// Something in which two outcomes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// How Docker's rules have it.
    pub reference: String,
    /// How netpath has it.
    pub netpath: String,
}

/// Which peer's view a port belongs to: where it is seen, protocol, the translated address, and the peer's.
type Scope = (Spot, u8, Ipv4Addr, Ipv4Addr, u16);

/// Which port of the one dataplane is which of the other's.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    there: BTreeMap<(Scope, u16), u16>,
    back: BTreeMap<(Scope, u16), u16>,
}

impl Ports {
    /// Notes that two ports are the same choice; false when one of them is another already.
    fn pair(&mut self, scope: Scope, reference: u16, netpath: u16) -> bool {
        let there = *self.there.entry((scope, reference)).or_insert(netpath);
        let back = *self.back.entry((scope, netpath)).or_insert(reference);
        there == netpath && back == reference
    }
}

/// Compares the outcomes of one step. `ports` remembers the choices of the steps before.
#[must_use]
pub fn compare(reference: &Outcome, netpath: &Outcome, ports: &mut Ports) -> Vec<Difference> {
    let (ours, theirs) = (sorted(&netpath.seen), sorted(&reference.seen));
    let places = |seen: &[&Seen]| seen.iter().map(|seen| (seen.at, seen.packet.protocol)).collect::<Vec<_>>();
    if places(&theirs) != places(&ours) {
        let show = |seen: &[&Seen]| format!("{:?}", places(seen));
        return vec![Difference { what: "verdict", reference: show(&theirs), netpath: show(&ours) }];
    }
    let input = |outcome: &Outcome| outcome.sent.first().and_then(|bytes| Packet::read(bytes));
    let inputs = input(reference).zip(input(netpath));
    let mut differences = Vec::new();
    for (reference, netpath) in theirs.iter().zip(&ours) {
        let mut list = List { differences: &mut differences, inputs: inputs.as_ref() };
        packets(&mut list, reference.at, &reference.packet, &netpath.packet, ports);
    }
    differences
}

fn sorted(seen: &[Seen]) -> Vec<&Seen> {
    let mut seen: Vec<_> = seen.iter().collect();
    seen.sort_by_key(|seen| (seen.at, seen.packet.protocol, seen.packet.fragment & 0x1fff, seen.packet.source));
    seen
}

/// The differences so far, and what went in on both sides.
struct List<'a> {
    differences: &'a mut Vec<Difference>,
    inputs: Option<&'a (Packet, Packet)>,
}

impl List<'_> {
    fn check<T: PartialEq + fmt::Debug>(&mut self, what: &'static str, reference: &T, netpath: &T) {
        if reference != netpath {
            let (reference, netpath) = (format!("{reference:?}"), format!("{netpath:?}"));
            self.differences.push(Difference { what, reference, netpath });
        }
    }

    /// Two ports that nobody has translated: equal, or what each side was sent.
    fn check_port(&mut self, what: &'static str, reference: u16, netpath: u16) {
        let sent = self.inputs.is_some_and(|(theirs, ours)| {
            (reference, netpath) == (theirs.ports.0, ours.ports.0)
                || (reference, netpath) == (theirs.ports.1, ours.ports.1)
        });
        if !sent {
            self.check(what, &reference, &netpath);
        }
    }
}

fn packets(list: &mut List<'_>, at: Spot, one: &Packet, other: &Packet, ports: &mut Ports) {
    headers(list, one, other);
    let inputs = list.inputs.filter(|(input, _)| input.identification == one.identification);
    // Who answers by itself numbers its packets as it likes.
    let forwarded = inputs.is_some_and(|(input, _)| input.protocol == one.protocol);
    if forwarded {
        list.check("identification", &one.identification, &other.identification);
    }
    list.check_port("destination port", one.ports.1, other.ports.1);
    match inputs {
        Some((theirs, ours)) if forwarded && at != Spot::Host && one.has_ports() => {
            let scope = (at, one.protocol, one.source, one.destination, one.ports.1);
            if !ports.pair(scope, one.ports.0, other.ports.0) {
                list.check("source port, which was another before", &one.ports.0, &other.ports.0);
            }
            list.check(PORT_IS_KEPT, &(one.ports.0 == theirs.ports.0), &(other.ports.0 == ours.ports.0));
        }
        _ => list.check_port("source port", one.ports.0, other.ports.0),
    }
    match (&one.quote, &other.quote) {
        (Some(one), Some(other)) => quotes(list, at, one, other, forwarded.then_some(ports)),
        (one, other) => list.check("quote", &one.is_some(), &other.is_some()),
    }
}

fn headers(list: &mut List<'_>, one: &Packet, other: &Packet) {
    list.check("source address", &one.source, &other.source);
    list.check("destination address", &one.destination, &other.destination);
    list.check("protocol", &one.protocol, &other.protocol);
    list.check("time to live", &one.ttl, &other.ttl);
    list.check("type of service", &one.tos, &other.tos);
    list.check("flags and fragment offset", &one.fragment, &other.fragment);
    list.check("IPv4 options", &one.options, &other.options);
    list.check("IPv4 checksum", &one.header_sum, &other.header_sum);
    list.check("transport checksum", &one.sum, &other.sum);
    list.check("transport header and data", &one.rest, &other.rest);
}

/// The quoted packet went the other way: its destination is what was translated. What a host quotes of its own accord it
/// quotes as it came (no `ports`).
fn quotes(list: &mut List<'_>, at: Spot, one: &Packet, other: &Packet, ports: Option<&mut Ports>) {
    list.check("quoted source address", &one.source, &other.source);
    list.check("quoted destination address", &one.destination, &other.destination);
    match ports {
        Some(ports) => {
            list.check("quoted source port", &one.ports.0, &other.ports.0);
            let scope = (at, one.protocol, one.destination, one.source, one.ports.0);
            if !ports.pair(scope, one.ports.1, other.ports.1) {
                list.check("quoted destination port", &one.ports.1, &other.ports.1);
            }
        }
        None => {
            list.check_port("quoted source port", one.ports.0, other.ports.0);
            list.check_port("quoted destination port", one.ports.1, other.ports.1);
        }
    }
    list.check("quoted protocol", &one.protocol, &other.protocol);
    list.check("quoted time to live", &one.ttl, &other.ttl);
    list.check("quoted identification", &one.identification, &other.identification);
    list.check("quoted IPv4 checksum", &one.header_sum, &other.header_sum);
    list.check("quoted transport checksum", &one.sum, &other.sum);
    list.check("quoted transport header and data", &one.rest, &other.rest);
}

/// Whether the sender's port was changed, in one outcome and not in the other.
pub const PORT_IS_KEPT: &str = "source port is kept";

/// What netpath may not do, whatever the other one does.
#[must_use]
pub fn faults(outcome: &Outcome, damaged: bool) -> Vec<Difference> {
    let input = outcome.sent.first().and_then(|bytes| Packet::read(bytes)).filter(|_| outcome.sent.len() == 1);
    let mut faults = Vec::new();
    for seen in &outcome.seen {
        let packet = &seen.packet;
        let mut fault = |what, expected: &str| {
            faults.push(Difference { what, reference: expected.to_owned(), netpath: seen.to_string() });
        };
        if !damaged && (packet.header_sum == Sum::Wrong || packet.sum == Sum::Wrong) {
            fault("a checksum is wrong", "right");
        }
        if seen.at == Spot::World && is_containers(packet.source) {
            fault("a container's own address leaves the host", "nowhere");
        }
        let Some(input) = &input else { continue };
        let forwarded = (packet.identification, packet.protocol) == (input.identification, input.protocol);
        if forwarded && seen.at != Spot::Host && packet.quote.is_none() && packet.rest != input.rest {
            fault("what a packet carries is changed", "as it was sent");
        }
        if forwarded && seen.at != Spot::Host && packet.ttl.wrapping_add(1) != input.ttl {
            fault("the time to live doesn't count down by one", "one less");
        }
    }
    faults
}

/// Whether an address is of the containers' network.
#[must_use]
pub fn is_containers(address: Ipv4Addr) -> bool {
    address.octets()[..2] == [172, 17]
}

impl fmt::Display for Difference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} with Docker's rules, {} with netpath", self.what, self.reference, self.netpath)
    }
}
