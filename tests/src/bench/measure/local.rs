//! From one container to another on the same network: Linux' bridge against netpath's redirect.

use super::super::carrier::{Carrier, Evidence};
use super::super::tcp::Congestion;
use super::frames::{COST, OFFERED, PACKETS};
use super::streams::{BULK, CONNECTIONS, bulk, bulk_in_order, connections};
use super::{Effort, Measure, Setting, Towards, sockets};

const PLAIN: Measure = Measure {
    name: "local-udp",
    title: "container to container: UDP, 22-byte payload, into a socket",
    evidence: Evidence::Way("local"),
    carriers: &[Carrier::Iptables, Carrier::Netpath],
    figures: &[PACKETS, COST, OFFERED],
    setting: Setting::PLAIN,
    effort: Effort::Always,
    run: |scene| sockets::datagrams(scene, Towards::OtherContainer),
};

pub(super) const MEASURES: &[Measure] = &[
    PLAIN,
    Measure {
        name: "local-tcp",
        title: "container to container: TCP bulk (cubic)",
        figures: BULK,
        run: |scene| bulk(scene, Towards::OtherContainer, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "local-tcp-ordered",
        title: "container to container: TCP bulk (cubic), kept in order",
        figures: BULK,
        run: |scene| bulk_in_order(scene, Towards::OtherContainer, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "local-crr",
        title: "container to container: TCP connect-request-response-close",
        figures: CONNECTIONS,
        run: |scene| connections(scene, Towards::OtherContainer),
        ..PLAIN
    },
];
