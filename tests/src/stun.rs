//! STUN as far as a NAT's behaviour is told by it: binding requests (RFC 8489) and the tests of RFC 5780, section 4.
//!
//! The server has two addresses and two ports and answers from another one when it is asked to; the client says what the
//! NAT between them does. Messages have no integrity and no other attributes.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns::Place;

const REQUEST: u16 = 0x0001;
const RESPONSE: u16 = 0x0101;
const COOKIE: u32 = 0x2112_a442;
const HEADER_LEN: usize = 20;
/// CHANGE-REQUEST and its flags (RFC 5780, section 7.2).
const CHANGE_REQUEST: u16 = 0x0003;
const CHANGE_ADDRESS: u8 = 4;
const CHANGE_PORT: u8 = 2;
/// XOR-MAPPED-ADDRESS (RFC 8489, section 14.2).
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// How long an answer may take before it counts as filtered; asked three times.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
const TRIES: u32 = 3;
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// What a NAT's mapping or filter depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Neither on the peer's address nor on its port.
    EndpointIndependent,
    /// On the peer's address.
    AddressDependent,
    /// On the peer's address and port.
    AddressAndPortDependent,
}

/// A server with two addresses and two ports; it ends when it is dropped.
#[derive(Debug)]
pub struct StunServer {
    stop: Arc<AtomicBool>,
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    threads: Vec<thread::JoinHandle<()>>,
}

impl StunServer {
    /// Serves in a namespace that has both addresses.
    ///
    /// # Errors
    /// When a socket can't be bound.
    pub fn start(place: &Place, addresses: [Ipv4Addr; 2], ports: [u16; 2]) -> Result<Self> {
        // In the order of `index`.
        let sockets = place.enter(|| {
            let mut sockets = Vec::new();
            for address in addresses {
                for port in ports {
                    let socket = UdpSocket::bind((address, port)).with_context(|| format!("bind {address}:{port}"))?;
                    socket.set_read_timeout(Some(STOP_INTERVAL))?;
                    sockets.push(socket);
                }
            }
            Ok(sockets)
        })?;
        let (stop, sockets) = (Arc::new(AtomicBool::new(false)), Arc::new(sockets));
        let serve_one = |index| {
            let (stop, sockets) = (Arc::clone(&stop), Arc::clone(&sockets));
            thread::spawn(move || serve(&stop, &sockets, index))
        };
        let threads = (0..sockets.len()).map(serve_one).collect();
        Ok(Self { stop, addresses, ports, threads })
    }

    const fn address(&self, address: usize, port: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.addresses[address], self.ports[port])
    }
}

impl Drop for StunServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Their sockets hold the ports that the next test binds.
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("STUN server: a thread panicked");
            }
        }
    }
}

fn serve(stop: &AtomicBool, sockets: &[UdpSocket], index: usize) {
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        let (length, peer) = match sockets[index].recv_from(&mut buffer) {
            Ok((length, SocketAddr::V4(peer))) => (length, peer),
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            // An ICMP error for an earlier answer: the NAT filtered it.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return eprintln!("STUN server: {error}"),
        };
        let Some((transaction, change)) = parse_request(&buffer[..length]) else { continue };
        let from = index ^ usize::from(change & CHANGE_ADDRESS != 0) << 1 ^ usize::from(change & CHANGE_PORT != 0);
        if let Err(error) = sockets[from].send_to(&response(&transaction, peer), peer) {
            eprintln!("STUN server: answer {peer}: {error}");
        }
    }
}

fn header(kind: u16, length: u16, transaction: &[u8; 12]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN + usize::from(length));
    message.extend(kind.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend(COOKIE.to_be_bytes());
    message.extend(transaction);
    message
}

fn request(transaction: &[u8; 12], change: u8) -> Vec<u8> {
    let mut message = header(REQUEST, 8, transaction);
    message.extend(CHANGE_REQUEST.to_be_bytes());
    message.extend([0, 4, 0, 0, 0, change]);
    message
}

fn response(transaction: &[u8; 12], mapped: SocketAddrV4) -> Vec<u8> {
    let mut message = header(RESPONSE, 12, transaction);
    message.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
    message.extend([0, 8, 0, 1]);
    message.extend((mapped.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    message.extend((mapped.ip().to_bits() ^ COOKIE).to_be_bytes());
    message
}

/// The transaction of a message of a kind, and the value of one of its attributes.
fn parse(message: &[u8], kind: u16, attribute: u16) -> Option<([u8; 12], &[u8])> {
    let (header, mut rest) = message.split_at_checked(HEADER_LEN)?;
    if header[..2] != kind.to_be_bytes() || header[4..8] != COOKIE.to_be_bytes() {
        return None;
    }
    let transaction = header[8..].try_into().ok()?;
    while let Some((head, behind)) = rest.split_at_checked(4) {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = behind.get(..length)?;
        if head[..2] == attribute.to_be_bytes() {
            return Some((transaction, value));
        }
        rest = behind.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn parse_request(message: &[u8]) -> Option<([u8; 12], u8)> {
    let (transaction, value) = parse(message, REQUEST, CHANGE_REQUEST)?;
    Some((transaction, *value.get(3)?))
}

fn parse_response(message: &[u8]) -> Option<([u8; 12], SocketAddrV4)> {
    let (transaction, value) = parse(message, RESPONSE, XOR_MAPPED_ADDRESS)?;
    let [_, 1, a, b, c, d, e, f] = *value else { return None };
    let port = u16::from_be_bytes([a, b]) ^ (COOKIE >> 16) as u16;
    let address = Ipv4Addr::from_bits(u32::from_be_bytes([c, d, e, f]) ^ COOKIE);
    Some((transaction, SocketAddrV4::new(address, port)))
}

/// Another one each time; nobody here forges answers, so it needn't be random.
fn transaction() -> [u8; 12] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut transaction = [0; 12];
    transaction[4..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    transaction
}

/// Asks from a socket under which address it is seen. None: no answer came through.
fn ask(socket: &UdpSocket, server: SocketAddrV4, change: u8) -> Result<Option<SocketAddrV4>> {
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).context("set a read timeout")?;
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        let transaction = transaction();
        socket.send_to(&request(&transaction, change), server).with_context(|| format!("ask {server}"))?;
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            match parse_response(&buffer[..length]) {
                Some((answered, mapped)) if answered == transaction => return Ok(Some(mapped)),
                // An answer to an earlier question.
                _ => {}
            }
        }
    }
    Ok(None)
}

/// Under which address the server sees a socket.
///
/// # Errors
/// When it doesn't answer.
pub fn mapped(socket: &UdpSocket, server: &StunServer) -> Result<SocketAddrV4> {
    let Some(mapped) = ask(socket, server.address(0, 0), 0)? else { bail!("the STUN server doesn't answer") };
    Ok(mapped)
}

/// What the mapping of a socket depends on (RFC 5780, section 4.3).
///
/// # Errors
/// When the server doesn't answer.
pub fn mapping(socket: &UdpSocket, server: &StunServer) -> Result<Behaviour> {
    let first = mapped(socket, server)?;
    let second = ask(socket, server.address(1, 0), 0)?.context("the server's other address doesn't answer")?;
    let third = ask(socket, server.address(1, 1), 0)?.context("the server's other port doesn't answer")?;
    Ok(match (second == first, third == second) {
        (true, true) => Behaviour::EndpointIndependent,
        (false, true) => Behaviour::AddressDependent,
        (_, false) => Behaviour::AddressAndPortDependent,
    })
}

/// What the filter in front of a socket depends on (RFC 5780, section 4.4). The socket must be new: what it has sent to
/// before may answer.
///
/// # Errors
/// When the server doesn't answer.
pub fn filtering(socket: &UdpSocket, server: &StunServer) -> Result<Behaviour> {
    let first = mapped(socket, server)?;
    let by_all = ask(socket, server.address(0, 0), CHANGE_ADDRESS | CHANGE_PORT)?;
    if let Some(seen) = by_all {
        ensure!(seen == first, "the mapping changed from {first} to {seen}");
        return Ok(Behaviour::EndpointIndependent);
    }
    Ok(match ask(socket, server.address(0, 0), CHANGE_PORT)? {
        Some(_) => Behaviour::AddressDependent,
        None => Behaviour::AddressAndPortDependent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let transaction = *b"transaction!";
        assert_eq!(parse_request(&request(&transaction, CHANGE_PORT)), Some((transaction, CHANGE_PORT)));
        let mapped = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32_853);
        assert_eq!(parse_response(&response(&transaction, mapped)), Some((transaction, mapped)));
        assert_eq!(parse_request(&response(&transaction, mapped)), None);
        assert_eq!(parse_response(&response(&transaction, mapped)[..27]), None);
    }

    /// RFC 5769, section 2.2: the address 192.0.2.1, port 32853.
    #[test]
    fn the_mapped_address_is_encoded_as_in_the_rfcs_example() {
        let message = response(&[0; 12], SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32_853));
        assert_eq!(message[20..], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }
}
