//! Packets of clients that don't exist: each has an address and a port of its own, so each opens a flow.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Place;

/// The clients' network; nobody has an address of it.
pub const SOURCES: &str = "10.66.0.0/16";

/// Ports that one client address sends from, from 1024 on.
const PORTS: u64 = 60_000;

/// A flood with a pace sends so many packets a second in as many batches.
const BATCHES: u32 = 200;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP segments that ask for a connection.
    Syn,
    /// UDP datagrams.
    Datagram,
    /// UDP datagrams, each from another address than the one before.
    Scattered,
}

/// A flood that lasts until it is ended.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    begun: Instant,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Begins to send from a namespace, a number of packets a second, or as fast as it goes. Answers are swallowed.
    ///
    /// # Errors
    /// When the namespace has no raw sockets or takes no route.
    pub fn start(place: &Place, kind: Kind, target: SocketAddrV4, per_second: Option<u32>) -> Result<Self> {
        place.run(&["ip", "route", "replace", "blackhole", SOURCES])?;
        let socket =
            place.enter(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?))?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped, begun) = (Arc::clone(&sent), Arc::clone(&stop), Instant::now());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counter.load(Ordering::Relaxed);
                let due = per_second.map_or(u64::MAX, |rate| (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64);
                if number >= due {
                    // A pace, not a wait for something.
                    thread::sleep(Duration::from_secs(1) / BATCHES);
                    continue;
                }
                send(&socket, kind, number, target)?;
                counter.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { sent, stop, begun, thread: Some(thread) })
    }

    /// Packets that were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Packets a second so far.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent() as f64 / self.begun.elapsed().as_secs_f64()
    }

    /// Ends it and gives how many packets were sent.
    ///
    /// # Errors
    /// When it couldn't send.
    pub fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            _ => bail!("the flood's thread panicked"),
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(socket: &Socket, kind: Kind, number: u64, target: SocketAddrV4) -> Result<()> {
    let (host, port) = match kind {
        Kind::Syn | Kind::Datagram => (number / PORTS + 1, number % PORTS + 1024),
        Kind::Scattered => (number + 1, 1024),
    };
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 66, 0, 0)) + u32::try_from(host % 65_536)?);
    let builder = PacketBuilder::ipv4(source.octets(), target.ip().octets(), 64);
    let port = u16::try_from(port)?;
    let mut packet = Vec::with_capacity(64);
    match kind {
        Kind::Syn => builder.tcp(port, target.port(), number as u32, 65_535).syn().write(&mut packet, &[]),
        Kind::Datagram | Kind::Scattered => builder.udp(port, target.port()).write(&mut packet, b"flood"),
    }
    .context("build a packet")?;
    match socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(*target.ip(), 0))) {
        // Sent faster than the wire takes it: as good as lost on the way.
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error).context("send a packet"),
        _ => Ok(()),
    }
}
