//! TCP as applications use it: questions on one connection, a connection per question, bulk.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use super::pinned::Window;

/// A question, and its answer.
const MESSAGE: usize = 64;

/// What is written or read at once in bulk.
const CHUNK: usize = 256 * 1024;

/// How long a connection of bulk lasts. Its rate is decided in its first moments, at random, by how large its receiver's
/// buffer grows and whether what waits there still fits into the CPU's caches: a sample has to see many.
const STREAM: Duration = Duration::from_millis(100);

/// Nothing here takes so long unless packets get lost.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// How soon a server notices that the window is over.
const IDLE: Duration = Duration::from_millis(50);

/// How a sender of bulk decides how much it may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Linux' default: as much as gets through.
    Cubic,
    /// Some round trips' worth of what it has measured. On links without a length its rate follows the time that a
    /// round trip takes rather than what a packet costs.
    Bbr,
}

impl Congestion {
    const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// Whether this kernel has it.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn is_offered(self) -> Result<bool> {
        let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let offered = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        Ok(offered.split_whitespace().any(|name| name == self.name()))
    }

    fn set(self, stream: &TcpStream) -> Result<()> {
        setsockopt(stream, sockopt::TcpCongestion, &OsString::from(self.name()))
            .with_context(|| format!("set TCP_CONGESTION to {}", self.name()))
    }
}

/// Times of questions on one connection, in nanoseconds, sorted.
#[derive(Debug)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The time within which a share of the questions (0 to 1) was answered, in microseconds.
    ///
    /// # Errors
    /// When none was.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a vector of some 100,000 and times of microseconds"
    )]
    pub fn quantile(&self, share: f64) -> Result<f64> {
        let index = (share * self.0.len() as f64) as usize;
        let time = self.0.get(index.min(self.0.len().saturating_sub(1))).context("no question was answered")?;
        Ok(*time as f64 / 1000.0)
    }
}

/// Answers the questions of one connection until it is closed.
///
/// # Errors
/// When the connection breaks.
pub fn answer_one(listener: &TcpListener) -> Result<()> {
    let mut stream = accept(listener)?;
    while answer(&mut stream)? {}
    Ok(())
}

/// Answers one question per connection until the window is over. A connection that breaks is the client's to count.
///
/// Two threads: one may be stuck for a while with a connection whose other end has gone.
///
/// # Errors
/// When the listener breaks.
pub fn answer_many(listener: &TcpListener, window: Window) -> Result<()> {
    SockRef::from(listener).set_read_timeout(Some(IDLE)).context("set a timeout")?;
    let serve = || {
        while !window.is_over() {
            match listener.accept() {
                Ok((stream, _client)) => drop(answer_once(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accept"),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(serve);
        serve()?;
        other.join().map_err(|_| anyhow!("a server thread panicked"))?
    })
}

fn answer_once(mut stream: TcpStream) -> Result<()> {
    prepare(&stream)?;
    answer(&mut stream)?;
    // The client closes first, as most do.
    stream.read(&mut [0; 1]).context("wait for the end").map(drop)
}

/// Asks on one connection, one question after the other, until the window is over.
///
/// # Errors
/// When the connection breaks.
pub fn ask_one(target: SocketAddrV4, window: Window) -> Result<Latencies> {
    let mut stream = connect(target)?;
    let mut times = Vec::with_capacity(1 << 20);
    while !window.is_over() {
        let begin = Instant::now();
        ask(&mut stream)?;
        if window.counts(begin) {
            times.push(u64::try_from(begin.elapsed().as_nanos()).context("a time")?);
        }
    }
    times.sort_unstable();
    Ok(Latencies(times))
}

/// What became of many connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connections {
    /// Those whose question was answered.
    pub answered: u64,
    /// Those that were refused, reset or not answered in time.
    pub failed: u64,
}

/// Connects, asks and closes, again and again, until the window is over.
#[must_use]
pub fn ask_many(target: SocketAddrV4, window: Window) -> Connections {
    let mut connections = Connections::default();
    while !window.is_over() {
        let result = connect(target).and_then(|mut stream| ask(&mut stream));
        if window.counts(Instant::now()) {
            let counter = if result.is_ok() { &mut connections.answered } else { &mut connections.failed };
            *counter += 1;
        }
    }
    connections
}

/// Sends bulk until the window is over, over one connection after the other.
///
/// # Errors
/// When a connection breaks before.
pub fn pour(target: SocketAddrV4, congestion: Congestion, window: Window) -> Result<()> {
    let chunk = vec![0; CHUNK];
    while !window.is_over() {
        let end = Instant::now() + STREAM;
        match pour_until(target, congestion, &chunk, || window.is_over() || Instant::now() > end) {
            // The receiver stops when the window is over, whatever is on its way.
            Err(_) if window.is_over() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Sends until it is over, and waits until the receiver has taken it all: its connection is the only one then.
fn pour_until(target: SocketAddrV4, congestion: Congestion, chunk: &[u8], is_over: impl Fn() -> bool) -> Result<()> {
    let mut stream = connect(target)?;
    congestion.set(&stream)?;
    while !is_over() {
        stream.write_all(chunk).context("send bulk")?;
    }
    stream.shutdown(Shutdown::Write).context("end bulk")?;
    stream.read(&mut [0; 1]).context("wait until bulk is received").map(drop)
}

/// Receives bulk until the window is over, over one connection after the other; gives how many bytes in it.
///
/// # Errors
/// When a connection breaks before.
pub fn drain(listener: &TcpListener, window: Window) -> Result<u64> {
    SockRef::from(listener).set_read_timeout(Some(IDLE)).context("set a timeout")?;
    let mut chunk = vec![0; CHUNK];
    let mut count = 0;
    while !window.is_over() {
        let mut stream = match listener.accept() {
            Ok((stream, _client)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("accept"),
        };
        prepare(&stream)?;
        while !window.is_over() {
            let length = stream.read(&mut chunk).context("receive bulk")?;
            if length == 0 {
                break;
            }
            if window.counts(Instant::now()) {
                count += length as u64;
            }
        }
    }
    Ok(count)
}

fn connect(target: SocketAddrV4) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&target.into(), STALL).with_context(|| format!("connect to TCP {target}"))?;
    prepare(&stream)?;
    Ok(stream)
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _client) = listener.accept().context("accept")?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(STALL)).context("set a read timeout")?;
    stream.set_write_timeout(Some(STALL)).context("set a write timeout")
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut message = [0; MESSAGE];
    stream.write_all(&message).context("ask")?;
    stream.read_exact(&mut message).context("wait for the answer")
}

/// Answers a question; false when there is none.
fn answer(stream: &mut TcpStream) -> Result<bool> {
    let mut message = [0; MESSAGE];
    match stream.read_exact(&mut message) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        other => other.context("wait for a question")?,
    }
    stream.write_all(&message).context("answer")?;
    Ok(true)
}
