//! The serving side of the test peer: the same in a container (as the program `netpath-peer`) and in the tests' own
//! process (with sockets in another namespace). One thread per socket and per connection; see [`crate::protocol`].

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::protocol::{Progress, receive_content, send_content};

/// How soon a server notices that it is to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted: more than any test opens at once.
const BACKLOG: i32 = 1024;

/// Serves until dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    address: SocketAddrV4,
}

impl Server {
    /// Serves TCP at an address of the calling thread's namespace; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn tcp(address: SocketAddrV4) -> Result<Self> {
        let listener = listener(address).with_context(|| format!("listen on TCP {address}"))?;
        let server = Self::new(listener.local_addr().context("ask for the listener's address")?)?;
        let stop = Arc::clone(&server.stop);
        thread::spawn(move || accept_until(&stop, &listener));
        Ok(server)
    }

    /// Serves UDP at an address of the calling thread's namespace; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn udp(address: SocketAddrV4) -> Result<Self> {
        let socket = UdpSocket::bind(address).with_context(|| format!("bind UDP {address}"))?;
        socket.set_read_timeout(Some(STOP_INTERVAL)).context("set a read timeout")?;
        let server = Self::new(socket.local_addr().context("ask for the socket's address")?)?;
        let stop = Arc::clone(&server.stop);
        thread::spawn(move || answer_until(&stop, &socket));
        Ok(server)
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The port at which it serves.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    fn new(address: SocketAddr) -> Result<Self> {
        let SocketAddr::V4(address) = address else { bail!("{address} is no IPv4 address") };
        Ok(Self { stop: Arc::new(AtomicBool::new(false)), address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Any address, one port.
#[must_use]
pub fn any(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)
}

/// Listens on TCP, with room for many connections that wait, and an accept() that returns now and then without one.
pub(crate) fn listener(address: SocketAddrV4) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.listen(BACKLOG)?;
    // On Linux a receive timeout bounds accept() too.
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    Ok(socket.into())
}

fn accept_until(stop: &AtomicBool, listener: &TcpListener) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                thread::spawn(move || {
                    if let Err(error) = converse(stream, peer) {
                        eprintln!("connection from {peer}: {error:#}");
                    }
                });
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return eprintln!("accept: {error}"),
        }
    }
}

fn converse(stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(None).context("clear the read timeout")?;
    let mut writer = stream.try_clone().context("duplicate the socket")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).context("read a command")? == 0 {
            return Ok(());
        }
        let (verb, rest) = line.trim_end_matches('\n').split_once(' ').unwrap_or((line.trim_end(), ""));
        let answer = match verb {
            "who" => peer.to_string(),
            "echo" => rest.to_owned(),
            "download" => send_content(&mut writer, rest.parse().context("read the count")?, &Progress::default())?,
            "upload" => receive_content(&mut reader, rest.parse().context("read the count")?, &Progress::default())?,
            _ => bail!("no such command: {line}"),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).context("answer")?;
    }
}

fn answer_until(stop: &AtomicBool, socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                let mut answer = format!("{peer} ").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                if let Err(error) = socket.send_to(&answer, peer) {
                    eprintln!("answer {peer}: {error}");
                }
            }
            // An ICMP error for an earlier answer: its client has gone.
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return eprintln!("receive: {error}"),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
