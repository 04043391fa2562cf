//! The asking side of the test peer, with its sockets in whichever namespace a test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::netns::Place;
use crate::protocol::{Progress, receive_content, send_content};

/// Longer than one lost SYN (1 s) and its repetition (2 s) would take to be noticed: a test that expects none lost
/// measures the time itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which nothing moves for so long is broken.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer to a datagram may take on this machine, its queues and neighbour look-ups included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A TCP connection to a peer.
#[derive(Debug)]
pub struct TcpClient {
    reader: BufReader<TcpStream>,
    local: SocketAddrV4,
    remote: SocketAddrV4,
}

impl TcpClient {
    /// Connects from a namespace.
    ///
    /// # Errors
    /// When refused, unreachable or not answered within 5 s.
    pub fn connect(place: &Place, target: SocketAddrV4) -> Result<Self> {
        Self::connect_from(place, 0, target)
    }

    /// Connects from a namespace and a source port; 0 lets the kernel choose.
    ///
    /// # Errors
    /// See [`Self::connect`].
    pub fn connect_from(place: &Place, source_port: u16, target: SocketAddrV4) -> Result<Self> {
        Self::connect_within(place, source_port, target, CONNECT_TIMEOUT)
    }

    /// Connects within a given time.
    ///
    /// # Errors
    /// See [`Self::connect`].
    pub fn connect_within(place: &Place, source_port: u16, target: SocketAddrV4, within: Duration) -> Result<Self> {
        let what = || format!("connect from {} to TCP {target}", place.label());
        let stream = place
            .enter(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.bind(&any_address(source_port).into())?;
                socket.connect_timeout(&SocketAddr::V4(target).into(), within)?;
                Ok(TcpStream::from(socket))
            })
            .with_context(what)?;
        stream.set_nodelay(true).with_context(what)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT)).with_context(what)?;
        stream.set_write_timeout(Some(STALL_TIMEOUT)).with_context(what)?;
        let local = ipv4(stream.local_addr().with_context(what)?)?;
        Ok(Self { reader: BufReader::new(stream), local, remote: target })
    }

    /// Talks over a connection that a test has made by itself.
    ///
    /// # Errors
    /// When it has ended, or isn't one of IPv4.
    pub fn over(stream: TcpStream) -> Result<Self> {
        let local = ipv4(stream.local_addr().context("ask for a connection's own end")?)?;
        let remote = ipv4(stream.peer_addr().context("ask for a connection's peer")?)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT)).context("set a read timeout")?;
        stream.set_write_timeout(Some(STALL_TIMEOUT)).context("set a write timeout")?;
        Ok(Self { reader: BufReader::new(stream), local, remote })
    }

    /// The connection's own end.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Where it was connected to.
    #[must_use]
    pub fn remote(&self) -> SocketAddrV4 {
        self.remote
    }

    /// Makes an answer that takes longer a failure.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_up_after(&self, within: Duration) -> Result<()> {
        self.reader.get_ref().set_read_timeout(Some(within)).context("set a read timeout")
    }

    /// Takes [`Self::give_up_after`] back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn be_patient(&self) -> Result<()> {
        self.give_up_after(STALL_TIMEOUT)
    }

    /// Keeps the connection's own buffers small, so that what goes through it soon depends on the network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit_buffers(&self, bytes: usize) -> Result<()> {
        let socket = SockRef::from(self.reader.get_ref());
        socket.set_recv_buffer_size(bytes).context("limit the receive buffer")?;
        socket.set_send_buffer_size(bytes).context("limit the send buffer")
    }

    /// Ends the connection at once, as a crash does: with a reset, and without waiting for the peer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(self) -> Result<()> {
        SockRef::from(self.reader.get_ref()).set_linger(Some(Duration::ZERO)).context("ask for a reset")
    }

    /// The address under which the server sees this connection.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn who(&mut self) -> Result<SocketAddrV4> {
        let answer = self.command("who")?;
        answer.parse().with_context(|| format!("{answer:?} is no address"))
    }

    /// Sends a line and expects it back.
    ///
    /// # Errors
    /// When the connection is broken or another line comes.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        let answer = self.command(&format!("echo {text}"))?;
        ensure!(answer == text, "sent {text:?}, got {answer:?}");
        Ok(())
    }

    /// Receives content and checks its SHA-256.
    ///
    /// # Errors
    /// When the connection breaks or the digests differ.
    pub fn download(&mut self, count: u64, progress: &Progress) -> Result<()> {
        self.send(&format!("download {count}"))?;
        let received = receive_content(&mut self.reader, count, progress)
            .with_context(|| format!("download from {} by {}", self.remote, self.local))?;
        self.expect_digest(&received)
    }

    /// Sends content and checks its SHA-256.
    ///
    /// # Errors
    /// When the connection breaks or the digests differ.
    pub fn upload(&mut self, count: u64, progress: &Progress) -> Result<()> {
        self.send(&format!("upload {count}"))?;
        let sent = send_content(self.reader.get_mut(), count, progress)
            .with_context(|| format!("upload to {} by {}", self.remote, self.local))?;
        self.expect_digest(&sent)
    }

    fn expect_digest(&mut self, own: &str) -> Result<()> {
        let theirs = self.line()?;
        ensure!(own == theirs, "the content changed on its way: SHA-256 {own} here, {theirs} there");
        Ok(())
    }

    fn command(&mut self, command: &str) -> Result<String> {
        self.send(command)?;
        self.line()
    }

    fn send(&mut self, command: &str) -> Result<()> {
        let what = || format!("send {command:?} from {} to {}", self.local, self.remote);
        self.reader.get_ref().write_all(format!("{command}\n").as_bytes()).with_context(what)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let what = || format!("read an answer of {} at {}", self.remote, self.local);
        let length = self.reader.read_line(&mut line).with_context(what)?;
        ensure!(length > 0, "{} closed the connection to {}", self.remote, self.local);
        Ok(line.trim_end_matches('\n').to_owned())
    }
}

/// A UDP socket connected to a peer.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    local: SocketAddrV4,
    remote: SocketAddrV4,
}

impl UdpClient {
    /// Connects a socket of a namespace; only answers of exactly that address will be seen.
    ///
    /// # Errors
    /// When there is no route.
    pub fn connect(place: &Place, target: SocketAddrV4) -> Result<Self> {
        Self::connect_from(place, 0, target)
    }

    /// Connects a socket of a namespace and a source port; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the port is taken or there is no route.
    pub fn connect_from(place: &Place, source_port: u16, target: SocketAddrV4) -> Result<Self> {
        let what = || format!("connect from {} to UDP {target}", place.label());
        let socket = place
            .enter(|| {
                let socket = UdpSocket::bind(any_address(source_port))?;
                socket.connect(target)?;
                Ok(socket)
            })
            .with_context(what)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT)).with_context(what)?;
        let local = ipv4(socket.local_addr().with_context(what)?)?;
        Ok(Self { socket, local, remote: target })
    }

    /// The socket's own end.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Where it was connected to.
    #[must_use]
    pub fn remote(&self) -> SocketAddrV4 {
        self.remote
    }

    /// Makes an answer that takes longer a failure.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_up_after(&self, within: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(within)).context("set a read timeout")
    }

    /// Takes [`Self::give_up_after`] back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn be_patient(&self) -> Result<()> {
        self.give_up_after(ANSWER_TIMEOUT)
    }

    /// Sends one datagram, once, and gives the address under which the server saw it.
    ///
    /// # Errors
    /// When no answer or a wrong one comes within 2 s: nothing is repeated, one lost packet fails.
    pub fn ask(&self, text: &str) -> Result<SocketAddrV4> {
        let what = || format!("ask UDP {} from {}", self.remote, self.local);
        self.socket.send(text.as_bytes()).with_context(what)?;
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).with_context(what)?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        let (seen, echoed) = answer.split_once(' ').with_context(|| format!("{answer:?} is no answer"))?;
        ensure!(echoed == text, "sent {text:?}, got {echoed:?}");
        seen.parse().with_context(|| format!("{seen:?} is no address"))
    }

    /// Sends one datagram and gives the error that the kernel reports for it.
    ///
    /// # Errors
    /// When there is an answer, or nothing within 2 s.
    pub fn ask_in_vain(&self, text: &str) -> Result<std::io::ErrorKind> {
        self.socket.send(text.as_bytes()).context("send")?;
        match self.socket.recv(&mut [0; 64]) {
            Ok(_) => bail!("{} answered {}", self.remote, self.local),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                bail!("{} got neither an answer of {} nor an error", self.local, self.remote)
            }
            Err(error) => Ok(error.kind()),
        }
    }

    /// The socket itself, for options that only one test needs.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

fn ipv4(address: SocketAddr) -> Result<SocketAddrV4> {
    let SocketAddr::V4(address) = address else { bail!("{address} is no IPv4 address") };
    Ok(address)
}
