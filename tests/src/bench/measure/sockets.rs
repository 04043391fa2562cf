//! Small UDP datagrams that a container sends, with a system call for some at a time.

use anyhow::Result;

use super::super::carrier::Evidence;
use super::super::figures::Sample;
use super::super::pinned::both;
use super::super::{PORT, busy, udp};
use super::frames::{COST, OFFERED, PACKETS};
use super::{Effort, Measure, Scene, Setting, TRANSLATORS_AND_ROUTED, Towards, per_million};

pub(super) const MEASURES: &[Measure] = &[Measure {
    name: "udp-out",
    title: "UDP out of a container, 22-byte payload, into the neighbour's socket",
    evidence: Evidence::Translated("masquerade_out"),
    carriers: TRANSLATORS_AND_ROUTED,
    figures: &[PACKETS, COST, OFFERED],
    setting: Setting::PLAIN,
    effort: Effort::Always,
    run: |scene| datagrams(scene, Towards::Neighbour),
}];

/// As many datagrams as one CPU sends, into a socket.
pub(super) fn datagrams(scene: &Scene<'_>, towards: Towards) -> Result<Sample> {
    let ends = scene.ends(towards)?;
    let socket = ends.server.place.enter(|| udp::sink(PORT))?;
    let window = scene.window();
    let ((received, sent), busy) = busy::during(window, || {
        both((ends.server, || udp::count(&socket, window)), (ends.client, || udp::send(ends.target, window)))
    })?;
    let values = vec![window.rate(received), per_million(busy, received), window.rate(sent)];
    Ok(Sample::new(values, received))
}
