//! Sockets that put frames on a wire and see all that come off it, and sockets that see what reaches the host itself.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::netns::Place;

/// Room for all that comes out in one round.
const BUFFER: usize = 64 << 20;

/// An interface's number and Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Number.
    pub index: i32,
    /// Ethernet address.
    pub mac: [u8; 6],
}

#[derive(Deserialize)]
struct Link {
    ifindex: i32,
    address: String,
}

impl Interface {
    /// Asks for an interface of a namespace.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(place: &Place, name: &str) -> Result<Self> {
        let text = place.run(&["ip", "-json", "link", "show", "dev", name])?;
        let links: Vec<Link> = serde_json::from_str(&text).with_context(|| format!("read {text:?}"))?;
        let link = links.first().with_context(|| format!("there is no {name}"))?;
        let mut mac = [0; 6];
        for (byte, word) in mac.iter_mut().zip(link.address.split(':')) {
            *byte = u8::from_str_radix(word, 16).with_context(|| format!("read {:?}", link.address))?;
        }
        Ok(Self { index: link.ifindex, mac })
    }

    /// Its Ethernet address as `ip` writes it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A packet socket on an interface.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    interface: Interface,
    towards: [u8; 6],
}

impl Tap {
    /// Opens one on an interface of a namespace. What it sends goes to the Ethernet address `towards`.
    ///
    /// # Errors
    /// When not root.
    pub fn open(place: &Place, interface: Interface, towards: [u8; 6]) -> Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL)?.to_be();
        let socket = place.enter(|| {
            // No protocol: nothing arrives before the socket is bound to the interface.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.bind(&link_address(interface.index, all)).context("bind a packet socket")?;
            Ok(socket)
        })?;
        enlarge(&socket)?;
        Ok(Self { socket, interface, towards })
    }

    /// Sends an IPv4 packet.
    ///
    /// # Errors
    /// When the kernel doesn't take it.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.send_to(self.towards, packet)
    }

    /// Its own Ethernet address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.interface.mac
    }

    /// Sends an IPv4 packet to another Ethernet address.
    ///
    /// # Errors
    /// When the kernel doesn't take it.
    pub fn send_to(&self, towards: [u8; 6], packet: &[u8]) -> Result<()> {
        let frame = [&towards[..], &self.interface.mac, &[8, 0], packet].concat();
        self.socket.send(&frame).context("send a frame")?;
        Ok(())
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When the kernel doesn't take it.
    pub fn send_frame(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("send a frame")?;
        Ok(())
    }

    /// All frames that have passed the interface, for whomever they are, but for those that this socket has sent.
    ///
    /// # Errors
    /// When reading fails.
    pub fn take_frames(&self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(frame) = receive(&self.socket)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The IPv4 packets that have arrived for this interface.
    ///
    /// # Errors
    /// When reading fails.
    pub fn take(&self) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        while let Some(frame) = receive(&self.socket)? {
            // Not what it has sent itself, nor what a bridge floods.
            if frame.len() > 14 && frame[..6] == self.interface.mac && frame[12..14] == [8, 0] {
                packets.push(frame[14..].to_vec());
            }
        }
        Ok(packets)
    }
}

/// Raw sockets: they see what the kernel takes for its own, whether or not anything listens.
#[derive(Debug)]
pub struct HostTap {
    sockets: Vec<Socket>,
}

impl HostTap {
    /// Opens them.
    ///
    /// # Errors
    /// When not root.
    pub fn open(place: &Place) -> Result<Self> {
        Self::open_for(place, &[libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP])
    }

    /// Opens them for some protocols.
    ///
    /// # Errors
    /// When not root.
    pub fn open_for(place: &Place, protocols: &[i32]) -> Result<Self> {
        let open = |protocol: i32| -> Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?;
            socket.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            enlarge(&socket)?;
            Ok(socket)
        };
        let sockets = place.enter(|| protocols.iter().copied().map(open).collect::<Result<Vec<_>>>())?;
        Ok(Self { sockets })
    }

    /// The IPv4 packets that have arrived.
    ///
    /// # Errors
    /// When reading fails.
    pub fn take(&self) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        for socket in &self.sockets {
            while let Some(packet) = receive(socket)? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }
}

fn enlarge(socket: &Socket) -> Result<()> {
    socket.set_nonblocking(true)?;
    let size = libc::c_int::try_from(BUFFER)?;
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &usize::try_from(size)?)
        .context("enlarge a socket's buffer")
}

fn receive(socket: &Socket) -> Result<Option<Vec<u8>>> {
    let mut buffer = [MaybeUninit::uninit(); 65_536];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            // SAFETY: recv has written the first `length` bytes.
            Ok(Some(unsafe { buffer[..length].assume_init_ref() }.to_vec()))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("read a captured frame"),
    }
}

fn link_address(ifindex: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large and aligned enough for every kind of address, and all its bytes are set.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = ifindex;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds a sockaddr_ll of that length.
    unsafe { SockAddr::new(storage, len) }
}

/// Keeps this thread on one CPU: what it sends is then worked off in its order.
///
/// # Errors
/// When the kernel refuses.
pub fn stay_on_cpu(number: usize) -> Result<()> {
    let mut allowed = nix::sched::CpuSet::new();
    let current = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let usable: Vec<_> = (0..nix::sched::CpuSet::count()).filter(|cpu| current.is_set(*cpu).unwrap_or(false)).collect();
    ensure!(!usable.is_empty(), "no CPU is allowed");
    allowed.set(usable[number % usable.len()])?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &allowed).context("stay on one CPU")
}
