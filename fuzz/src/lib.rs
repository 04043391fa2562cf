//! What the targets share: the parties of the model's host, the packets between them, and playing these.
//!
//! What must hold afterwards is checked by `netpath_common::model::exercise`, which takes any bytes. The targets only give
//! them a shape, because the fuzzer would take long to invent one from nothing.

use etherparse::PacketBuilder;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use netpath_common::model::{Model, exercise};

/// The model's bridge: with another Ethernet address a container's frame would be a neighbour's to route.
const BRIDGE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// When and where a packet comes in.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Moment {
    /// How long after the packet before.
    pub seconds_later: u8,
    /// By which way.
    pub way: Way,
    /// Whether the collector comes by afterwards.
    pub collects: bool,
}

/// The ways into the packet path.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Way {
    /// By an uplink.
    FromWire,
    /// Out of the container with the published port.
    FromContainer,
    /// Out of the other one.
    FromOtherContainer,
    /// From the host to a container.
    FromHost,
    /// From the host to the world.
    FromHostToWire,
    /// By an uplink's driver.
    Early,
}

/// Who sends or receives.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Place {
    /// The container with the published port.
    Container,
    /// The other one.
    OtherContainer,
    /// The host's address on the wire.
    Host,
    /// The host's address on the bridge.
    Gateway,
    /// A machine of the world.
    Remote,
    /// Anyone.
    Any([u8; 4]),
}

/// A port.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Port {
    /// The one that is published on the host.
    Published,
    /// The container's behind it.
    Service,
    /// Any.
    Any(u16),
}

/// A packet's protocol and what belongs to it.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Protocol {
    /// TCP.
    Tcp {
        /// The flags byte.
        flags: u8,
        /// The sequence number.
        sequence: u32,
        /// The acknowledgement number.
        acknowledgement: u32,
    },
    /// UDP.
    Udp,
    /// An ICMP echo request.
    EchoRequest,
    /// An ICMP echo reply.
    EchoReply,
}

/// A tuple.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub struct Tuple {
    /// The source address.
    pub source: Place,
    /// The destination address.
    pub destination: Place,
    /// Source and destination port.
    pub ports: (Port, Port),
}

/// What happens to the bytes of a finished frame.
#[derive(Arbitrary, Debug, Clone)]
pub struct Damage {
    /// Bytes that are overwritten: where, and with what.
    pub edits: Vec<(u8, u8)>,
    /// Where the frame is cut off, if it is that long.
    pub cut: Option<u8>,
}

impl Damage {
    /// Does it.
    pub fn apply(&self, frame: &mut Vec<u8>) {
        for (at, value) in &self.edits {
            if let Some(byte) = frame.get_mut(usize::from(*at)) {
                *byte = *value;
            }
        }
        if let Some(cut) = self.cut {
            frame.truncate(usize::from(cut));
        }
    }
}

/// Sends frames through the packet path of a host, of which `beginning` says the mode and the size of the flow table.
///
/// # Panics
/// When something doesn't hold: that is what the fuzzer looks for.
pub fn play(beginning: u8, frames: impl IntoIterator<Item = (Moment, Vec<u8>)>) {
    let mut input = vec![beginning];
    for (moment, frame) in frames {
        let length = u8::try_from(frame.len()).expect("no target makes longer frames");
        input.extend([moment.byte(), moment.seconds_later, length]);
        input.extend(frame);
    }
    exercise(&input);
}

/// A frame with a small payload.
#[must_use]
pub fn packet(protocol: Protocol, tuple: &Tuple) -> Vec<u8> {
    let (source_port, destination_port) = (tuple.ports.0.number(), tuple.ports.1.number());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], BRIDGE).ipv4(
        tuple.source.address(),
        tuple.destination.address(),
        64,
    );
    let mut frame = Vec::new();
    // Long enough for an ICMP error in its place.
    let payload = b"netpath, a payload";
    let written = match protocol {
        Protocol::Tcp { flags, sequence, acknowledgement } => {
            let mut header = etherparse::TcpHeader::new(source_port, destination_port, sequence, 65000);
            header.acknowledgment_number = acknowledgement;
            [header.fin, header.syn, header.rst, header.psh, header.ack] = [1, 2, 4, 8, 16].map(|bit| flags & bit != 0);
            builder.tcp_header(header).write(&mut frame, payload)
        }
        Protocol::Udp => builder.udp(source_port, destination_port).write(&mut frame, payload),
        Protocol::EchoRequest => builder.icmpv4_echo_request(source_port, destination_port).write(&mut frame, payload),
        Protocol::EchoReply => builder.icmpv4_echo_reply(source_port, destination_port).write(&mut frame, payload),
    };
    written.expect("a vector takes every byte");
    frame
}

/// An ICMP error that quotes an IPv4 packet.
#[must_use]
pub fn error(kind: u8, code: u8, source: Place, destination: Place, quoted: &[u8]) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], BRIDGE).ipv4(source.address(), destination.address(), 64);
    let mut frame = Vec::new();
    let written = builder.icmpv4_raw(kind, code, [0, 0, 0x05, 0x00]).write(&mut frame, quoted);
    written.expect("a vector takes every byte");
    frame
}

impl Moment {
    /// The byte that `exercise` reads it from.
    fn byte(self) -> u8 {
        let way = match self.way {
            Way::FromWire => 0,
            Way::FromContainer => 1,
            Way::FromOtherContainer => 2,
            Way::FromHost => 3,
            Way::FromHostToWire => 4,
            Way::Early => 5,
        };
        // The bit for the collector comes by a number of the same remainder.
        if self.collects { way + 132 } else { way }
    }
}

impl Tuple {
    /// Seen from the other end.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { source: self.destination, destination: self.source, ports: (self.ports.1, self.ports.0) }
    }
}

impl Place {
    fn address(self) -> [u8; 4] {
        match self {
            Self::Container => [172, 17, 0, 2],
            Self::OtherContainer => [172, 17, 0, 3],
            Self::Host => Model::HOST,
            Self::Gateway => Model::GATEWAY,
            Self::Remote => Model::REMOTE,
            Self::Any(address) => address,
        }
    }
}

impl Port {
    const fn number(self) -> u16 {
        match self {
            Self::Published => 8080,
            Self::Service => 80,
            Self::Any(number) => number,
        }
    }
}
