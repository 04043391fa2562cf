//! The Internet checksum (RFC 1071), computed in full: an opinion of its own, not the one of the code under test.

use std::net::Ipv4Addr;

/// The checksum over all the bytes, as it stands in a header. 0 over a header that contains its checksum: it is right.
#[must_use]
pub fn of(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes()
}

/// The checksum of a TCP or UDP message, pseudo-header included.
#[must_use]
pub fn transport(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, message: &[u8]) -> [u8; 2] {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    of(&[&source.octets(), &destination.octets(), &[0, protocol], &len, message])
}
