//! ICMP as a host's own tools see it: echo requests, and the errors that come back for a socket's packets.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{Icmpv4Slice, Icmpv4Type, Ipv4Slice};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Place;
use crate::wait;

/// How long an answer may take on this machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// ICMP type and code of "fragmentation needed and DF set".
pub const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
/// ICMP type and code of "port unreachable".
pub const PORT_UNREACHABLE: (u8, u8) = (3, 3);
/// ICMP type and code of "time to live exceeded in transit".
pub const TIME_EXCEEDED: (u8, u8) = (11, 0);

/// An ICMP error that the kernel matched to a socket's packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Type and code.
    pub kind: (u8, u8),
    /// Who sent it.
    pub from: Ipv4Addr,
    /// The MTU that it reports, for [`FRAGMENTATION_NEEDED`].
    pub mtu: u32,
}

/// A raw socket for echo requests and answers.
#[derive(Debug)]
pub struct EchoSocket {
    socket: Socket,
}

/// An echo message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The address that it came from.
    pub from: Ipv4Addr,
    /// Its identifier.
    pub id: u16,
    /// What it carried.
    pub payload: Vec<u8>,
}

impl EchoSocket {
    /// Opens a socket in a namespace. It sees every ICMP message that arrives there.
    ///
    /// # Errors
    /// When not root.
    pub fn open(place: &Place) -> Result<Self> {
        place.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            Ok(Self { socket })
        })
    }

    /// Sets DF on what it sends, whatever path MTU is known.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn never_fragment(&self) -> Result<()> {
        set_path_mtu_discovery(self.socket.as_raw_fd(), libc::IP_PMTUDISC_PROBE)
    }

    /// Sends an echo request.
    ///
    /// # Errors
    /// When there is no route, or it exceeds the interface's MTU.
    pub fn request(&self, target: Ipv4Addr, id: u16, sequence: u16, payload: &[u8]) -> Result<()> {
        let header = etherparse::IcmpEchoHeader { id, seq: sequence };
        let message = etherparse::Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(header), payload);
        let packet = [message.to_bytes().as_slice(), payload].concat();
        let target = SocketAddr::V4(SocketAddrV4::new(target, 0)).into();
        self.socket.send_to(&packet, &target).context("send an echo request")?;
        Ok(())
    }

    /// Waits for an echo answer with an identifier.
    ///
    /// # Errors
    /// When none comes within 2 s.
    pub fn answer(&self, id: u16) -> Result<Echo> {
        self.receive("an echo answer", |kind| matches!(kind, Icmpv4Type::EchoReply(header) if header.id == id))
    }

    /// Waits for an echo request with a payload.
    ///
    /// # Errors
    /// When none comes within 2 s.
    pub fn requested(&self, payload: &[u8]) -> Result<Echo> {
        loop {
            let echo = self.receive("an echo request", |kind| matches!(kind, Icmpv4Type::EchoRequest(_)))?;
            if echo.payload == payload {
                return Ok(echo);
            }
        }
    }

    /// Waits for an ICMP error about what it sent.
    ///
    /// # Errors
    /// When none comes within 2 s.
    pub fn error(&self) -> Result<IcmpError> {
        queued_error(self.socket.as_raw_fd())
    }

    fn receive(&self, what: &str, wanted: impl Fn(&Icmpv4Type) -> bool) -> Result<Echo> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut buffer = [MaybeUninit::uninit(); 65_536];
        while Instant::now() < deadline {
            let length = self.socket.recv(&mut buffer).with_context(|| format!("wait for {what}"))?;
            // SAFETY: recv has written the first `length` bytes.
            let packet = unsafe { buffer[..length].assume_init_ref() };
            let ipv4 = Ipv4Slice::from_slice(packet).context("read an IPv4 packet")?;
            let icmp = Icmpv4Slice::from_slice(ipv4.payload().payload).context("read an ICMP message")?;
            let kind = icmp.icmp_type();
            if let Icmpv4Type::EchoReply(header) | Icmpv4Type::EchoRequest(header) = &kind
                && wanted(&kind)
            {
                let from = ipv4.header().source_addr();
                return Ok(Echo { from, id: header.id, payload: icmp.payload().to_vec() });
            }
        }
        bail!("no sign of {what} among the ICMP messages of {ANSWER_TIMEOUT:?}")
    }
}

/// Sends one echo request and waits for its answer.
///
/// # Errors
/// When none comes within 2 s, or it differs from the request.
pub fn ping(place: &Place, target: Ipv4Addr) -> Result<()> {
    let socket = EchoSocket::open(place)?;
    let (id, payload) = (0x4e50, b"netpath echoes whole");
    socket.request(target, id, 1, payload)?;
    let echo = socket.answer(id).with_context(|| format!("ping {target} from {}", place.label()))?;
    ensure!(echo.from == target && echo.payload == payload, "{target} answered with {echo:?}");
    Ok(())
}

/// Makes a socket queue the ICMP errors about its packets, for [`queued_error`].
///
/// # Errors
/// When the kernel refuses.
pub fn queue_errors(socket: &impl std::os::fd::AsFd) -> Result<()> {
    setsockopt(socket, sockopt::Ipv4RecvErr, &true).context("set IP_RECVERR")
}

/// Chooses how a socket treats the path MTU: one of `IP_PMTUDISC_*`.
///
/// # Errors
/// When the kernel refuses.
pub fn set_path_mtu_discovery(socket: RawFd, choice: libc::c_int) -> Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&choice))?;
    // SAFETY: the pointer and the size describe `choice`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, (&raw const choice).cast(), size) };
    ensure!(result == 0, "set IP_MTU_DISCOVER: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Waits for an ICMP error in a socket's queue.
///
/// # Errors
/// When none comes within 2 s.
pub fn queued_error(socket: RawFd) -> Result<IcmpError> {
    wait::until("an ICMP error", ANSWER_TIMEOUT, || {
        let mut payload = [0; 2048];
        let mut vectors = [IoSliceMut::new(&mut payload)];
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn>(socket, &mut vectors, Some(&mut control), flags)
            .context("read the socket's error queue")?;
        for part in message.cmsgs().context("read the control messages")? {
            if let ControlMessageOwned::Ipv4RecvErr(error, from) = part
                && error.ee_origin == libc::SO_EE_ORIGIN_ICMP
            {
                let from = from.context("the error has no sender")?;
                return Ok(IcmpError {
                    kind: (error.ee_type, error.ee_code),
                    from: Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)),
                    mtu: error.ee_info,
                });
            }
        }
        bail!("the queue holds an error of this host itself")
    })
}
