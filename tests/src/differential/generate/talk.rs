//! Two ends that talk through the host: how each of them addresses the other.

use super::super::packet::{Datagram, End, Payload, Segment, Side, Step};
use super::dice::Dice;

/// Protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// One end, as it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) side: Side,
    pub(super) own: (End, u16),
    pub(super) peer: (End, u16),
}

/// A conversation's two ends: first the one that begins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) ends: [View; 2],
}

impl Talk {
    /// A container calls a machine of the world.
    pub(super) fn out(container: u8, port: u16, remote: u8, remote_port: u16) -> Self {
        let (inside, outside) = ((End::Container(container), port), (End::Remote(remote), remote_port));
        let opener = View { side: Side::Container(container), own: inside, peer: outside };
        let answerer = View { side: Side::World, own: outside, peer: (End::Mapped(container), port) };
        Self { ends: [opener, answerer] }
    }

    /// A machine of the world calls a published port, given as its row in the arena's list.
    pub(super) fn published(row: usize, remote: u8, port: u16) -> Self {
        let (host, published, _, container, inside) = super::super::arena::PUBLISHED[row];
        let own = (End::Remote(remote), port);
        let opener = View { side: Side::World, own, peer: (End::Host(host.unwrap_or(0)), published) };
        let answerer = View {
            side: Side::Container(container),
            own: (End::Container(container), inside),
            peer: (End::Client(remote, published), port),
        };
        Self { ends: [opener, answerer] }
    }

    /// A container calls a published port by an address of the host.
    pub(super) fn hairpin(row: usize, client: u8, port: u16) -> Self {
        let (host, published, _, container, inside) = super::super::arena::PUBLISHED[row];
        let own = (End::Container(client), port);
        let opener = View { side: Side::Container(client), own, peer: (End::Host(host.unwrap_or(0)), published) };
        let answerer = View {
            side: Side::Container(container),
            own: (End::Container(container), inside),
            peer: (End::Neighbour(client, published), port),
        };
        Self { ends: [opener, answerer] }
    }

    /// One or the other, at random.
    pub(super) fn any(dice: &mut Dice, protocol: u8) -> Self {
        let remote = dice.pick(&[0, 1, 2]);
        if dice.chance(55) {
            let port = dice.pick(&[1024, 4000, 33_000, 40_000, 61_000, 65_535]) - u16::from(dice.u8() % 8);
            return Self::out(dice.pick(&[0, 1]), port, remote, dice.pick(&[53, 80, 443, 8080, 50_000]));
        }
        let row = published_row(dice, protocol);
        Self::published(row, remote, dice.pick(&[1024, 5353, 40_000, 65_535]) - u16::from(dice.u8() % 8))
    }

    /// What one end sends.
    pub(super) fn datagram(&self, who: usize, payload: impl FnOnce(u16, u16) -> Payload) -> Datagram {
        let view = &self.ends[who];
        Datagram::new(view.own.0, view.peer.0, payload(view.own.1, view.peer.1))
    }

    /// A step of one end.
    pub(super) fn step(&self, who: usize, payload: impl FnOnce(u16, u16) -> Payload) -> Step {
        Step::new(self.ends[who].side, self.datagram(who, payload))
    }

    /// What one end sent, as the other one sees it.
    pub(super) fn as_seen(&self, sender: usize, payload: impl FnOnce(u16, u16) -> Payload) -> Datagram {
        let receiver = &self.ends[1 - sender];
        Datagram::new(receiver.peer.0, receiver.own.0, payload(receiver.peer.1, receiver.own.1))
    }

    /// A step that carries a datagram of UDP.
    pub(super) fn udp(&self, who: usize, len: u16) -> Step {
        self.step(who, |source, destination| Payload::Udp { source, destination, checksum: true, len })
    }

    /// A step that carries a segment; its ports are filled in.
    pub(super) fn tcp(&self, who: usize, segment: Segment) -> Step {
        self.step(who, |source, destination| Payload::Tcp(Segment { source, destination, ..segment }))
    }
}

/// A published port of a protocol, as its row in the arena's list.
pub(super) fn published_row(dice: &mut Dice, protocol: u8) -> usize {
    let published = super::super::arena::PUBLISHED.iter().enumerate();
    let rows: Vec<usize> = published.filter(|(_, published)| published.2 == protocol).map(|(row, _)| row).collect();
    dice.pick(&rows)
}
