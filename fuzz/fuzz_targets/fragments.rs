//! Fragments: of a few datagrams, in any order, overlapping, of any size, with the same identification or another.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use netpath_fuzz::{Moment, Place, Port, Protocol, Tuple, packet, play};

#[derive(Arbitrary, Debug)]
struct Story {
    beginning: u8,
    parts: Vec<Part>,
}

#[derive(Arbitrary, Debug)]
struct Part {
    moment: Moment,
    datagram: u8,
    identification: u8,
    /// In units of eight bytes; 13 bits are used.
    offset: u16,
    /// Whether others follow it.
    more: bool,
    /// Bytes behind the IPv4 header.
    length: u8,
}

/// The datagrams; those of one conversation have the same tuple.
fn datagrams() -> [(Protocol, Tuple); 6] {
    use Place::{Container, Host, OtherContainer, Remote};
    let tuple = |source, destination, ports| Tuple { source, destination, ports };
    let (own, service, published) = (Port::Any(5000), Port::Service, Port::Published);
    [
        (Protocol::Udp, tuple(OtherContainer, Remote, (own, service))),
        (Protocol::Udp, tuple(Remote, Host, (service, own))),
        (Protocol::Udp, tuple(Remote, Host, (own, published))),
        (Protocol::Udp, tuple(OtherContainer, Container, (own, service))),
        (Protocol::EchoRequest, tuple(OtherContainer, Remote, (own, service))),
        (Protocol::Tcp { flags: 2, sequence: 1, acknowledgement: 0 }, tuple(OtherContainer, Host, (own, published))),
    ]
}

fuzz_target!(|story: Story| {
    play(story.beginning, story.parts.iter().map(|part| (part.moment, part.frame())));
});

impl Part {
    fn frame(&self) -> Vec<u8> {
        const IPV4: usize = 14;
        const DATA: usize = IPV4 + 20;
        let (protocol, tuple) = datagrams()[usize::from(self.datagram) % datagrams().len()];
        let mut frame = packet(protocol, &tuple);
        if self.offset & 0x1fff != 0 {
            // No port where none is.
            frame.truncate(DATA);
        }
        frame.resize(DATA + usize::from(self.length.min(200)), 0x5a);
        let total = u16::try_from(frame.len() - IPV4).expect("it is short");
        let flags = self.offset & 0x1fff | if self.more { 0x2000 } else { 0 };
        frame[IPV4 + 2..IPV4 + 4].copy_from_slice(&total.to_be_bytes());
        frame[IPV4 + 4..IPV4 + 6].copy_from_slice(&[0, self.identification & 3]);
        frame[IPV4 + 6..IPV4 + 8].copy_from_slice(&flags.to_be_bytes());
        let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[IPV4..]).expect("its header is whole").to_header();
        frame[IPV4 + 10..IPV4 + 12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        frame
    }
}
