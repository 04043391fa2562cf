//! Small UDP packets, as many as one CPU makes, counted where an application gets them.
//!
//! The generator is an ordinary socket and `sendmmsg`, as an application that sends single datagrams has it. From the
//! wire the load comes from [`super::programs`] instead, which costs less.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use super::pinned::Window;
use crate::server::any;

/// The payload: with its headers, a frame of 64 bytes.
pub const PAYLOAD: usize = 22;

/// Datagrams per system call.
const BATCH: usize = 64;

/// Enough for the receiver's CPU to be away for some milliseconds.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How soon a receiver notices that the window is over when nothing comes.
const IDLE: Duration = Duration::from_millis(50);

/// Sends from the calling thread's namespace until the window is over; gives how many in it.
///
/// # Errors
/// When the kernel refuses or the receiver isn't there.
pub fn send(target: SocketAddrV4, window: Window) -> Result<u64> {
    let socket = UdpSocket::bind(any(fresh_port())).context("bind the sender")?;
    socket.connect(target).with_context(|| format!("connect to UDP {target}"))?;
    let mut batch = Batch::new();
    send_until(window, || batch.send(&socket))
}

/// A socket of the calling thread's namespace that [`count`] reads.
///
/// # Errors
/// When the port is taken.
pub fn sink(port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(any(port)).with_context(|| format!("bind UDP port {port}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge the receive buffer")?;
    SockRef::from(&socket).set_read_timeout(Some(IDLE)).context("set a read timeout")?;
    Ok(socket)
}

/// Receives until the window is over; gives how many datagrams in it.
///
/// # Errors
/// When receiving fails.
pub fn count(socket: &UdpSocket, window: Window) -> Result<u64> {
    let mut batch = Batch::new();
    let mut count = 0;
    while !window.is_over() {
        let received = batch.receive(socket).context("receive")?;
        if window.counts(Instant::now()) {
            count += received as u64;
        }
    }
    Ok(count)
}

/// A source port that no earlier sample has used: a flow of one is never mistaken for a flow of another.
fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn send_until(window: Window, mut send: impl FnMut() -> std::io::Result<usize>) -> Result<u64> {
    let mut count = 0;
    while !window.is_over() {
        let sent = match send() {
            Ok(sent) => sent,
            // The interface's queue is full: the packet path is slower than the generator, which is what is measured.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => 0,
            Err(error) => bail!("send: {error}"),
        };
        if window.counts(Instant::now()) {
            count += sent as u64;
        }
    }
    Ok(count)
}

/// Datagrams for `sendmmsg` and `recvmmsg`.
struct Batch {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to; on the heap, so that it stays where it is when the batch moves.
    _vectors: Vec<libc::iovec>,
    _payloads: Vec<[u8; PAYLOAD]>,
}

impl Batch {
    fn new() -> Self {
        let mut payloads = vec![[0; PAYLOAD]; BATCH];
        let base =
            |payload: &mut [u8; PAYLOAD]| libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: PAYLOAD };
        let mut vectors: Vec<_> = payloads.iter_mut().map(base).collect();
        let header = |vector: &mut libc::iovec| {
            // SAFETY: all fields are numbers and pointers, for which zero is a value: no address, no control data.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (vector, 1);
            header
        };
        let headers = vectors.iter_mut().map(header).collect();
        Self { headers, _vectors: vectors, _payloads: payloads }
    }

    fn send(&mut self, socket: &UdpSocket) -> std::io::Result<usize> {
        // SAFETY: there are BATCH headers, and what they point to lives as long as the batch, at fixed places.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH as u32, 0) };
        usize::try_from(sent).map_err(|_| std::io::Error::last_os_error())
    }

    fn receive(&mut self, socket: &UdpSocket) -> std::io::Result<usize> {
        let (descriptor, headers) = (socket.as_raw_fd(), self.headers.as_mut_ptr());
        // SAFETY: as above, and only this batch refers to the payloads that the kernel writes.
        let received =
            unsafe { libc::recvmmsg(descriptor, headers, BATCH as u32, libc::MSG_WAITFORONE, std::ptr::null_mut()) };
        match usize::try_from(received) {
            Ok(received) => Ok(received),
            Err(_) => match std::io::Error::last_os_error() {
                error if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
                error => Err(error),
            },
        }
    }
}
