//! Everything together: packets of every protocol, whole and damaged, and errors about them, by every way. The other targets
//! each look at one thing for long; this one at how they act upon each other.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_fuzz::{Damage, Moment, Protocol, Tuple, error, packet, play};

#[derive(Arbitrary, Debug)]
struct Story {
    beginning: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
struct Step {
    moment: Moment,
    tuple: Tuple,
    protocol: Protocol,
    /// Type and code, when it is an error about the packet.
    error: Option<(u8, u8)>,
    damage: Damage,
}

fuzz_target!(|story: Story| {
    play(story.beginning, story.steps.iter().map(|step| (step.moment, step.frame())));
});

impl Step {
    fn frame(&self) -> Vec<u8> {
        let mut frame = packet(self.protocol, &self.tuple);
        if let Some((kind, code)) = self.error {
            // Who received it complains to who sent it.
            frame = error(kind, code, self.tuple.destination, self.tuple.source, &frame[14..]);
        }
        self.damage.apply(&mut frame);
        frame
    }
}
