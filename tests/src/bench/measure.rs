//! What is measured.

use std::net::{SocketAddrV4, TcpListener};

use anyhow::{Context as _, Result};

use super::figures::{Better, Figure, Sample};
use super::pinned::{End, Window, both};
use super::udp::{self, Generator};
use super::{Bench, PORT, tcp};
use crate::lab::{HOST, LAN};
use crate::server::listener;

/// A measure: one load, which gives one figure or more.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What `--only` takes.
    pub name: &'static str,
    /// The load in a few words.
    pub title: &'static str,
    /// The counter of netpath that its packets move.
    pub way: &'static str,
    /// What a sample's values are, in order.
    pub figures: &'static [Figure],
    /// Takes a sample.
    pub run: fn(&Bench) -> Result<Sample>,
}

const PACKETS: Figure = Figure { name: "received", unit: "packets/s", better: Better::More };
const OFFERED: Figure = Figure { name: "sent by the generator", unit: "packets/s", better: Better::Neither };
const BULK: Figure = Figure { name: "received", unit: "Mbit/s", better: Better::More };

/// Every measure.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "udp-in",
        title: "published UDP, 22-byte payload, into a container's socket",
        way: "published_in",
        figures: &[PACKETS, OFFERED],
        run: udp_in,
    },
    Measure {
        name: "tcp-rr",
        title: "TCP request/response on one connection to a published port",
        way: "published_in",
        figures: &[
            Figure { name: "p50", unit: "µs", better: Better::Less },
            Figure { name: "p99", unit: "µs", better: Better::Less },
        ],
        run: tcp_rr,
    },
    Measure {
        name: "tcp-crr",
        title: "TCP connect-request-response-close to a published port",
        way: "published_in",
        figures: &[
            Figure { name: "answered", unit: "connections/s", better: Better::More },
            Figure { name: "reset or lost", unit: "connections/s", better: Better::Neither },
        ],
        run: tcp_crr,
    },
    Measure {
        name: "tcp-in",
        title: "TCP bulk to a published port",
        way: "published_in",
        figures: &[BULK],
        run: tcp_in,
    },
    Measure {
        name: "tcp-out",
        title: "TCP bulk out of a container",
        way: "masquerade_out",
        figures: &[BULK],
        run: tcp_out,
    },
    Measure {
        name: "udp-out",
        title: "UDP out of a container, 22-byte payload, into the neighbour's socket",
        way: "masquerade_out",
        figures: &[PACKETS, OFFERED],
        run: udp_out,
    },
];

const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(HOST, PORT);

/// The largest packet that GSO makes: a transfer has at least its size divided by this of them.
const LARGEST: u64 = 65_536;

fn udp_in(bench: &Bench) -> Result<Sample> {
    udp(ends(bench, Towards::Container), PORT, HOST, Generator::Segmented)
}

fn udp_out(bench: &Bench) -> Result<Sample> {
    udp(ends(bench, Towards::Neighbour), PORT, LAN, Generator::Batched)
}

fn udp(ends: Ends<'_>, port: u16, target: std::net::Ipv4Addr, generator: Generator) -> Result<Sample> {
    let socket = ends.server.place.enter(|| udp::sink(port))?;
    let target = SocketAddrV4::new(target, port);
    let window = Window::soon();
    let (received, sent) =
        both((ends.server, || udp::count(&socket, window)), (ends.client, || generator.send(target, window)))?;
    Ok(Sample::new(vec![window.rate(received), window.rate(sent)], received))
}

fn tcp_rr(bench: &Bench) -> Result<Sample> {
    let ends = ends(bench, Towards::Container);
    let (listener, window) = (listen(&ends)?, Window::soon());
    let ((), latencies) =
        both((ends.server, || tcp::answer_one(&listener)), (ends.client, || tcp::ask_one(PUBLISHED, window)))?;
    Ok(Sample::new(vec![latencies.quantile(0.5)?, latencies.quantile(0.99)?], latencies.count()))
}

fn tcp_crr(bench: &Bench) -> Result<Sample> {
    let ends = ends(bench, Towards::Container);
    let (listener, window) = (listen(&ends)?, Window::soon());
    let ((), connections) = both(
        (ends.server, || tcp::answer_many(&listener, window)),
        (ends.client, || Ok(tcp::ask_many(PUBLISHED, window))),
    )?;
    let (answered, failed) = (connections.answered, connections.failed);
    // SYN, question, FIN.
    Ok(Sample::new(vec![window.rate(answered), window.rate(failed)], 3 * answered))
}

fn tcp_in(bench: &Bench) -> Result<Sample> {
    tcp_bulk(ends(bench, Towards::Container), PUBLISHED)
}

fn tcp_out(bench: &Bench) -> Result<Sample> {
    tcp_bulk(ends(bench, Towards::Neighbour), SocketAddrV4::new(LAN, PORT))
}

fn tcp_bulk(ends: Ends<'_>, target: SocketAddrV4) -> Result<Sample> {
    let (listener, window) = (listen(&ends)?, Window::soon());
    let (bytes, ()) =
        both((ends.server, || tcp::drain(&listener, window)), (ends.client, || tcp::pour(target, window)))?;
    Ok(Sample::new(vec![window.rate(bytes) * 8.0 / 1e6], bytes / LARGEST))
}

#[derive(Debug, Clone, Copy)]
enum Towards {
    Container,
    Neighbour,
}

#[derive(Debug, Clone, Copy)]
struct Ends<'bench> {
    server: End<'bench>,
    client: End<'bench>,
}

fn ends(bench: &Bench, towards: Towards) -> Ends<'_> {
    let (server, client) = match towards {
        Towards::Container => (bench.container(), bench.lan()),
        Towards::Neighbour => (bench.lan(), bench.container()),
    };
    let cpus = bench.cpus();
    Ends { server: End { place: server, cpu: cpus.receiver }, client: End { place: client, cpu: cpus.sender } }
}

/// Listens before the client starts.
fn listen(ends: &Ends<'_>) -> Result<TcpListener> {
    ends.server.place.enter(|| {
        let listener = listener(crate::server::any(PORT)).context("listen")?;
        // Long enough for a client whose SYN got lost.
        socket2::SockRef::from(&listener).set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        Ok(listener)
    })
}
