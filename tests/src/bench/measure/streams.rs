//! TCP: questions on one connection, a connection per question, bulk.

use std::net::TcpListener;

use anyhow::Result;

use super::super::carrier::Evidence;
use super::super::figures::{Better, Figure, Sample};
use super::super::pinned::both;
use super::super::tuned::Tuned;
use super::super::{busy, tcp};
use super::{Effort, Measure, Scene, Setting, TRANSLATORS_AND_ROUTED, Towards};
use tcp::Congestion;

pub(super) const BULK: &[Figure] = &[
    Figure { name: "received", unit: "Mbit/s", better: Better::More },
    Figure { name: "cost", unit: "CPU s per GB", better: Better::Less },
];
pub(super) const CONNECTIONS: &[Figure] = &[
    Figure { name: "answered", unit: "connections/s", better: Better::More },
    Figure { name: "reset or lost", unit: "connections/s", better: Better::Neither },
];
pub(super) const LATENCIES: &[Figure] = &[
    Figure { name: "p50", unit: "µs", better: Better::Less },
    Figure { name: "p99", unit: "µs", better: Better::Less },
    Figure { name: "p99.9", unit: "µs", better: Better::Less },
];

pub(super) const IN: Evidence = Evidence::Translated("published_in");
pub(super) const OUT: Evidence = Evidence::Translated("masquerade_out");

/// The largest packet that GSO makes: a transfer has at least its size divided by this of them.
const LARGEST: u64 = 65_536;

const PLAIN: Measure = Measure {
    name: "tcp-rr",
    title: "TCP request/response on one connection to a published port",
    evidence: IN,
    carriers: TRANSLATORS_AND_ROUTED,
    figures: LATENCIES,
    setting: Setting::PLAIN,
    effort: Effort::Always,
    run: |scene| questions(scene),
};

pub(super) const MEASURES: &[Measure] = &[
    PLAIN,
    Measure {
        name: "tcp-crr",
        title: "TCP connect-request-response-close to a published port",
        figures: CONNECTIONS,
        run: |scene| connections(scene, Towards::Container),
        ..PLAIN
    },
    Measure {
        name: "tcp-in",
        title: "TCP bulk to a published port (cubic)",
        figures: BULK,
        run: |scene| bulk(scene, Towards::Container, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "tcp-out",
        title: "TCP bulk out of a container (cubic)",
        evidence: OUT,
        figures: BULK,
        run: |scene| bulk(scene, Towards::Neighbour, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "tcp-out-ordered",
        title: "TCP bulk out of a container (cubic), kept in order",
        evidence: OUT,
        figures: BULK,
        run: |scene| bulk_in_order(scene, Towards::Neighbour, Congestion::Cubic),
        ..PLAIN
    },
    Measure {
        name: "tcp-in-bbr",
        title: "TCP bulk to a published port (bbr)",
        figures: BULK,
        effort: Effort::Full,
        run: |scene| bulk(scene, Towards::Container, Congestion::Bbr),
        ..PLAIN
    },
    Measure {
        name: "tcp-out-bbr",
        title: "TCP bulk out of a container (bbr)",
        evidence: OUT,
        figures: BULK,
        effort: Effort::Full,
        run: |scene| bulk(scene, Towards::Neighbour, Congestion::Bbr),
        ..PLAIN
    },
];

/// One question after the other, on one connection.
pub(super) fn questions(scene: &Scene<'_>) -> Result<Sample> {
    questions_to(scene, |_| Ok(()))
}

/// The same; `prepare` gets the socket that answers, before anybody connects.
pub(super) fn questions_to(scene: &Scene<'_>, prepare: impl FnOnce(&TcpListener) -> Result<()>) -> Result<Sample> {
    let ends = scene.ends(Towards::Container)?;
    let (listener, window) = (ends.listen()?, scene.window());
    prepare(&listener)?;
    let ((), latencies) =
        both((ends.server, || tcp::answer_one(&listener)), (ends.client, || tcp::ask_one(ends.target, window)))?;
    let quantile = |share| latencies.quantile(share);
    Ok(Sample::new(vec![quantile(0.5)?, quantile(0.99)?, quantile(0.999)?], latencies.count()))
}

/// A connection per question.
pub(super) fn connections(scene: &Scene<'_>, towards: Towards) -> Result<Sample> {
    let ends = scene.ends(towards)?;
    let (listener, window) = (ends.listen()?, scene.window());
    let ((), connections) = both(
        (ends.server, || tcp::answer_many(&listener, window)),
        (ends.client, || Ok(tcp::ask_many(ends.target, window))),
    )?;
    let (answered, failed) = (connections.answered, connections.failed);
    // SYN, question, FIN.
    Ok(Sample::new(vec![window.rate(answered), window.rate(failed)], 3 * answered))
}

/// The same, with what containers send steered to the receiver's CPU: what the path costs, not how often packets overtake
/// each other.
pub(super) fn bulk_in_order(scene: &Scene<'_>, towards: Towards, congestion: Congestion) -> Result<Sample> {
    let _order = Tuned::in_order(scene.site.lab.host(), scene.cpus.receiver)?;
    bulk(scene, towards, congestion)
}

/// As much as gets through, over one connection after the other.
#[expect(clippy::cast_precision_loss, reason = "gigabytes are far below 2^52")]
pub(super) fn bulk(scene: &Scene<'_>, towards: Towards, congestion: Congestion) -> Result<Sample> {
    let ends = scene.ends(towards)?;
    let (listener, window) = (ends.listen()?, scene.window());
    let ((bytes, ()), busy) = busy::during(window, || {
        both(
            (ends.server, || tcp::drain(&listener, window)),
            (ends.client, || tcp::pour(ends.target, congestion, window)),
        )
    })?;
    let cost = if bytes == 0 { 0.0 } else { busy * 1e9 / bytes as f64 };
    Ok(Sample::new(vec![window.rate(bytes) * 8.0 / 1e6, cost], bytes / LARGEST))
}
