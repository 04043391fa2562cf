//! TCP with both ends on one CPU.
//!
//! Elsewhere the ends have a CPU each, as they have on most hosts. Then a question waits for the other CPU to wake, which on a
//! virtual machine takes longer than the packet path, and a connection's packets overtake each other between the two. On one
//! CPU nothing is left but what the path and the sockets take.

use super::super::carrier::{Carrier, Evidence};
use super::super::tcp::Congestion;
use super::streams::{BULK, CONNECTIONS, IN, LATENCIES, OUT, bulk, connections, questions};
use super::{Effort, Measure, Scene, Setting, Towards};

const PLAIN: Measure = Measure {
    name: "tcp-rr-one-cpu",
    title: "TCP request/response, both ends on one CPU",
    evidence: IN,
    carriers: &[Carrier::Iptables, Carrier::Routed, Carrier::Netpath],
    figures: LATENCIES,
    setting: Setting::PLAIN,
    effort: Effort::Full,
    run: |scene| questions(on_one(scene)),
};

const LOCAL: Measure =
    Measure { evidence: Evidence::Way("local"), carriers: &[Carrier::Iptables, Carrier::Netpath], ..PLAIN };

pub(super) const MEASURES: &[Measure] = &[
    PLAIN,
    Measure {
        name: "tcp-crr-one-cpu",
        title: "TCP connect-request-response-close, both ends on one CPU",
        figures: CONNECTIONS,
        run: |scene| connections(on_one(scene), Towards::Container),
        ..PLAIN
    },
    Measure {
        name: "tcp-in-one-cpu",
        title: "TCP bulk to a published port (cubic), both ends on one CPU",
        figures: BULK,
        run: |scene| bulk(on_one(scene), Towards::Container, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "tcp-out-one-cpu",
        title: "TCP bulk out of a container (cubic), both ends on one CPU",
        evidence: OUT,
        figures: BULK,
        run: |scene| bulk(on_one(scene), Towards::Neighbour, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "local-tcp-one-cpu",
        title: "container to container: TCP bulk (cubic), both ends on one CPU",
        figures: BULK,
        run: |scene| bulk(on_one(scene), Towards::OtherContainer, Congestion::Cubic),
        ..LOCAL
    },
    Measure {
        name: "local-crr-one-cpu",
        title: "container to container: TCP connect-request-response-close, both ends on one CPU",
        figures: CONNECTIONS,
        run: |scene| connections(on_one(scene), Towards::OtherContainer),
        ..LOCAL
    },
];

fn on_one<'scene, 'run>(scene: &'scene mut Scene<'run>) -> &'scene Scene<'run> {
    scene.cpus.receiver = scene.cpus.sender;
    scene
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_also_measured_on_two() {
        let two: Vec<_> = [super::super::streams::MEASURES, super::super::local::MEASURES].concat();
        for one in MEASURES {
            let name = one.name.strip_suffix("-one-cpu");
            assert!(two.iter().any(|measure| Some(measure.name) == name), "{}", one.name);
        }
    }
}
