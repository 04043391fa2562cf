//! Traffic that lasts: what must survive while netpath is killed, restarted, detached or attached.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::client::{TcpClient, UdpClient};
use crate::netns::Place;
use crate::protocol::Progress;
use crate::wait;

const MEBIBYTE: u64 = 1024 * 1024;

/// A transfer's size: enough to fill every buffer on its way many times.
pub const TRANSFER: u64 = 256 * MEBIBYTE;

/// The pace of a transfer in whose middle something happens: it lasts for a minute.
const PACE_MEBIBYTES: u32 = 4;

/// The buffers of a client whose transfer is watched.
const BUFFER: usize = 256 * 1024;

/// A transfer that is seen to have moved this far is alive: far more than its client's buffers hold.
const SIGN_OF_LIFE: u64 = 2 * MEBIBYTE;

/// A paced transfer moves [`SIGN_OF_LIFE`] in half a second; after a lost packet it may rest for a second or two.
const LIFE_DEADLINE: Duration = Duration::from_secs(10);

/// Which way a transfer goes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The server sends.
    Download,
    /// The client sends.
    Upload,
}

/// Transfers content at once, as fast as it goes, and checks its SHA-256.
///
/// # Errors
/// When the connection breaks or the content changes.
pub fn transfer(mut client: TcpClient, direction: Direction, bytes: u64) -> Result<()> {
    let progress = Progress::default();
    match direction {
        Direction::Download => client.download(bytes, &progress),
        Direction::Upload => client.upload(bytes, &progress),
    }
}

/// A transfer that runs on a thread of its own, slowly, until [`BackgroundTransfer::finish`].
#[derive(Debug)]
pub struct BackgroundTransfer {
    what: String,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl BackgroundTransfer {
    /// Starts a transfer of 256 MiB.
    ///
    /// # Errors
    /// When the connection's buffers can't be limited.
    pub fn start(mut client: TcpClient, direction: Direction) -> Result<Self> {
        client.limit_buffers(BUFFER)?;
        let what = format!("{direction:?} by {} from {}", client.local(), client.remote());
        let progress = Arc::new(Progress::paced(PACE_MEBIBYTES));
        let shared = Arc::clone(&progress);
        let thread = thread::spawn(move || match direction {
            Direction::Download => client.download(TRANSFER, &shared),
            Direction::Upload => client.upload(TRANSFER, &shared),
        });
        Ok(Self { what, progress, thread: Some(thread) })
    }

    /// Waits until the transfer has moved on by more than buffers could hide.
    ///
    /// # Errors
    /// When it stalls or has failed.
    pub fn expect_alive(&mut self) -> Result<()> {
        let goal = self.progress.bytes() + SIGN_OF_LIFE;
        ensure!(goal < TRANSFER, "{}: the transfer is over before the test is", self.what);
        let moved = wait::until_true("the transfer to move on", LIFE_DEADLINE, || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            Ok(ended || self.progress.bytes() >= goal)
        });
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join()?;
            bail!("{}: the transfer is over before the test is", self.what);
        }
        moved.with_context(|| format!("{} stalls at byte {}", self.what, self.progress.bytes()))
    }

    /// Lets the rest go as fast as it can, and checks the SHA-256 of the whole.
    ///
    /// # Errors
    /// When the connection breaks or the content changes.
    pub fn finish(mut self) -> Result<()> {
        self.progress.lift_pace();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { bail!("{}: the transfer has ended before", self.what) };
        match thread.join() {
            Ok(result) => result.with_context(|| self.what.clone()),
            Err(_) => bail!("{}: its thread panicked", self.what),
        }
    }
}

impl Drop for BackgroundTransfer {
    fn drop(&mut self) {
        // The thread ends by itself at its next step, or when its socket's timeout has passed.
        self.progress.cancel();
    }
}

/// Questions over UDP, one after the other without a pause, of which no packet may get lost.
#[derive(Debug)]
pub struct UdpStream {
    what: String,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl UdpStream {
    /// Starts asking.
    #[must_use]
    pub fn start(client: UdpClient) -> Self {
        Self::paced(client, Duration::ZERO)
    }

    /// The same with a pause after each answer.
    #[must_use]
    pub fn paced(client: UdpClient, pause: Duration) -> Self {
        let what = format!("questions of {} to UDP {}", client.local(), client.remote());
        let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&answered), Arc::clone(&stop));
        let thread = thread::spawn(move || ask_until(&client, pause, &stopped, &counter));
        Self { what, answered, stop, thread: Some(thread) }
    }

    /// Waits until a hundred more questions have been answered.
    ///
    /// # Errors
    /// When one was not.
    pub fn expect_alive(&mut self) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + 100;
        wait::until_true("a hundred answers", LIFE_DEADLINE, || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            Ok(ended || self.answered.load(Ordering::Relaxed) >= goal)
        })
        .with_context(|| self.what.clone())?;
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) { self.join() } else { Ok(()) }
    }

    /// Stops asking; every question so far must have been answered, under one and the same address.
    ///
    /// # Errors
    /// When one was not.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { bail!("{}: they have ended before", self.what) };
        match thread.join() {
            Ok(result) => {
                result.with_context(|| format!("{}, after {}", self.what, self.answered.load(Ordering::Relaxed)))
            }
            Err(_) => bail!("{}: their thread panicked", self.what),
        }
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_until(client: &UdpClient, pause: Duration, stop: &AtomicBool, answered: &AtomicU64) -> Result<()> {
    let mut seen_first: Option<SocketAddrV4> = None;
    while !stop.load(Ordering::Relaxed) {
        let seen = client.ask(&format!("question {}", answered.load(Ordering::Relaxed)))?;
        let first = *seen_first.get_or_insert(seen);
        ensure!(seen == first, "the server saw the client as {first}, then as {seen}");
        answered.fetch_add(1, Ordering::Relaxed);
        thread::sleep(pause);
    }
    Ok(())
}

/// How often a persistent client asks.
const PERSISTENT_INTERVAL: Duration = Duration::from_millis(5);

/// A client that sends questions over UDP from one port and never stops, whatever becomes of the answers: what keeps a
/// stale flow alive.
#[derive(Debug)]
pub struct Persistent {
    local: SocketAddrV4,
    asked: Arc<AtomicU64>,
    /// The latest question that was answered.
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Persistent {
    /// Begins to ask.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn start(place: &Place, target: SocketAddrV4) -> Result<Self> {
        let client = UdpClient::connect(place, target)?;
        client.give_up_after(PERSISTENT_INTERVAL)?;
        let started =
            Self { local: client.local(), asked: Arc::default(), answered: Arc::default(), stop: Arc::default() };
        let (asked, answered, stop) =
            (Arc::clone(&started.asked), Arc::clone(&started.answered), Arc::clone(&started.stop));
        thread::spawn(move || persist(client.socket(), &asked, &answered, &stop));
        Ok(started)
    }

    /// Fails unless a question that is asked from now on is answered within a time.
    ///
    /// # Errors
    /// When none is.
    pub fn expect_answers(&self, within: Duration) -> Result<()> {
        let now = self.asked.load(Ordering::Relaxed);
        wait::until_true(&format!("an answer to {}, which asks again and again", self.local), within, || {
            Ok(self.answered.load(Ordering::Relaxed) > now)
        })
    }

    /// Fails when a question that is asked from now on is answered.
    ///
    /// # Errors
    /// When one is, within the time.
    pub fn expect_silence(&self, during: Duration) -> Result<()> {
        let now = self.asked.load(Ordering::Relaxed);
        // Nothing to wait for: that nothing comes is what is expected.
        thread::sleep(during);
        ensure!(self.asked.load(Ordering::Relaxed) > now, "{} has asked nothing", self.local);
        let answered = self.answered.load(Ordering::Relaxed);
        ensure!(answered <= now, "question {answered} of {} was answered, asked after {now}", self.local);
        Ok(())
    }
}

impl Drop for Persistent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn persist(socket: &std::net::UdpSocket, asked: &AtomicU64, answered: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        // That nobody listens now and then is what this client is for.
        drop(socket.send(number.to_string().as_bytes()));
        let begun = std::time::Instant::now();
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = String::from_utf8_lossy(&buffer[..length]);
            let number = answer.split_once(' ').and_then(|(_, number)| number.parse().ok());
            answered.fetch_max(number.unwrap_or(0), Ordering::Relaxed);
        }
        thread::sleep(PERSISTENT_INTERVAL.saturating_sub(begun.elapsed()));
    }
}
