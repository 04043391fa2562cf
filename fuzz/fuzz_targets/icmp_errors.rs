//! ICMP errors: about flows that are open, about nothing, cut off, with damaged quotes, from both sides.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_fuzz::{Damage, Moment, Place, Port, Protocol, Tuple, Way, error, packet, play};

#[derive(Arbitrary, Debug)]
struct Story {
    beginning: u8,
    errors: Vec<Error>,
}

#[derive(Arbitrary, Debug)]
struct Error {
    moment: Moment,
    kind: u8,
    code: u8,
    source: Place,
    destination: Place,
    quoted: Quoted,
    /// Of the whole frame, its quote included.
    damage: Damage,
}

/// What it quotes.
#[derive(Arbitrary, Debug)]
enum Quoted {
    /// A packet of one of the open flows, as it was on one side of the host or the other, in one direction or the other.
    Flow { number: u8, is_outside: bool, is_reversed: bool },
    /// Any packet.
    Packet { tuple: Tuple, protocol: Protocol },
    /// Any bytes.
    Bytes([u8; 28]),
}

const SYN: Protocol = Protocol::Tcp { flags: 2, sequence: 1, acknowledgement: 0 };
const OWN: Port = Port::Any(5000);

/// The flows that are open: how they began, and how that looks where it arrives.
fn flows() -> [(Way, Protocol, Tuple, Tuple); 7] {
    use Place::{Container, Gateway, Host, OtherContainer, Remote};
    let tuple = |source, destination, ports| Tuple { source, destination, ports };
    let (out, to_service) = ((OWN, Port::Service), (OWN, Port::Service));
    let (inside, outside) = (tuple(OtherContainer, Remote, out), tuple(Host, Remote, out));
    let (asked, led) = (tuple(Remote, Host, (OWN, Port::Published)), tuple(Remote, Container, to_service));
    let ping = (Port::Any(7), Port::Any(1));
    [
        (Way::FromOtherContainer, SYN, inside, outside),
        (Way::FromOtherContainer, Protocol::Udp, inside, outside),
        (
            Way::FromOtherContainer,
            Protocol::EchoRequest,
            tuple(OtherContainer, Remote, ping),
            tuple(Host, Remote, ping),
        ),
        (Way::FromWire, SYN, asked, led),
        (Way::FromWire, Protocol::Udp, asked, led),
        (
            Way::FromOtherContainer,
            SYN,
            tuple(OtherContainer, Host, (OWN, Port::Published)),
            tuple(OtherContainer, Container, to_service),
        ),
        (
            Way::FromContainer,
            SYN,
            tuple(Container, Gateway, (OWN, Port::Published)),
            tuple(Gateway, Container, to_service),
        ),
    ]
}

fuzz_target!(|story: Story| {
    let opened = flows()
        .map(|(way, protocol, tuple, _)| (Moment { seconds_later: 0, way, collects: false }, packet(protocol, &tuple)));
    let errors = story.errors.iter().map(|error| (error.moment, error.frame()));
    play(story.beginning | 0x80, opened.into_iter().chain(errors));
});

impl Error {
    fn frame(&self) -> Vec<u8> {
        let quoted = match &self.quoted {
            Quoted::Flow { number, is_outside, is_reversed } => {
                let (_, protocol, begun, arrived) = flows()[usize::from(*number) % flows().len()];
                let tuple = if *is_outside { arrived } else { begun };
                packet(protocol, &if *is_reversed { tuple.reversed() } else { tuple })[14..].to_vec()
            }
            Quoted::Packet { tuple, protocol } => packet(*protocol, tuple)[14..].to_vec(),
            Quoted::Bytes(bytes) => bytes.to_vec(),
        };
        let mut frame = error(self.kind, self.code, self.source, self.destination, &quoted);
        self.damage.apply(&mut frame);
        frame
    }
}
