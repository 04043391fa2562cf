//! Datagrams to one of the host's IPv6 addresses on their way to an IPv4 container.
//!
//! A connect() to such an address becomes one to IPv4 before there is a packet ([`super::from_socket`]). For a sendto() the kernel
//! refuses that (`udpv6_sendmsg` in net/ipv6/udp.c), so the datagram leaves as IPv6, by the loopback interface, where it is
//! given an IPv4 header. The answer needs nothing: an IPv6 socket takes it as one of `::ffff:a.b.c.d`, which is shown to
//! the program as the address that it asked for.

use crate::{
    abi::{Address, Asked, PathCount},
    drop::DropReason,
    forward::{Fate, Forward, Verdict},
    packet::{Packet, ZeroChecksum},
    tables::Published,
    wire::{checksum::Checksum, ethernet, ipv4, ipv6, protocol, udp},
};

/// What is needed of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Its destination.
    pub asked: Asked,
    /// What goes with the IPv6 addresses from the sum over the pseudo-header.
    addresses: Checksum,
    /// Bytes behind the IPv6 header.
    payload_len: u16,
}

impl Datagram {
    /// Reads a frame; `None` for everything else.
    #[inline(always)]
    pub fn read(packet: &impl Packet) -> Option<Self> {
        if packet.read_u16(ethernet::ETHER_TYPE)? != ethernet::IPV6 || packet.segment_payload_len() != 0 {
            return None;
        }
        let words = packet.read_words::<{ ipv6::LEN / 4 }>(ethernet::LEN)?;
        let [high, low, next_header, _hop_limit] = words[1].to_ne_bytes();
        if next_header != protocol::UDP {
            return None;
        }
        let port = packet.read_u16(ethernet::LEN + ipv6::LEN + udp::DESTINATION_PORT)?;
        let asked = Asked::ipv6([words[6], words[7], words[8], words[9]], port);
        let mut addresses = Checksum::NONE;
        let mut word = 2;
        while word < words.len() {
            addresses = addresses.replace_u32(words[word].to_ne_bytes(), [0; 4]);
            word += 1;
        }
        Some(Self { asked, addresses, payload_len: u16::from_be_bytes([high, low]) })
    }

    /// What becomes of the sum over the pseudo-header with these addresses.
    #[inline(always)]
    #[must_use]
    pub const fn with_addresses(&self, source: Address, destination: Address) -> Checksum {
        self.addresses.plus(Checksum::NONE.replace_u32([0; 4], source).replace_u32([0; 4], destination))
    }

    /// The length of the packet once it is IPv4's; `None` when that is more than IPv4 can say.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4_len(&self) -> Option<u16> {
        self.payload_len.checked_add(ipv4::LEN as u16)
    }
}

/// How a datagram leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// Where it goes.
    pub target: Published,
    /// The host's address towards there.
    pub source: Address,
    /// The host side of the container's veth.
    pub ifindex: u32,
    /// The Ethernet addresses: [`crate::abi::Hop::addresses`].
    pub addresses: [u32; 3],
    /// [`Datagram::ipv4_len`].
    pub len: u16,
    /// [`Datagram::with_addresses`].
    pub checksum: Checksum,
}

/// Writes the headers of a datagram whose IPv6 header has been shortened to the length of an IPv4 one.
#[inline(always)]
pub fn leave(packet: &mut impl Packet, leaving: &Leaving) -> Fate {
    match write(packet, leaving) {
        Ok(()) => {
            let forward = Forward::Out { ifindex: leaving.ifindex };
            Fate::forwarded(Verdict { forward, path: PathCount::HostToContainer })
        }
        Err(reason) => Fate::dropped(reason),
    }
}

#[inline(always)]
fn write(packet: &mut impl Packet, leaving: &Leaving) -> Result<(), DropReason> {
    const UDP: usize = ethernet::LEN + ipv4::LEN;
    let Leaving { target, source, addresses, len, checksum, .. } = leaving;
    packet.write_words(ethernet::DESTINATION, *addresses)?;
    packet.write_u16(ethernet::ETHER_TYPE, ethernet::IPV4)?;
    packet.write_words(ethernet::LEN, ipv4_header(*len, *source, target.address))?;
    let asked = packet.read_u16(UDP + udp::DESTINATION_PORT).ok_or(DropReason::RewriteFailed)?;
    packet.write_u16(UDP + udp::DESTINATION_PORT, target.port)?;
    let ports = Checksum::NONE.replace_u16(asked, target.port);
    packet.update_transport_checksum(UDP + udp::CHECKSUM, *checksum, ports, ZeroChecksum::IsNone)
}

/// An IPv4 header for UDP, as words as they lie in memory.
#[inline(always)]
const fn ipv4_header(len: u16, source: Address, destination: Address) -> [u32; 5] {
    /// The kernel's own (net.ipv4.ip_default_ttl).
    const TTL: u8 = 64;
    let [high, low] = len.to_be_bytes();
    let [fragment, _] = ipv4::DONT_FRAGMENT.to_be_bytes();
    let length = [0x45, 0, high, low];
    let fragment = [0, 0, fragment, 0];
    let protocol = [TTL, protocol::UDP, 0, 0];
    let sum = Checksum::NONE
        .replace_u32([0; 4], length)
        .replace_u32([0; 4], fragment)
        .replace_u32([0; 4], protocol)
        .replace_u32([0; 4], source)
        .replace_u32([0; 4], destination);
    let [first, second] = sum.apply([0xff, 0xff]);
    [
        u32::from_ne_bytes(length),
        u32::from_ne_bytes(fragment),
        u32::from_ne_bytes([TTL, protocol::UDP, first, second]),
        u32::from_ne_bytes(source),
        u32::from_ne_bytes(destination),
    ]
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const OTHER: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn frame(source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv6(source, destination, 64).udp(40_000, 8053);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"question").unwrap();
        frame
    }

    fn read(mut frame: Vec<u8>) -> Option<Datagram> {
        Datagram::read(&frame.as_mut_slice())
    }

    #[test]
    fn only_datagrams_are_read() {
        let datagram = read(frame(LOOPBACK, LOOPBACK)).unwrap();
        assert!(datagram.asked.is_ipv6_loopback());
        assert_eq!(u16::from_be_bytes(datagram.asked.port), 8053);
        assert_eq!(datagram.ipv4_len(), Some(20 + 8 + 8));
        let mut tcp = Vec::new();
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv6(LOOPBACK, LOOPBACK, 64).tcp(1, 8053, 0, 0);
        builder.write(&mut tcp, b"").unwrap();
        assert_eq!(read(tcp), None);
        let mut ipv4 = Vec::new();
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([127, 0, 0, 1], [127, 0, 0, 1], 64).udp(1, 8053);
        builder.write(&mut ipv4, &[0; 64]).unwrap();
        assert_eq!(read(ipv4), None);
    }

    #[test]
    fn a_datagram_leaves_with_whole_ipv4_headers_and_checksums() {
        for address in [LOOPBACK, OTHER] {
            let (source, destination) = ([172, 17, 0, 1], [172, 17, 0, 2]);
            let mut frame = frame(address, address);
            let datagram = read(frame.clone()).unwrap();
            // What bpf_skb_change_proto does: the header behind the Ethernet addresses loses twenty bytes.
            frame.drain(14..34);
            let leaving = Leaving {
                target: Published { address: destination, port: [0, 53], reserved: [0; 2] },
                source,
                ifindex: 12,
                addresses: [0x0101_0101; 3],
                len: datagram.ipv4_len().unwrap(),
                checksum: datagram.with_addresses(source, destination),
            };
            let fate = leave(&mut frame.as_mut_slice(), &leaving);
            assert_eq!(fate.forward(), Some(Forward::Out { ifindex: 12 }));
            assert_eq!(frame[..12], [1; 12]);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4: {packet:?}") };
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination), (source, destination));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP: {packet:?}") };
            assert_eq!((udp.destination_port(), udp.payload()), (53, b"question".as_slice()));
            assert_eq!(udp.checksum(), udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap());
        }
    }
}
