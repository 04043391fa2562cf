//! The state machine: undamaged packets of a few conversations, in any order, at any time.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_fuzz::{Moment, Place, Port, Protocol, Tuple, Way, packet, play};

#[derive(Arbitrary, Debug)]
struct Story {
    beginning: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
struct Step {
    who: Who,
    /// The port of the side that began.
    port: u16,
    protocol: Protocol,
    seconds_later: u8,
    collects: bool,
}

/// Who talks to whom, and which of the two sends.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Who {
    OutOfContainer { answers: bool },
    OutOfOtherContainer { answers: bool },
    OutOfHost { answers: bool },
    ToPublished { answers: bool },
    Hairpin { answers: bool },
    ToItself { answers: bool },
}

fuzz_target!(|story: Story| {
    play(story.beginning, story.steps.iter().map(Step::frame));
});

impl Step {
    fn frame(&self) -> (Moment, Vec<u8>) {
        use Place::{Container, Gateway, Host, OtherContainer, Remote};
        use Way::{FromContainer, FromHostToWire, FromOtherContainer, FromWire};
        let own = Port::Any(self.port);
        let tuple = |source, destination, port| Tuple { source, destination, ports: (own, port) };
        let (service, published) = (Port::Service, Port::Published);
        // What opens, and what answers to it where the port is kept.
        let (way, tuple) = match self.who {
            Who::OutOfContainer { answers: false } => (FromContainer, tuple(Container, Remote, service)),
            Who::OutOfOtherContainer { answers: false } => (FromOtherContainer, tuple(OtherContainer, Remote, service)),
            Who::OutOfHost { answers: false } => (FromHostToWire, tuple(Host, Remote, service)),
            Who::OutOfContainer { answers: true }
            | Who::OutOfOtherContainer { answers: true }
            | Who::OutOfHost { answers: true } => (FromWire, tuple(Host, Remote, service).reversed()),
            Who::ToPublished { answers: false } => (FromWire, tuple(Remote, Host, published)),
            Who::ToPublished { answers: true } => (FromContainer, tuple(Remote, Container, service).reversed()),
            Who::Hairpin { answers: false } => (FromOtherContainer, tuple(OtherContainer, Host, published)),
            Who::Hairpin { answers: true } => (FromContainer, tuple(OtherContainer, Container, service).reversed()),
            Who::ToItself { answers: false } => (FromContainer, tuple(Container, Host, published)),
            Who::ToItself { answers: true } => (FromContainer, tuple(Gateway, Container, service).reversed()),
        };
        let moment = Moment { seconds_later: self.seconds_later, way, collects: self.collects };
        (moment, packet(self.protocol, &tuple))
    }
}
