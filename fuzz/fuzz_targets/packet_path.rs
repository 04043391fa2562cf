//! Sends invented packets through the packet path of a host with two containers and a published port.
//!
//! What must hold afterwards is checked by `netpath_common::model::exercise`, which takes any bytes. This target only
//! gives them a shape: a packet is a real one of some protocol with bytes of it overwritten, because the fuzzer would
//! take long to invent one from nothing. It can still make any bytes of it.
#![no_main]

use etherparse::PacketBuilder;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_common::model::Model;
use netpath_common::model::exercise;

/// A host, and what happens on it.
#[derive(Arbitrary, Debug)]
struct Story {
    /// The mode and the size of the flow table.
    beginning: u8,
    steps: Vec<Step>,
}

/// One packet.
#[derive(Arbitrary, Debug)]
struct Step {
    seconds_later: u8,
    way: Way,
    collects: bool,
    source: Place,
    destination: Place,
    ports: (Port, Port),
    protocol: Protocol,
    /// Bytes of the finished frame that are overwritten: where, and with what.
    edits: Vec<(u8, u8)>,
    /// Where the frame is cut off, if it is that long.
    cut: Option<u8>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Way {
    FromWire,
    FromContainer,
    FromOtherContainer,
    FromHost,
    Early,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Place {
    Container,
    OtherContainer,
    Host,
    Gateway,
    Remote,
    Any([u8; 4]),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Port {
    Published,
    Service,
    Any(u16),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Protocol {
    Tcp { flags: u8 },
    Udp,
    EchoRequest,
    EchoReply,
    Unreachable { quoted_ports: (Port, Port), quotes_udp: bool },
}

fuzz_target!(|story: Story| {
    let mut input = vec![story.beginning];
    for step in &story.steps {
        let frame = step.frame();
        let length = u8::try_from(frame.len()).expect("no frame is longer than a quoting ICMP error");
        input.extend([step.way(), step.seconds_later, length]);
        input.extend(frame);
    }
    exercise(&input);
});

impl Step {
    /// The byte that `exercise` reads it from.
    fn way(&self) -> u8 {
        let way = match self.way {
            Way::FromWire => 0,
            Way::FromContainer => 1,
            Way::FromOtherContainer => 2,
            Way::FromHost => 3,
            Way::Early => 4,
        };
        // The bit for the collector comes by a number of the same remainder.
        if self.collects { way + 130 } else { way }
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = packet(self.protocol, self.source.address(), self.destination.address(), self.ports);
        for (at, value) in &self.edits {
            if let Some(byte) = frame.get_mut(usize::from(*at)) {
                *byte = *value;
            }
        }
        if let Some(cut) = self.cut {
            frame.truncate(usize::from(cut));
        }
        frame
    }
}

fn packet(protocol: Protocol, source: [u8; 4], destination: [u8; 4], ports: (Port, Port)) -> Vec<u8> {
    let (source_port, destination_port) = (ports.0.number(), ports.1.number());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(source, destination, 64);
    let mut frame = Vec::new();
    let payload = b"netpath";
    let written = match protocol {
        Protocol::Tcp { flags } => {
            let mut tcp = builder.tcp(source_port, destination_port, 1000, 65000);
            for (bit, set) in [(1, "f"), (2, "s"), (4, "r"), (8, "p"), (16, "a")] {
                tcp = match (flags & bit, set) {
                    (0, _) => tcp,
                    (_, "f") => tcp.fin(),
                    (_, "s") => tcp.syn(),
                    (_, "r") => tcp.rst(),
                    (_, "p") => tcp.psh(),
                    _ => tcp.ack(1),
                };
            }
            tcp.write(&mut frame, payload)
        }
        Protocol::Udp => builder.udp(source_port, destination_port).write(&mut frame, payload),
        Protocol::EchoRequest => builder.icmpv4_echo_request(source_port, destination_port).write(&mut frame, payload),
        Protocol::EchoReply => builder.icmpv4_echo_reply(source_port, destination_port).write(&mut frame, payload),
        Protocol::Unreachable { quoted_ports, quotes_udp } => {
            let inner = if quotes_udp { Protocol::Udp } else { Protocol::Tcp { flags: 16 } };
            // The quoted packet went the other way.
            let quoted = packet(inner, destination, source, quoted_ports);
            builder.icmpv4_raw(3, 4, [0, 0, 0x05, 0x00]).write(&mut frame, &quoted[14..])
        }
    };
    written.expect("a vector takes every byte");
    frame
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
    fn number(self) -> u16 {
        match self {
            Self::Published => 8080,
            Self::Service => 80,
            Self::Any(number) => number,
        }
    }
}
