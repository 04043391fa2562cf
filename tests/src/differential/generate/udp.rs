//! UDP: conversations, and clients whose ports are the same.

use super::super::packet::{Payload, Step};
use super::dice::Dice;
use super::talk::{Talk, UDP, published_row};

/// Bytes of data: none, odd, even, and as many as fit.
const LENGTHS: &[u16] = &[0, 1, 8, 33, 512, 1472];

fn some(dice: &mut Dice, talk: &Talk, who: usize) -> Step {
    let mut step = talk.udp(who, dice.pick(LENGTHS));
    step.datagram.ttl = dice.pick(&[64, 64, 128, 255, 3, 2, 1]);
    step.datagram.tos = dice.pick(&[0, 0, 0x10, 0xb8, 3]);
    step.datagram.dont_fragment = dice.chance(70);
    if let Payload::Udp { checksum, .. } = &mut step.datagram.payload {
        *checksum = dice.chance(85);
    }
    step
}

/// A client and a server; the client begins.
pub(super) fn conversation(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, UDP);
    let mut steps = vec![some(dice, &talk, 0)];
    for _ in 0..dice.below(6) {
        let who = dice.below(2);
        steps.push(some(dice, &talk, who));
    }
    // A server may be the first one, too: nobody asked it.
    if dice.chance(10) {
        let last = steps.len() - 1;
        steps.swap(0, last);
    }
    steps
}

/// Two containers with one source port, to one server and perhaps another.
pub(super) fn clash(dice: &mut Dice) -> Vec<Step> {
    let port = dice.pick(&[500, 4500, 5353, 40_000]);
    let mut talks = vec![Talk::out(0, port, 0, 53), Talk::out(1, port, 0, 53)];
    if dice.chance(50) {
        talks.push(Talk::out(dice.pick(&[0, 1]), port, 1, 53));
    }
    together(dice, &talks)
}

/// One client port to two published ports behind which there is one container port; or two clients with one port.
pub(super) fn published_clash(dice: &mut Dice) -> Vec<Step> {
    let rows: Vec<usize> = rows_of_one_port();
    let port = dice.pick(&[1053, 40_000]);
    let mut talks: Vec<Talk> = rows.iter().map(|row| Talk::published(*row, 0, port)).collect();
    if dice.chance(50) {
        talks.push(Talk::published(rows[0], 1, port));
    }
    together(dice, &talks)
}

/// A container and a published port, by the host's address; perhaps its own.
pub(super) fn hairpin(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::hairpin(published_row(dice, UDP), dice.pick(&[0, 1]), dice.pick(&[2000, 40_000, 50_001]));
    // The data tells whose packet it is: no machine of the world does.
    let mut steps = vec![talk.udp(0, 24)];
    for _ in 0..dice.below(5) {
        steps.push(talk.udp(dice.below(2), dice.pick(&[16, 33, 1200])));
    }
    steps
}

fn rows_of_one_port() -> Vec<usize> {
    let published = super::super::arena::PUBLISHED;
    let same = |row: &usize| (published[*row].2, published[*row].3, published[*row].4) == (UDP, 0, 53);
    (0..published.len()).filter(same).collect()
}

/// Each of them opens, then they go on in any order.
fn together(dice: &mut Dice, talks: &[Talk]) -> Vec<Step> {
    let mut steps: Vec<Step> = talks.iter().map(|talk| some(dice, talk, 0)).collect();
    for _ in 0..dice.below(8) {
        let talk = dice.pick(talks);
        let who = dice.below(2);
        steps.push(some(dice, &talk, who));
    }
    steps
}
