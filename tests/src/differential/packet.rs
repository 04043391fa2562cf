//! Packets as a sequence describes them: by who sends them to whom, before anybody has chosen addresses or ports.
//!
//! The two runs of a sequence send the same packets, but what they name may have another address or port in each: the
//! port under which the world sees a container is what the dataplane chose there.

use std::fmt;

/// Where a packet is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// By a container.
    Container(u8),
    /// By the neighbour, for any machine behind it.
    World,
}

/// One end of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// A container, under its own address.
    Container(u8),
    /// A machine of the world. Every sequence has machines of its own.
    Remote(u8),
    /// One of the host's addresses on the wire.
    Host(u8),
    /// The bridge's address, the containers' gateway.
    Gateway,
    /// A container as the world sees it: the port that goes with this end is the container's own.
    Mapped(u8),
    /// A container as another one sees it that it reached through this published port, by an address of the host.
    Neighbour(u8, u16),
    /// A machine of the world as a container sees it that it reached through this published port.
    Client(u8, u16),
}

/// An IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sends it.
    pub source: End,
    /// Whom it is for.
    pub destination: End,
    /// Time to live.
    pub ttl: u8,
    /// Type of service.
    pub tos: u8,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// What it carries.
    pub payload: Payload,
}

/// What an IPv4 packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Whether it has a checksum.
        checksum: bool,
        /// Bytes of data.
        len: u16,
    },
    /// An ICMP echo request or reply.
    Echo {
        /// Whether it is a reply.
        reply: bool,
        /// Identifier.
        identifier: u16,
        /// Sequence number.
        sequence: u16,
        /// Bytes of data.
        len: u16,
    },
    /// An ICMP message about another packet.
    Error {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The second word of the header: an MTU, a pointer, an address.
        rest: [u8; 4],
        /// The packet that it is about.
        quote: Box<Datagram>,
        /// How many bytes of it are quoted after its IPv4 header.
        quoted: u16,
    },
    /// Another protocol.
    Other {
        /// Its number.
        protocol: u8,
        /// What follows the IPv4 header.
        bytes: Vec<u8>,
    },
}

/// A TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// FIN, SYN, RST, ...: the bits of [`flag`].
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Bytes of data.
    pub len: u16,
}

/// The bits of [`Segment::flags`].
pub mod flag {
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Resets the connection.
    pub const RST: u8 = 4;
    /// Data should be delivered at once.
    pub const PSH: u8 = 8;
    /// The acknowledgment number means something.
    pub const ACK: u8 = 16;
    /// The urgent pointer means something.
    pub const URG: u8 = 32;
}

/// Damage that a frame takes before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The frame ends after so many bytes of its IPv4 packet.
    Cut(u16),
    /// A byte of the IPv4 packet is changed, and the IPv4 header's checksum made right again.
    Flip {
        /// Which byte.
        at: u8,
        /// The bits that change.
        bits: u8,
    },
    /// The transport checksum is wrong.
    TransportChecksum,
    /// The IPv4 header's checksum is wrong.
    HeaderChecksum,
}

/// A packet that one side sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who sends it.
    pub from: Side,
    /// The packet.
    pub datagram: Datagram,
    /// What happens to its frame before.
    pub damage: Option<Damage>,
    /// In which order its fragments are sent, each of so many bytes but for the last; empty: it is sent whole.
    pub fragments: Fragments,
}

/// How a packet is sent in fragments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragments {
    /// Bytes of each fragment after its IPv4 header, a multiple of eight; 0: the packet is sent whole.
    pub size: u16,
    /// The positions of the fragments in the order in which they are sent. One may be missing, or twice there.
    pub order: Vec<u8>,
}

/// The packets of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The seed.
    pub seed: u64,
    /// The packets, in their order.
    pub steps: Vec<Step>,
}

impl Step {
    /// A packet that is sent whole and undamaged.
    #[must_use]
    pub fn new(from: Side, datagram: Datagram) -> Self {
        Self { from, datagram, damage: None, fragments: Fragments::default() }
    }

    /// Whether it carries a TCP reset.
    #[must_use]
    pub fn resets(&self) -> bool {
        matches!(&self.datagram.payload, Payload::Tcp(segment) if segment.flags & flag::RST != 0)
    }

    /// The conversation that it belongs to, roughly: protocol, and the remote machine with its port.
    #[must_use]
    pub fn conversation(&self) -> Option<(u8, u8, u16)> {
        self.datagram.conversation()
    }
}

impl Datagram {
    /// A packet as most machines send it.
    #[must_use]
    pub fn new(source: End, destination: End, payload: Payload) -> Self {
        Self { source, destination, ttl: 64, tos: 0, dont_fragment: true, payload }
    }

    /// The ports of its transport header; for ICMP echo the identifier stands for that of the side which asked.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        match &self.payload {
            Payload::Tcp(segment) => (segment.source, segment.destination),
            Payload::Udp { source, destination, .. } => (*source, *destination),
            Payload::Echo { reply: false, identifier, .. } => (*identifier, 0),
            Payload::Echo { reply: true, identifier, .. } => (0, *identifier),
            Payload::Error { .. } | Payload::Other { .. } => (0, 0),
        }
    }

    fn conversation(&self) -> Option<(u8, u8, u16)> {
        if let Payload::Error { quote, .. } = &self.payload {
            return quote.conversation();
        }
        let ports = self.ports();
        [(self.source, ports.0), (self.destination, ports.1)].into_iter().find_map(|(end, port)| match end {
            End::Remote(number) | End::Client(number, _) => Some((self.protocol(), number, port)),
            End::Container(_) | End::Host(_) | End::Gateway | End::Mapped(_) | End::Neighbour(..) => None,
        })
    }

    /// What it carries, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.payload {
            Payload::Tcp(_) => "TCP",
            Payload::Udp { .. } => "UDP",
            Payload::Echo { reply: false, .. } => "echo request",
            Payload::Echo { reply: true, .. } => "echo reply",
            Payload::Error { .. } => "ICMP error",
            Payload::Other { .. } => "another protocol",
        }
    }

    /// The protocol's number.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match &self.payload {
            Payload::Tcp(_) => 6,
            Payload::Udp { .. } => 17,
            Payload::Echo { .. } | Payload::Error { .. } => 1,
            Payload::Other { protocol, .. } => *protocol,
        }
    }
}

impl Sequence {
    /// Its packets, one a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let lines = self.steps.iter().enumerate().map(|(number, step)| format!("  {number:>2}  {step}\n"));
        lines.collect()
    }
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(number) => write!(to, "container{number}"),
            Self::Remote(number) => write!(to, "remote{number}"),
            Self::Host(number) => write!(to, "host{number}"),
            Self::Gateway => write!(to, "gateway"),
            Self::Mapped(number) => write!(to, "container{number}'s"),
            Self::Neighbour(number, published) => write!(to, "container{number}(by {published})"),
            Self::Client(number, published) => write!(to, "remote{number}(by {published})"),
        }
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source, self.destination);
        let (source_port, destination_port) = self.ports();
        match &self.payload {
            Payload::Tcp(segment) => {
                let letters = ["F", "S", "R", "P", "A", "U"];
                let flags = letters.iter().enumerate().filter(|(bit, _)| segment.flags & (1 << bit) != 0);
                let flags: String = flags.map(|(_, letter)| *letter).collect();
                write!(to, "TCP {source}:{source_port} > {destination}:{destination_port} {flags:<2}")?;
                write!(to, " seq {} ack {}", segment.sequence, segment.acknowledgment)?;
                write!(to, " win {} len {}", segment.window, segment.len)?;
                if !segment.options.is_empty() {
                    write!(to, " options {:02x?}", segment.options)?;
                }
            }
            Payload::Udp { checksum, len, .. } => {
                write!(to, "UDP {source}:{source_port} > {destination}:{destination_port} len {len}")?;
                if !checksum {
                    write!(to, " without checksum")?;
                }
            }
            Payload::Echo { reply, identifier, sequence, len } => {
                let what = if *reply { "reply" } else { "request" };
                write!(to, "echo {what} {source} > {destination} id {identifier} seq {sequence} len {len}")?;
            }
            Payload::Error { kind, code, rest, quote, quoted } => {
                write!(to, "ICMP {kind}/{code} {source} > {destination} rest {rest:?} about {quoted} B of [{quote}]")?;
            }
            Payload::Other { protocol, bytes } => {
                write!(to, "protocol {protocol} {source} > {destination} {bytes:02x?}")?;
            }
        }
        if self.ttl != 64 || self.tos != 0 || !self.dont_fragment {
            write!(to, " (ttl {} tos {} df {})", self.ttl, self.tos, self.dont_fragment)?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:?}: {}", self.from, self.datagram)?;
        if let Some(damage) = self.damage {
            write!(to, ", damaged: {damage:?}")?;
        }
        if self.fragments.size != 0 {
            write!(to, ", in fragments of {} in the order {:?}", self.fragments.size, self.fragments.order)?;
        }
        Ok(())
    }
}
