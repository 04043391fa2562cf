//! The ICMP errors that netpath itself answers with (RFC 792). Without them the sender would wait for its own time-outs.

use crate::{
    abi::{Address, Rate},
    drop::DropReason,
    packet::Packet,
    parse::{Fragment, Headers, Transport},
    wire::{checksum::Checksum, ethernet, icmp, ipv4, protocol},
};

/// Bytes of the refused packet that the error quotes: its header without options and eight bytes (RFC 792).
const QUOTE_LEN: usize = ipv4::LEN + icmp::QUOTE_MIN;
/// Bytes of the error's IPv4 packet.
const TOTAL_LEN: usize = ipv4::LEN + icmp::LEN + QUOTE_LEN;
/// Precedence: internetwork control (RFC 1812, section 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
/// What of the type of service an answer has of the packet, as from Linux.
const SERVICE: u8 = 0x1e;
/// Time to live, as Linux sends it.
const TTL: u8 = 64;

/// What a sender is told: an ICMP error's type and code, and the MTU of the next hop where that is what it is about, else 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    kind: u8,
    code: u8,
    mtu: u16,
}

impl Told {
    /// "Administratively prohibited": no flow can be opened (RFC 5508, REQ-8).
    pub const PROHIBITED: Self = Self { kind: icmp::UNREACHABLE, code: icmp::PROHIBITED, mtu: 0 };
    /// "Time to live exceeded in transit".
    pub const TIME_EXCEEDED: Self = Self { kind: icmp::TIME_EXCEEDED, code: 0, mtu: 0 };

    /// "Fragmentation needed": no more than `mtu` bytes can be sent on (RFC 1191, section 4).
    #[inline(always)]
    #[must_use]
    pub const fn too_big(mtu: u16) -> Self {
        Self { kind: icmp::UNREACHABLE, code: icmp::FRAGMENTATION_NEEDED, mtu }
    }
}

/// A thousand in a second for each budget, and as many at once as `net.ipv4.icmp_msgs_burst`: a traceroute sends its probes all
/// together.
const RATE: Rate = Rate::per_second(1000, 50);

/// Whether a budget has room for one more answer, which it then has given.
#[inline(always)]
pub const fn spend(full_at_ns: &mut u64, now_ns: u64) -> bool {
    RATE.spend(full_at_ns, now_ns)
}

/// Whether there may be an error about a packet at all (RFC 1122, section 3.2.2): not about an error, not about what was
/// addressed to a group by Ethernet, not to a source that is no single machine.
#[inline(always)]
pub fn may_be_told(packet: &impl Packet, headers: &Headers) -> bool {
    let [network, ..] = headers.key.source;
    let is_error = matches!(headers.transport, Transport::IcmpError | Transport::IcmpOther);
    let is_one = matches!(network, 1..=126 | 128..=223);
    let to_group = match packet.read_u16(ethernet::DESTINATION) {
        Some([first, _]) => first & ethernet::GROUP != 0,
        None => true,
    };
    is_one && !is_error && !to_group
}

/// Turns the packet into the error about it, from the address `source`, for whoever sent the packet.
///
/// # Errors
///
/// [`DropReason::RewriteFailed`] when the packet can't be answered: it is a later fragment, has IPv4 options or a wrong
/// IPv4 checksum, or its buffer can't take the answer.
#[inline(never)]
pub fn answer(packet: &mut impl Packet, headers: &Headers, source: Address, told: Told) -> Result<(), DropReason> {
    const QUOTE_AT: usize = ethernet::LEN + ipv4::LEN + icmp::LEN;
    if headers.fragment == Fragment::Later || headers.transport_at != ethernet::LEN + ipv4::LEN {
        return Err(DropReason::RewriteFailed);
    }
    packet.resize((ethernet::LEN + TOTAL_LEN) as u32)?;
    let quote: [u32; QUOTE_LEN / 4] = packet.read_words(ethernet::LEN).ok_or(DropReason::RewriteFailed)?;
    if of_words(&quote, ipv4::LEN / 4, Checksum::NONE).folded() != u16::MAX {
        // Nobody can rely on what a damaged header says, its sender least.
        return Err(DropReason::RewriteFailed);
    }
    packet.write_words(QUOTE_AT, quote)?;
    let length = (TOTAL_LEN as u16).to_be_bytes();
    let network = [
        u32::from_ne_bytes([0x45, PRECEDENCE | headers.tos & SERVICE, length[0], length[1]]),
        0,
        u32::from_ne_bytes([TTL, protocol::ICMP, 0, 0]),
        u32::from_ne_bytes(source),
        u32::from_ne_bytes(headers.key.source),
    ];
    packet.write_words(ethernet::LEN, network)?;
    packet.write_u16(ethernet::LEN + ipv4::CHECKSUM, sum(&network, Checksum::NONE))?;
    let [mtu, last] = told.mtu.to_be_bytes();
    let error = [u32::from_ne_bytes([told.kind, told.code, 0, 0]), u32::from_ne_bytes([0, 0, mtu, last])];
    packet.write_words(ethernet::LEN + ipv4::LEN, error)?;
    packet.write_u16(
        ethernet::LEN + ipv4::LEN + icmp::CHECKSUM,
        sum(&error, of_words(&quote, quote.len(), Checksum::NONE)),
    )?;
    let addresses: [u32; 3] = packet.read_words(ethernet::DESTINATION).ok_or(DropReason::RewriteFailed)?;
    packet.write_words(ethernet::DESTINATION, swapped(addresses))
}

/// The checksum of words whose checksum field is zero, and of what `others` adds.
#[inline(always)]
fn sum(words: &[u32], others: Checksum) -> [u8; 2] {
    of_words(words, words.len(), others).apply([0xff, 0xff])
}

#[inline(always)]
fn of_words(words: &[u32], count: usize, others: Checksum) -> Checksum {
    let mut sum = others;
    for word in words.iter().take(count) {
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
