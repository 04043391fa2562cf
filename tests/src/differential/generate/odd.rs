//! What is neither a plain conversation nor an error: fragments, damage, the host itself, other protocols.

use super::super::packet::{Damage, Datagram, End, Fragments, Payload, Side, Step};
use super::dice::Dice;
use super::talk::{TCP, Talk, UDP};
use super::{icmp, tcp, udp};

/// Datagrams in fragments, in any order, with one missing or one twice.
pub(super) fn fragments(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, UDP);
    let mut steps = Vec::new();
    if dice.chance(50) {
        steps.push(talk.udp(0, 40));
    }
    for _ in 0..=dice.below(3) {
        let who = if steps.is_empty() { 0 } else { dice.below(2) };
        let mut step = talk.udp(who, dice.pick(&[100, 1000, 2800, 4000]));
        step.datagram.dont_fragment = false;
        step.fragments = cut(dice, step.datagram.payload_len());
        steps.push(step);
    }
    steps
}

fn cut(dice: &mut Dice, len: u16) -> Fragments {
    let size = dice.pick(&[64_u16, 512, 1480]).max(len.div_ceil(8).next_multiple_of(8));
    let count = u8::try_from(len.div_ceil(size)).unwrap_or(u8::MAX);
    let mut order: Vec<u8> = (0..count).collect();
    match dice.below(5) {
        0 | 1 => {}
        2 => order.reverse(),
        3 => dice.shuffle(&mut order),
        _ => {
            let at = dice.below(order.len());
            let twice = order[at];
            if dice.chance(50) {
                order.remove(at);
            } else {
                order.insert(at, twice);
            }
        }
    }
    Fragments { size, order }
}

impl Datagram {
    /// Bytes after the IPv4 header, of UDP.
    fn payload_len(&self) -> u16 {
        match self.payload {
            Payload::Udp { len, .. } => 8 + len,
            _ => 0,
        }
    }
}

/// Fields whose damage a dataplane must get over: version and length of the header, length, fragmentation, time to
/// live; then the transport's first words, but for the ports.
const FIELDS: &[u8] = &[0, 0, 2, 3, 6, 7, 8, 24, 25, 26, 27, 28, 32, 33, 34, 35];

/// Another scenario of which one packet is damaged.
pub(super) fn damaged(dice: &mut Dice) -> Vec<Step> {
    let mut steps = match dice.below(4) {
        0 => tcp::conversation(dice),
        1 => udp::conversation(dice),
        2 => icmp::echo(dice),
        _ => udp::clash(dice),
    };
    for _ in 0..=dice.below(2) {
        let at = dice.below(steps.len());
        steps[at].damage = Some(match dice.below(6) {
            0 => Damage::TransportChecksum,
            1 => Damage::HeaderChecksum,
            2 => Damage::Cut(dice.between(1, 60)),
            _ => Damage::Flip { at: dice.pick(FIELDS), bits: 1 << dice.below(8) },
        });
    }
    steps
}

/// What is the host's own: its closed ports, its gateway address, and frames that address a container from outside.
pub(super) fn host(dice: &mut Dice) -> Vec<Step> {
    let host = End::Host(dice.pick(&[0, 1]));
    let payload = Payload::Udp { source: 4000, destination: 9, checksum: true, len: 20 };
    let from_world = Step::new(Side::World, Datagram::new(End::Remote(0), host, payload));
    // Port 53 of the container is published, port 9 isn't.
    let payload = Payload::Udp { source: 4000, destination: dice.pick(&[9, 53]), checksum: true, len: 20 };
    let direct = Step::new(Side::World, Datagram::new(End::Remote(0), End::Container(0), payload));
    let mut closed = tcp::stray(dice);
    for step in &mut closed {
        // The same segments, to a port that isn't published.
        if let (Side::World, Payload::Tcp(segment)) = (step.from, &mut step.datagram.payload) {
            step.datagram.destination = host;
            segment.destination = 9;
        }
    }
    match dice.below(3) {
        0 => vec![from_world],
        1 => vec![direct],
        _ => closed,
    }
}

/// Protocols without ports that netpath knows of.
pub(super) fn other_protocols(dice: &mut Dice) -> Vec<Step> {
    let protocol = dice.pick(&[132, 47, 50, 51, 2, 4, 103, 255]);
    let mut bytes: Vec<u8> = (0..24).map(|_| dice.u8()).collect();
    if protocol == 47 {
        // GRE without any option, carrying IPv4 (RFC 2784): other versions netfilter doesn't translate.
        bytes[..4].copy_from_slice(&[0, 0, 8, 0]);
    }
    let payload = Payload::Other { protocol, bytes };
    let container = dice.pick(&[0, 1]);
    let out = Datagram::new(End::Container(container), End::Remote(0), payload.clone());
    let mut steps = vec![Step::new(Side::Container(container), out)];
    if dice.chance(70) {
        steps.push(Step::new(Side::World, Datagram::new(End::Remote(0), End::Host(0), payload)));
    }
    if dice.chance(20) {
        let talk = Talk::any(dice, TCP);
        steps.push(Step::new(
            Side::World,
            Datagram::new(talk.ends[0].own.0, End::Host(1), steps[0].datagram.payload.clone()),
        ));
    }
    steps
}
