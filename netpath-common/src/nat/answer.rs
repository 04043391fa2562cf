//! The ICMP error that netpath itself answers a container with (RFC 792): "administratively prohibited", for a flow that
//! can't be opened. Without it the sender would wait for its own time-outs.

use crate::{
    abi::Address,
    drop::DropReason,
    packet::Packet,
    parse::{Fragment, Headers},
    wire::{checksum::Checksum, ethernet, icmp, ipv4, protocol},
};

/// Bytes of the refused packet that the error quotes: its header without options and eight bytes (RFC 792).
const QUOTE_LEN: usize = ipv4::LEN + icmp::QUOTE_MIN;
/// Bytes of the error's IPv4 packet.
const TOTAL_LEN: usize = ipv4::LEN + icmp::LEN + QUOTE_LEN;
/// Type of service: internetwork control (RFC 1812, section 4.3.2.5).
const TOS: u8 = 0xc0;
/// Time to live, as Linux sends it.
const TTL: u8 = 64;

/// Turns the packet into the error about it, from the address `source`, for whoever sent the packet.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when the packet can't be answered: it is a later fragment, has IPv4 options, or its
/// buffer can't take the answer.
#[inline(never)]
pub fn prohibited(packet: &mut impl Packet, headers: &Headers, source: Address) -> Result<(), DropReason> {
    const QUOTE_AT: usize = ethernet::LEN + ipv4::LEN + icmp::LEN;
    if headers.fragment == Fragment::Later || headers.transport_at != ethernet::LEN + ipv4::LEN {
        return Err(DropReason::RewriteFailed);
    }
    packet.resize((ethernet::LEN + TOTAL_LEN) as u32)?;
    let quote: [u32; QUOTE_LEN / 4] = packet.read_words(ethernet::LEN).ok_or(DropReason::RewriteFailed)?;
    packet.write_words(QUOTE_AT, quote)?;
    let length = (TOTAL_LEN as u16).to_be_bytes();
    let network = [
        u32::from_ne_bytes([0x45, TOS, length[0], length[1]]),
        0,
        u32::from_ne_bytes([TTL, protocol::ICMP, 0, 0]),
        u32::from_ne_bytes(source),
        u32::from_ne_bytes(headers.key.source),
    ];
    packet.write_words(ethernet::LEN, network)?;
    packet.write_u16(ethernet::LEN + ipv4::CHECKSUM, sum(&network, Checksum::NONE))?;
    let error = [u32::from_ne_bytes([icmp::UNREACHABLE, icmp::PROHIBITED, 0, 0]), 0];
    packet.write_words(ethernet::LEN + ipv4::LEN, error)?;
    packet.write_u16(ethernet::LEN + ipv4::LEN + icmp::CHECKSUM, sum(&error, of_words(&quote, Checksum::NONE)))?;
    let addresses: [u32; 3] = packet.read_words(ethernet::DESTINATION).ok_or(DropReason::RewriteFailed)?;
    packet.write_words(ethernet::DESTINATION, swapped(addresses))
}

/// The checksum of words whose checksum field is zero, and of what `others` adds.
#[inline(always)]
fn sum(words: &[u32], others: Checksum) -> [u8; 2] {
    of_words(words, others).apply([0xff, 0xff])
}

#[inline(always)]
fn of_words(words: &[u32], others: Checksum) -> Checksum {
    let mut sum = others;
    for word in words {
        sum = sum.plus(Checksum::NONE.replace_u32([0xff; 4], word.to_ne_bytes()));
    }
    sum
}

/// Destination and source of an Ethernet header exchanged: six bytes each, in three words.
#[inline(always)]
const fn swapped(addresses: [u32; 3]) -> [u32; 3] {
    let [a, b, c, d] = addresses[0].to_ne_bytes();
    let [e, f, g, h] = addresses[1].to_ne_bytes();
    let [i, j, k, l] = addresses[2].to_ne_bytes();
    [u32::from_ne_bytes([g, h, i, j]), u32::from_ne_bytes([k, l, a, b]), u32::from_ne_bytes([c, d, e, f])]
}
