//! Ends sockets of the host whose published port has moved to another container, or is gone.
//!
//! A connected socket is led to the container once, when it connects; the kernel asks no program again when it sends. What it
//! sends would go on to an address that is nobody's, in silence, or somebody else's. So it is told: `SOCK_DESTROY` of the
//! kernel's socket diagnosis (net/ipv4/{udp,tcp}_diag.c) gives it `ECONNABORTED`, and what connects anew finds the next container.
//!
//! Linux's interface in bytes; which sockets are meant the caller says, by the number that the kernel gives each.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::desired::model::Protocol;

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (include/uapi/linux/sock_diag.h).
const LIST: u16 = 20;
const DESTROY: u16 = 21;
/// `NLM_F_REQUEST`, with `NLM_F_DUMP` or `NLM_F_ACK`.
const DUMP: u16 = 0x301;
const ACKNOWLEDGED: u16 = 0x5;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `struct nlmsghdr`, and what stands before the socket's identity in `inet_diag_req_v2` and in `inet_diag_msg`.
const HEADER_LEN: usize = 16;
const REQUEST_HEAD_LEN: usize = 8;
const ANSWER_HEAD_LEN: usize = 4;

/// A socket as the kernel identifies it: `struct inet_diag_sockid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity([u8; 48]);

impl Identity {
    /// Any socket whose peer has this port.
    fn with_peer_port(port: u16) -> Self {
        let mut bytes = [0; 48];
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        Self(bytes)
    }

    /// The peer's IPv4 address, of an IPv6 socket the one that is mapped.
    fn peer(&self, family: u8) -> Ipv4Addr {
        let at = if i32::from(family) == libc::AF_INET { 20 } else { 32 };
        Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3])
    }

    fn peer_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// The kernel's number for the socket, as `bpf_get_socket_cookie` gives it.
    fn cookie(&self) -> u64 {
        let half = |at: usize| u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        u64::from(half(40)) | u64::from(half(44)) << 32
    }
}

/// The states of sockets that wait for their peer, a bit for each number (include/net/tcp_states.h): of TCP ESTABLISHED,
/// SYN_SENT, FIN_WAIT1 and FIN_WAIT2. In CLOSE_WAIT the peer has said all, and what is still to be read must be followed by the
/// end that it meant.
const fn waiting(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5,
        Protocol::Udp | Protocol::Sctp => u32::MAX,
    }
}

/// Ends the sockets of this network namespace that are connected to an address and port and that `is_meant` says by their
/// number. Gives how many there were.
///
/// # Errors
///
/// When the kernel has no such interface, or refuses.
pub(super) fn end(protocol: Protocol, target: SocketAddrV4, is_meant: impl Fn(u64) -> bool) -> io::Result<usize> {
    let (address, port) = (*target.ip(), target.port());
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut ended = 0;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let wanted = Identity::with_peer_port(port);
        let found = exchange(&socket, &request((LIST, DUMP), protocol, family, &wanted))?;
        for identity in found.into_iter().filter(|found| found.peer(family) == address && found.peer_port() == port) {
            if is_meant(identity.cookie()) {
                exchange(&socket, &request((DESTROY, ACKNOWLEDGED), protocol, family, &identity))?;
                ended += 1;
            }
        }
    }
    Ok(ended)
}

fn request((kind, flags): (u16, u16), protocol: Protocol, family: u8, identity: &Identity) -> Vec<u8> {
    const LEN: u32 = (HEADER_LEN + REQUEST_HEAD_LEN + 48) as u32;
    let mut bytes = Vec::with_capacity(LEN as usize);
    bytes.extend(LEN.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, protocol.number(), 0, 0]);
    bytes.extend(waiting(protocol).to_ne_bytes());
    bytes.extend(identity.0);
    bytes
}

/// Sends a request and takes answers until the last. A socket that is gone by now is no error.
fn exchange(socket: &Socket, request: &[u8]) -> io::Result<Vec<Identity>> {
    socket.send(request, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        match read(&datagram, &mut found)? {
            Some(libc::ENOENT | 0) => return Ok(found),
            Some(number) => return Err(io::Error::from_raw_os_error(number)),
            None => {}
        }
    }
}

/// Reads the messages of a datagram; gives the number of the error that ends them, 0 for none, or `None` when more will come.
fn read(mut rest: &[u8], found: &mut Vec<Identity>) -> io::Result<Option<i32>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of sockets is cut off");
    while let Some((header, _)) = rest.split_first_chunk::<HEADER_LEN>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = rest.get(HEADER_LEN..len).ok_or_else(broken)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(Some(0)),
            ERROR => return Ok(Some(-i32::from_ne_bytes(*body.first_chunk().ok_or_else(broken)?))),
            LIST => {
                let identity = body.get(ANSWER_HEAD_LEN..).and_then(<[u8]>::first_chunk).ok_or_else(broken)?;
                found.push(Identity(*identity));
            }
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::BTreeSet,
        io::Read as _,
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    #[test]
    fn every_socket_with_the_peer_is_asked_about_and_no_other() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let clients: Vec<_> = ["127.0.0.1:0", "127.0.0.1:0"].map(|own| UdpSocket::bind(own).unwrap()).into();
        for client in &clients {
            client.connect(target).unwrap();
        }
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.connect(clients[0].local_addr().unwrap()).unwrap();
        let asked = RefCell::new(BTreeSet::new());
        let ended = end(Protocol::Udp, SocketAddrV4::new(Ipv4Addr::LOCALHOST, target.port()), |cookie| {
            asked.borrow_mut().insert(cookie);
            false
        });
        assert_eq!(ended.unwrap(), 0);
        assert_eq!(asked.into_inner().len(), clients.len());
    }

    #[test]
    fn of_tcp_only_who_waits_for_the_peer_is_asked_about() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port());
        let asked = || {
            let asked = RefCell::new(BTreeSet::new());
            let is_meant = |cookie| {
                asked.borrow_mut().insert(cookie);
                false
            };
            assert_eq!(end(Protocol::Tcp, target, is_meant).unwrap(), 0);
            asked.into_inner().len()
        };
        let mut client = TcpStream::connect(target).unwrap();
        assert_eq!(asked(), 1);
        drop(server.accept().unwrap());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(asked(), 0);
    }

    #[test]
    fn an_error_of_the_kernel_ends_the_answers_and_half_a_message_is_one() {
        let mut error = request((ERROR, 0), Protocol::Udp, 0, &Identity([0; 48]));
        error[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        let mut found = Vec::new();
        assert_eq!(read(&error, &mut found).unwrap(), Some(libc::EPERM));
        assert!(read(&error[..40], &mut found).is_err());
        assert!(found.is_empty());
    }
}
