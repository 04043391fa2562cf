//! ICMP errors, about packets of a flow and about none.

use super::super::packet::{Datagram, End, Payload, Segment, Side, Step, flag};
use super::dice::Dice;
use super::talk::{TCP, Talk, UDP};

/// Types and their codes: all that RFC 792 and its heirs define, and one of each that they don't.
fn kind(dice: &mut Dice) -> (u8, u8) {
    match dice.below(10) {
        0..=4 => (3, dice.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])),
        5 | 6 => (11, dice.pick(&[0, 1, 2])),
        7 => (12, dice.pick(&[0, 1, 2, 3])),
        8 => (4, 0),
        _ => (5, dice.pick(&[0, 1, 2, 3])),
    }
}

fn error(dice: &mut Dice, from: Side, sender: End, receiver: End, quote: Datagram) -> Step {
    let (kind, code) = kind(dice);
    let rest = match (kind, code) {
        (3, 4) => dice.pick(&[[0, 0, 0x02, 0x40], [0, 0, 0x05, 0x00], [0, 0, 0, 0]]),
        (5, _) => [192, 0, 2, 1],
        (12, 0) => [20, 0, 0, 0],
        _ => [0; 4],
    };
    let quoted = dice.pick(&[8, 8, 8, 20, 28, 64, 128, 548, 0, 4, 7]);
    let payload = Payload::Error { kind, code, rest, quote: Box::new(quote), quoted };
    let mut datagram = Datagram::new(sender, receiver, payload);
    datagram.ttl = dice.pick(&[64, 64, 255, 2]);
    datagram.tos = dice.pick(&[0, 0xc0]);
    Step::new(from, datagram)
}

/// A flow, and errors of both directions about it: from the peer itself or from a router between.
pub(super) fn about_a_flow(dice: &mut Dice) -> Vec<Step> {
    let protocol = dice.pick(&[TCP, UDP, UDP, 1]);
    if protocol == 1 {
        return about_echo(dice);
    }
    let talk = Talk::any(dice, protocol);
    let payload = |source: u16, destination: u16, answer: bool| match protocol {
        TCP => Payload::Tcp(Segment {
            source,
            destination,
            sequence: if answer { 9000 } else { 1000 },
            acknowledgment: if answer { 1001 } else { 0 },
            flags: if answer { flag::SYN | flag::ACK } else { flag::SYN },
            window: 64_240,
            options: vec![2, 4, 5, 0xb4],
            len: 0,
        }),
        _ => Payload::Udp { source, destination, checksum: true, len: 64 },
    };
    let mut steps = vec![talk.step(0, |source, destination| payload(source, destination, false))];
    let answered = dice.chance(60);
    if answered {
        steps.push(talk.step(1, |source, destination| payload(source, destination, true)));
    }
    for _ in 0..=dice.below(3) {
        // About the opener's packet it comes from the answerer's side, and the reverse.
        let about = if answered { dice.below(2) } else { 0 };
        let teller = &talk.ends[1 - about];
        let quote = talk.as_seen(about, |source, destination| payload(source, destination, about == 1));
        // A router beyond a container would be the container itself.
        let sender = if teller.side == Side::World && dice.chance(40) { End::Remote(3) } else { teller.own.0 };
        steps.push(error(dice, teller.side, sender, teller.peer.0, quote));
    }
    if dice.chance(50) {
        let who = dice.below(2);
        let last = talk.step(who, |source, destination| payload(source, destination, who == 1));
        steps.push(last);
    }
    steps
}

fn about_echo(dice: &mut Dice) -> Vec<Step> {
    let (container, identifier) = (dice.pick(&[0, 1]), dice.u16());
    let echo = |reply| Payload::Echo { reply, identifier, sequence: 1, len: 56 };
    let inside = End::Container(container);
    let asked = Step::new(Side::Container(container), Datagram::new(inside, End::Remote(0), echo(false)));
    let quote = Datagram::new(End::Mapped(container), End::Remote(0), echo(false));
    let sender = dice.pick(&[End::Remote(0), End::Remote(3)]);
    let from_outside = error(dice, Side::World, sender, End::Mapped(container), quote);
    let mut steps = vec![asked, from_outside];
    if dice.chance(50) {
        let answer = Datagram::new(End::Remote(0), End::Mapped(container), echo(true));
        steps.insert(1, Step::new(Side::World, answer));
        let quote = Datagram::new(End::Remote(0), inside, echo(true));
        steps.push(error(dice, Side::Container(container), inside, End::Remote(0), quote));
    }
    steps
}

/// Errors about packets that nobody has sent.
pub(super) fn about_nothing(dice: &mut Dice) -> Vec<Step> {
    let protocol = dice.pick(&[TCP, UDP]);
    let talk = Talk::any(dice, protocol);
    let about = dice.below(2);
    let teller = &talk.ends[1 - about];
    let len = 64;
    let quote = talk.as_seen(about, |source, destination| Payload::Udp { source, destination, checksum: true, len });
    vec![error(dice, teller.side, teller.own.0, teller.peer.0, quote)]
}
