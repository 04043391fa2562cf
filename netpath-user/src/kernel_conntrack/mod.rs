//! The kernel's own connection tracking, nf_conntrack, over netlink: what it has, and how to give it more.
//!
//! Two moments need it. When netpath starts beside Docker's iptables rules, [`dump`] tells which connections the kernel
//! already translates, so that netpath leaves them alone. When netpath leaves, [`insert`] gives the kernel the
//! connections that netpath carried, with exactly the addresses and ports the peers know, so that none of them breaks.
//!
//! Everything happens in the network namespace of the calling thread. The netlink messages are made and read in
//! `message`, sent and received in `socket`. Nothing here knows netpath's own flow table.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use netpath_common::abi::FlowKey;
use nix::errno::Errno;

use self::message::Request;
use self::socket::{Outcome, Socket};

mod message;
mod socket;

/// Exists in a network namespace exactly when nf_conntrack is in the kernel.
const NF_CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// The addresses and ports of a packet as it arrives. The identifier of an ICMP echo takes the port's place as in
/// [`FlowKey`]: of the source in a request, of the destination in a reply; the other port is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number: 1 (ICMP), 6 (TCP) or 17 (UDP).
    pub protocol: u8,
}

impl Tuple {
    /// The tuple of a packet that answers this one.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_port, destination_port, protocol } = self;
        write!(f, "protocol {protocol}, {source}:{source_port} -> {destination}:{destination_port}")
    }
}

impl From<FlowKey> for Tuple {
    fn from(key: FlowKey) -> Self {
        Self {
            source: key.source.into(),
            destination: key.destination.into(),
            source_port: u16::from_be_bytes(key.source_port),
            destination_port: u16::from_be_bytes(key.destination_port),
            protocol: key.protocol,
        }
    }
}

impl From<Tuple> for FlowKey {
    fn from(tuple: Tuple) -> Self {
        Self {
            source: tuple.source.octets(),
            destination: tuple.destination.octets(),
            source_port: tuple.source_port.to_be_bytes(),
            destination_port: tuple.destination_port.to_be_bytes(),
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    }
}

/// One connection as nf_conntrack has it. The translation is the difference between the two tuples: packets arrive as
/// `original` and leave as `reply` reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The first packet as it arrived.
    pub original: Tuple,
    /// An answer as it arrives.
    pub reply: Tuple,
    /// Without a packet for so long, the connection is forgotten.
    pub timeout: Duration,
    /// A TCP connection whose handshake is done and whose end has not begun.
    pub established_tcp: bool,
}

/// Every TCP, UDP and ICMP echo connection over IPv4 that the kernel tracks; empty when the kernel has no nf_conntrack.
///
/// # Errors
///
/// Without `CAP_NET_ADMIN`, or when nf_conntrack is at work but cannot be asked: then nothing may be assumed about the
/// connections it has.
pub fn dump() -> anyhow::Result<Vec<Connection>> {
    match read_connections() {
        Ok(connections) => Ok(connections),
        Err(error) if is_absent(&error) && !Path::new(NF_CONNTRACK_COUNT).exists() => Ok(Vec::new()),
        Err(error) => {
            let advice = advice(errno(&error));
            Err(error).with_context(|| format!("cannot list the connections of nf_conntrack ({advice})"))
        }
    }
}

/// Has nf_conntrack track these connections, with the translation from `original` to `reply` reversed. Returns how many
/// of them it has afterwards.
///
/// A connection that the kernel has already is brought up to date; one that the kernel translates differently is
/// replaced, because the caller is the one who carried its last packets. What the kernel refuses is logged and left out
/// of the count. Translation takes place when the nat hooks are there: an iptables or nftables nat table in the network
/// namespace sees to that.
///
/// # Errors
///
/// When netlink fails, or when the kernel refuses every connection.
pub fn insert(connections: &[Connection]) -> anyhow::Result<usize> {
    if connections.is_empty() {
        return Ok(0);
    }
    let mut socket =
        Socket::open().with_context(|| format!("cannot reach nf_conntrack ({})", advice(Errno::EPROTONOSUPPORT)))?;
    let outcomes = send(&mut socket, connections.iter().map(message::create))?;

    let mut present = Vec::new();
    let mut refused = Vec::new();
    for (connection, outcome) in connections.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {}
            Err(Errno::EEXIST) => present.push(connection),
            Err(errno) => refused.push((connection, errno)),
        }
    }
    if !present.is_empty() {
        refused.extend(reconcile(&mut socket, &present)?);
    }
    report(connections.len(), &refused)
}

/// Settles the connections of which the kernel says that it has them: the kernel's translation may be another one, and
/// its view of the TCP windows may be as old as netpath's start. Returns what the kernel refuses.
fn reconcile<'a>(socket: &mut Socket, present: &[&'a Connection]) -> anyhow::Result<Vec<(&'a Connection, Errno)>> {
    let wanted: HashSet<Tuple> = present.iter().map(|connection| connection.original).collect();
    let known: HashMap<Tuple, Tuple> = read_connections()
        .context("cannot list the connections of nf_conntrack to compare them with netpath's")?
        .into_iter()
        .filter(|entry| wanted.contains(&entry.original))
        .map(|entry| (entry.original, entry.reply))
        .collect();

    let mut steps = Vec::new();
    for &connection in present {
        match known.get(&connection.original) {
            Some(reply) if *reply == connection.reply => steps.push(Step::Update(connection)),
            Some(_) => steps.extend([Step::Delete(connection), Step::Create(connection)]),
            // Either it ended just now, or its reply tuple is another connection's: the kernel will say.
            None => steps.push(Step::Create(connection)),
        }
    }
    let outcomes = send(socket, steps.iter().map(Step::request))?;
    Ok(steps.iter().zip(outcomes).filter_map(|(step, outcome)| Some((step.decides()?, outcome.err()?))).collect())
}

/// One request of [`reconcile`].
enum Step<'a> {
    Create(&'a Connection),
    Update(&'a Connection),
    Delete(&'a Connection),
}

impl<'a> Step<'a> {
    fn request(&self) -> Request {
        match self {
            Self::Create(connection) => message::create(connection),
            Self::Update(connection) => message::update(connection),
            Self::Delete(connection) => message::delete(&connection.original),
        }
    }

    /// The connection whose fate the outcome tells. A deletion tells none: the creation after it does.
    const fn decides(&self) -> Option<&'a Connection> {
        match self {
            Self::Create(connection) | Self::Update(connection) => Some(connection),
            Self::Delete(_) => None,
        }
    }
}

fn send(socket: &mut Socket, requests: impl IntoIterator<Item = Request>) -> anyhow::Result<Vec<Outcome>> {
    socket.request_all(requests).map_err(|error| {
        let advice = advice(errno(&error));
        anyhow::Error::new(error).context(format!("cannot give connections to nf_conntrack ({advice})"))
    })
}

fn report(asked: usize, refused: &[(&Connection, Errno)]) -> anyhow::Result<usize> {
    let Some((connection, errno)) = refused.first() else { return Ok(asked) };
    let Connection { original, reply, .. } = connection;
    if refused.len() == asked {
        bail!(
            "nf_conntrack refuses all {asked} connections; the first, {original}, answered by {reply}: {} ({})",
            errno.desc(),
            advice(*errno)
        );
    }
    tracing::warn!(
        refused = refused.len(), asked, %original, %reply, error = errno.desc(), advice = advice(*errno),
        "nf_conntrack refuses some connections; they will break (the first is shown)"
    );
    Ok(asked - refused.len())
}

fn read_connections() -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    Socket::open()?.dump(&message::list(), |entry| connections.extend(message::connection(entry)))?;
    Ok(connections)
}

/// What the kernel says when nfnetlink (the socket) or ctnetlink (the message) is not there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// What to do about an error of ctnetlink; its errors name no cause by themselves.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => "it takes CAP_NET_ADMIN: run as root",
        Errno::EPROTONOSUPPORT | Errno::EINVAL => "try: modprobe nf_conntrack_netlink",
        Errno::EOPNOTSUPP => "the kernel has no NAT; try: modprobe nf_nat",
        Errno::ENOMEM => "the table is full or memory is short; try a larger net.netfilter.nf_conntrack_max",
        Errno::EEXIST => "its addresses and ports belong to another connection",
        Errno::EBUSY => "the kernel's entry is an expected connection of a protocol helper",
        _ => "see the kernel's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(last: u8) -> Connection {
        let original = Tuple {
            source: Ipv4Addr::new(172, 17, 0, last),
            destination: Ipv4Addr::new(198, 51, 100, 2),
            source_port: 40000,
            destination_port: 80,
            protocol: 6,
        };
        let reply = Tuple { destination: Ipv4Addr::new(198, 51, 100, 1), ..original.reversed() };
        Connection { original, reply, timeout: Duration::from_secs(60), established_tcp: true }
    }

    #[test]
    fn a_tuple_survives_the_way_through_a_flow_key() {
        let tuple = connection(2).original;
        assert_eq!(Tuple::from(FlowKey::from(tuple)), tuple);
        assert_eq!(FlowKey::from(tuple.reversed()), FlowKey::from(tuple).reversed());
    }

    #[test]
    fn what_is_refused_is_left_out_of_the_count() {
        let (first, second) = (connection(2), connection(3));
        assert_eq!(report(2, &[]).unwrap(), 2);
        assert_eq!(report(2, &[(&second, Errno::EEXIST)]).unwrap(), 1);
        let error = report(2, &[(&first, Errno::EOPNOTSUPP), (&second, Errno::EOPNOTSUPP)]).unwrap_err().to_string();
        assert!(error.contains("172.17.0.2:40000 -> 198.51.100.2:80"), "names the connection: {error}");
        assert!(error.contains("modprobe nf_nat"), "says what to do: {error}");
    }
}
