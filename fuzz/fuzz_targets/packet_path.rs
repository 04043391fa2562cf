//! Sends invented packets through the packet path of a host with two containers and a published port.
//!
//! It looks for panics, and for packets that leave with worse checksums than they came with or changed although they
//! are the kernel's. A packet is a real one of some protocol with bytes of it overwritten, because the fuzzer would
//! take long to invent one from nothing; it can still make any bytes of it.
#![no_main]

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_common::abi::Mode;
use netpath_common::forward::Forward;
use netpath_common::model::Model;
use netpath_common::path::{early, from_container, from_host, from_wire};
use netpath_common::tables::Arrival;

/// A host, and what happens on it.
#[derive(Arbitrary, Debug)]
struct Story {
    is_sole: bool,
    steps: Vec<Step>,
}

/// One packet.
#[derive(Arbitrary, Debug)]
struct Step {
    seconds_later: u8,
    way: Way,
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
    let mut model = Model::host(if story.is_sole { Mode::Sole } else { Mode::Takeover });
    model.flows_max = 16;
    let mut now_ns = 1_000_000_000;
    for step in &story.steps {
        now_ns += u64::from(step.seconds_later) * 1_000_000_000;
        send(&mut model, step, now_ns);
    }
});

fn send(model: &mut Model, step: &Step, now_ns: u64) {
    let mut frame = step.frame();
    let before = frame.clone();
    let mut packet = frame.as_mut_slice();
    let arrival = |ifindex| Arrival { ifindex, now_ns };
    let verdict = match step.way {
        Way::FromWire => match early::early(&packet, model) {
            Ok(()) => from_wire::from_wire(&mut packet, model, &arrival(Model::UPLINK)),
            Err(reason) => Err(reason),
        },
        Way::FromContainer => from_container::from_container(&mut packet, model, &arrival(12)),
        Way::FromOtherContainer => from_container::from_container(&mut packet, model, &arrival(13)),
        Way::FromHost => from_host::from_host(&mut packet, model, &arrival(Model::BRIDGE)),
    };
    match verdict {
        Ok(verdict) if verdict.forward == Forward::Kernel => {
            assert_eq!(before, frame, "the kernel's packet was changed")
        }
        Ok(_) => assert!(has_right_sums(&frame) || !has_right_sums(&before), "{before:02x?} became {frame:02x?}"),
        Err(_) => {}
    }
}

impl Step {
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

/// Whether all checksums are right, as another implementation counts them. A sum that is not there can't be wrong.
fn has_right_sums(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { return false };
    let header = ip.header().to_header();
    if header.header_checksum != header.calc_header_checksum() {
        return false;
    }
    if ip.header().is_fragmenting_payload() {
        return true;
    }
    let (source, destination) = (header.source, header.destination);
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            tcp.calc_checksum_ipv4(source, destination).is_ok_and(|sum| sum == tcp.checksum())
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv4_raw(source, destination, udp.payload());
            header.checksum == 0 || sum.is_ok_and(|sum| sum == header.checksum)
        }
        Some(TransportSlice::Icmpv4(icmp)) => icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum(),
        _ => true,
    }
}
