//! How long it takes until a published port works: from `docker run` to the first datagram in the container.
//!
//! With iptables it is dockerd that writes the rules, so this is dockerd's time. netpath is measured beside a dockerd
//! that writes none, its sole mode: beside one that does, the slower of the two would be measured.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::carrier::{Carrier, Evidence};
use super::super::figures::{Better, Figure, Sample};
use super::super::rules::EXTRA_PORT;
use super::super::udp;
use super::{Effort, Measure, Scene, Setting};
use crate::lab::HOST;
use crate::server::any;

const FIGURES: &[Figure] = &[
    Figure { name: "`docker run` has returned", unit: "ms", better: Better::Less },
    Figure { name: "the last port works", unit: "ms", better: Better::Less },
];

/// How long a port may take to work once the container runs.
const DEADLINE: Duration = Duration::from_secs(60);

const ONE: Measure = Measure {
    name: "publish-1",
    title: "starting a container that publishes 1 port",
    evidence: Evidence::Setting,
    carriers: &[Carrier::Iptables, Carrier::Netpath],
    figures: FIGURES,
    setting: Setting { publishes: 1, ..Setting::PLAIN },
    effort: Effort::Full,
    run: publish,
};

pub(super) const MEASURES: &[Measure] = &[
    ONE,
    Measure {
        name: "publish-1000",
        title: "starting a container that publishes 1,000 ports",
        setting: Setting { publishes: 1000, ..Setting::PLAIN },
        effort: Effort::Seldom,
        ..ONE
    },
];

fn publish(scene: &mut Scene<'_>) -> Result<Sample> {
    let lab = &scene.site.lab;
    let last = u32::from(EXTRA_PORT) + scene.setting.publishes - 1;
    let range = format!("{EXTRA_PORT}-{last}:{EXTRA_PORT}-{last}/udp");
    let begin = Instant::now();
    let container = lab.docker().patient().idle().publish(&range).start()?;
    let returned = begin.elapsed();
    let port = u16::try_from(last).context("the last port")?;
    let server = container.place()?.enter(|| udp::sink(port))?;
    let client = lab.lan().enter(|| UdpSocket::bind(any(0)).context("bind"))?;
    server.set_read_timeout(Some(Duration::from_millis(1)))?;
    let mut answer = [0; 1];
    while server.recv(&mut answer).is_err() {
        ensure!(begin.elapsed() - returned < DEADLINE, "port {port} doesn't work after {DEADLINE:?}");
        // The host refuses until then, which is an error of the next call.
        drop(client.send_to(&[0], SocketAddrV4::new(HOST, port)));
    }
    let works = begin.elapsed();
    Ok(Sample::new(vec![milliseconds(returned), milliseconds(works)], 1))
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
