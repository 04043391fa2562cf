//! ICMP echo.

use super::super::packet::{Datagram, End, Payload, Side, Step};
use super::dice::Dice;

fn request(from: Side, source: End, destination: End, identifier: u16, sequence: u16, len: u16) -> Step {
    Step::new(from, Datagram::new(source, destination, Payload::Echo { reply: false, identifier, sequence, len }))
}

fn reply(from: Side, source: End, destination: End, identifier: u16, sequence: u16, len: u16) -> Step {
    Step::new(from, Datagram::new(source, destination, Payload::Echo { reply: true, identifier, sequence, len }))
}

fn pings(dice: &mut Dice, container: u8, remote: u8, identifier: u16) -> Vec<Step> {
    let mut steps = Vec::new();
    for sequence in 1..=u16::from(dice.pick(&[1_u8, 2, 3])) {
        let len = dice.pick(&[0, 1, 56, 1400]);
        steps.push(request(
            Side::Container(container),
            End::Container(container),
            End::Remote(remote),
            identifier,
            sequence,
            len,
        ));
        if dice.chance(85) {
            steps.push(reply(Side::World, End::Remote(remote), End::Mapped(container), identifier, sequence, len));
        }
    }
    steps
}

/// A container pings the world.
pub(super) fn echo(dice: &mut Dice) -> Vec<Step> {
    let (container, remote, identifier) = (dice.pick(&[0, 1]), dice.pick(&[0, 1]), dice.u16());
    pings(dice, container, remote, identifier)
}

/// Two containers ping one machine with one identifier.
pub(super) fn clash(dice: &mut Dice) -> Vec<Step> {
    let identifier = dice.pick(&[0, 1, 7, 0x4e50, 65_535]);
    let (one, other) = (pings(dice, 0, 0, identifier), pings(dice, 1, 0, identifier));
    let mut steps = Vec::new();
    let mut sources = [one.into_iter(), other.into_iter()];
    let mut empty = 0;
    while empty < 2 {
        empty = 0;
        for source in &mut sources {
            match source.next() {
                Some(step) => steps.push(step),
                None => empty += 1,
            }
        }
    }
    steps
}

/// The world pings the host, and answers what nobody asked.
pub(super) fn unsolicited(dice: &mut Dice) -> Vec<Step> {
    let identifier = dice.u16();
    let host = End::Host(dice.pick(&[0, 1]));
    match dice.below(3) {
        0 => vec![request(Side::World, End::Remote(0), host, identifier, 1, 56)],
        1 => vec![reply(Side::World, End::Remote(0), host, identifier, 1, 56)],
        _ => vec![reply(Side::Container(0), End::Container(0), End::Remote(0), identifier, 1, 56)],
    }
}
