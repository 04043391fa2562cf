//! What an operator may try: measures that are also taken without, on the same path and in the same run.

use anyhow::{Context as _, Result};
use socket2::SockRef;

use super::super::carrier::{Carrier, Evidence};
use super::super::figures::Sample;
use super::super::tcp::Congestion;
use super::super::tuned::Tuned;
use super::frames::{self, COST, OFFERED, PACKETS};
use super::streams::{BULK, IN, LATENCIES, bulk, questions_to};
use super::{Effort, Measure, Scene, Setting, Towards};

/// For how long a read looks for packets itself before it sleeps, in microseconds: the value that
/// Documentation/networking/napi.rst starts with.
const BUSY_POLL: u32 = 50;

const PLAIN: Measure = Measure {
    name: "tcp-rr-busy-poll",
    title: "TCP request/response, the container's socket polling (SO_BUSY_POLL)",
    evidence: IN,
    carriers: &[Carrier::Iptables, Carrier::Netpath],
    figures: LATENCIES,
    setting: Setting::PLAIN,
    effort: Effort::Full,
    run: questions_to_who_polls,
};

pub(super) const MEASURES: &[Measure] = &[
    PLAIN,
    Measure {
        name: "tcp-in-threaded",
        title: "TCP bulk to a published port (cubic), threaded NAPI",
        figures: BULK,
        run: |scene| {
            let _threaded = Tuned::threaded(scene.site.lab.host())?;
            bulk(scene, Towards::Container, Congestion::Cubic)
        },
        ..PLAIN
    },
    Measure {
        name: "udp-in-socket-threaded",
        title: "published UDP, 60-byte frames, into a socket in the container, threaded NAPI",
        evidence: Evidence::Translated("published_in"),
        figures: &[PACKETS, COST, OFFERED],
        run: |scene| {
            let _threaded = Tuned::threaded(scene.site.lab.host())?;
            frames::socket(scene)
        },
        ..PLAIN
    },
];

fn questions_to_who_polls(scene: &mut Scene<'_>) -> Result<Sample> {
    questions_to(scene, |listener| {
        SockRef::from(listener).set_busy_poll(BUSY_POLL).context("set SO_BUSY_POLL, which connections inherit")
    })
}
