//! TCP: conversations as hosts hold them, and as networks and attackers disturb them.

use super::super::packet::{Segment, Step, flag};
use super::dice::Dice;
use super::talk::{TCP, Talk};

use flag::{ACK, FIN, PSH, RST, SYN};

/// The two ends' numbers.
#[derive(Debug, Clone)]
struct Connection {
    talk: Talk,
    /// What each end sends next.
    next: [u32; 2],
    /// Whether each end scales its window, and by how much.
    scale: Option<u8>,
    steps: Vec<Step>,
}

impl Connection {
    fn new(dice: &mut Dice, talk: Talk) -> Self {
        let scale = dice.pick(&[None, Some(0), Some(7)]);
        let near_the_end = 0_u32.wrapping_sub(u32::from(dice.u8()));
        let first = [dice.pick(&[1, near_the_end, 0x7fff_ffff]), dice.u32()];
        Self { talk, next: first, scale, steps: Vec::new() }
    }

    fn segment(&self, who: usize, flags: u8, len: u16) -> Segment {
        let acknowledgment = if flags & ACK == 0 { 0 } else { self.next[1 - who] };
        let window = if self.scale == Some(7) && flags & SYN == 0 { 502 } else { 64_240 };
        let mut options = Vec::new();
        if flags & SYN != 0 {
            options = vec![2, 4, 5, 0xb4];
            if let Some(scale) = self.scale {
                options.extend([1, 3, 3, scale, 1, 1, 4, 2]);
            }
        }
        Segment { source: 0, destination: 0, sequence: self.next[who], acknowledgment, flags, window, options, len }
    }

    fn send(&mut self, who: usize, flags: u8, len: u16) {
        let segment = self.segment(who, flags, len);
        self.steps.push(self.talk.tcp(who, segment));
        let counted = u32::from(flags & (SYN | FIN) != 0) + u32::from(len);
        self.next[who] = self.next[who].wrapping_add(counted);
    }

    fn handshake(&mut self) {
        self.send(0, SYN, 0);
        self.send(1, SYN | ACK, 0);
        self.send(0, ACK, 0);
    }

    fn exchange(&mut self, dice: &mut Dice) {
        for _ in 0..=dice.below(3) {
            let who = dice.below(2);
            self.send(who, PSH | ACK, dice.pick(&[1, 17, 536, 1400]));
            if dice.chance(70) {
                self.send(1 - who, ACK, 0);
            }
        }
    }

    fn close(&mut self, dice: &mut Dice) {
        let who = dice.below(2);
        match dice.below(5) {
            0 => {}
            1 => self.send(who, RST | ACK, 0),
            2 => self.send(who, RST, 0),
            3 => {
                self.send(who, FIN | ACK, 0);
                self.send(1 - who, FIN | ACK, 0);
                self.send(who, ACK, 0);
            }
            _ => {
                self.send(who, FIN | ACK, 0);
                self.send(1 - who, ACK, 0);
                self.send(1 - who, PSH | ACK, 9);
                self.send(1 - who, FIN | ACK, 0);
                self.send(who, ACK, 0);
            }
        }
    }

    /// A segment that doesn't belong where it comes.
    fn odd(&self, dice: &mut Dice) -> Step {
        let who = dice.below(2);
        let flags = dice.pick(&[
            RST,
            RST,
            RST | ACK,
            ACK,
            PSH | ACK,
            SYN,
            SYN | ACK,
            FIN | ACK,
            FIN,
            0,
            0xff,
            FIN | PSH | flag::URG,
        ]);
        let mut segment = self.segment(who, flags, if flags & PSH == 0 { 0 } else { 10 });
        let distance = dice.pick(&[0, 0, 1, 100, 70_000, 0x4000_0000]);
        let blind = dice.u32();
        segment.sequence = match dice.below(4) {
            0 => segment.sequence.wrapping_add(distance),
            1 => segment.sequence.wrapping_sub(distance),
            2 => blind,
            _ => segment.sequence,
        };
        if flags & ACK != 0 && dice.chance(30) {
            segment.acknowledgment = segment.acknowledgment.wrapping_add(dice.pick(&[1, 70_000, 0x4000_0000]));
        }
        self.talk.tcp(who, segment)
    }
}

/// Loss, duplicates, another order, and segments that don't belong there.
fn disturb(dice: &mut Dice, connection: &Connection, mut steps: Vec<Step>) -> Vec<Step> {
    for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 4]) {
        if steps.len() < 2 {
            break;
        }
        let at = dice.below(steps.len() - 1);
        match dice.below(5) {
            0 => drop(steps.remove(at)),
            1 => steps.insert(at, steps[at].clone()),
            2 => steps.swap(at, at + 1),
            _ => steps.insert(at + 1, connection.odd(dice)),
        }
    }
    steps
}

fn whole(dice: &mut Dice, talk: Talk) -> Connection {
    let mut connection = Connection::new(dice, talk);
    connection.handshake();
    connection.exchange(dice);
    connection.close(dice);
    connection
}

/// A connection from its handshake to its end, disturbed.
pub(super) fn conversation(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, TCP);
    let connection = whole(dice, talk);
    let steps = connection.steps.clone();
    disturb(dice, &connection, steps)
}

/// A connection and another one of the same ports after it, whatever became of the first.
pub(super) fn reused(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, TCP);
    let first = whole(dice, talk);
    let mut second = Connection { steps: Vec::new(), ..first.clone() };
    second.next = [first.next[0].wrapping_add(dice.pick(&[1, 100_000, 0x9000_0000])), dice.u32()];
    second.handshake();
    second.exchange(dice);
    let steps = [first.steps, second.steps.clone()].concat();
    disturb(dice, &second, steps)
}

/// A connection of which a part is never seen: no answer, no last acknowledgment, or only its middle.
pub(super) fn half_open(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, TCP);
    let connection = whole(dice, talk);
    let mut steps = connection.steps.clone();
    match dice.below(4) {
        0 => steps.truncate(1),
        1 => steps.truncate(2),
        2 => drop(steps.drain(..dice.pick(&[1, 2, 3]))),
        _ => steps.retain(|step| step.from == talk.ends[0].side),
    }
    disturb(dice, &connection, steps)
}

/// Both ends call at the same time (RFC 9293, section 3.5).
pub(super) fn simultaneous_open(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, TCP);
    let mut connection = Connection::new(dice, talk);
    connection.send(0, SYN, 0);
    connection.send(1, SYN, 0);
    let first = [connection.next[0].wrapping_sub(1), connection.next[1].wrapping_sub(1)];
    for (who, sequence) in first.into_iter().enumerate() {
        let mut segment = connection.segment(who, SYN | ACK, 0);
        segment.sequence = sequence;
        connection.steps.push(talk.tcp(who, segment));
    }
    connection.exchange(dice);
    connection.close(dice);
    let steps = connection.steps.clone();
    disturb(dice, &connection, steps)
}

/// Segments of no connection.
pub(super) fn stray(dice: &mut Dice) -> Vec<Step> {
    let talk = Talk::any(dice, TCP);
    let connection = Connection::new(dice, talk);
    (0..=dice.below(4)).map(|_| connection.odd(dice)).collect()
}
