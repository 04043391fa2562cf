//! Fragments: only the first one of a datagram has the ports (RFC 791), so they are remembered for the others; and what
//! overlaps with a part that has come is dropped (RFC 5722 has IPv6 do so, Linux does it for both).
//!
//! Nothing is put together here. A fragment that overtakes its first is held until that comes, which only the kernel's side
//! can do.

use crate::{
    abi::{FragmentKey, FragmentPorts},
    conntrack::state::SECOND_NS,
    drop::DropReason,
    parse::{Fragment, Headers, Transport},
    tables::{Arrival, Tables},
    wire::ethernet,
};

/// How long a fragmented datagram is remembered: as long as Linux waits for its parts (net.ipv4.ipfrag_time).
pub const FRAGMENT_NS: u64 = 30 * SECOND_NS;

/// Bytes in a unit of the fragment offset.
const UNIT: u32 = 8;

impl FragmentKey {
    /// Names the datagram of a fragment.
    #[inline(always)]
    #[must_use]
    pub const fn of(headers: &Headers) -> Self {
        Self {
            source: headers.key.source,
            destination: headers.key.destination,
            identification: headers.identification,
            protocol: headers.key.protocol,
            reserved: 0,
        }
    }
}

/// Gives a later fragment the ports of its datagram, and remembers those of a first one.
///
/// # Errors
///
/// [`DropReason::FragmentOverlap`] when a part of the fragment has come already.
#[inline(never)]
pub(super) fn resolve<T: Tables>(tables: &mut T, headers: &mut Headers, arrival: &Arrival) -> Result<(), DropReason> {
    let key = FragmentKey::of(headers);
    let part = part(headers);
    if headers.fragment == Fragment::First {
        let ports = FragmentPorts {
            seen_ns: arrival.now_ns,
            source_port: headers.key.source_port,
            destination_port: headers.key.destination_port,
            reserved: 0,
            parts: [part, 0, 0, 0],
        };
        tables.remember_fragment(&key, &ports);
        return Ok(());
    }
    let Some(mut ports) = tables.fragment_ports(&key) else { return Ok(()) };
    if arrival.now_ns.saturating_sub(ports.seen_ns) >= FRAGMENT_NS {
        return Ok(());
    }
    if !note(&mut ports.parts, part) {
        return Err(DropReason::FragmentOverlap);
    }
    tables.remember_fragment(&key, &ports);
    headers.key.source_port = ports.source_port;
    headers.key.destination_port = ports.destination_port;
    if headers.transport == Transport::Unknown {
        headers.transport = Transport::Fragment;
    }
    Ok(())
}

/// Which part of its datagram a fragment is, as [`FragmentPorts::parts`] has it. A last one may end within a unit.
#[inline(always)]
const fn part(headers: &Headers) -> u32 {
    let first = headers.fragment_offset as u32;
    let payload = headers.total_len + ethernet::LEN as u32 - headers.transport_at as u32;
    let units = if headers.more_fragments { payload / UNIT } else { payload.div_ceil(UNIT) };
    first << 16 | (first + units) & 0xffff
}

/// Adds a part. Gives whether it is new; of a datagram that comes in more pieces at once than are remembered, it is taken
/// for new, and the receiver, who puts it together, decides.
#[inline(always)]
const fn note(parts: &mut [u32; 4], part: u32) -> bool {
    let (first, end) = (part >> 16, part & 0xffff);
    let mut index = 0;
    while index < parts.len() {
        let (have_first, have_end) = (parts[index] >> 16, parts[index] & 0xffff);
        if parts[index] != 0 && first < have_end && have_first < end {
            return false;
        }
        index += 1;
    }
    let mut index = 0;
    while index < parts.len() {
        let (have_first, have_end) = (parts[index] >> 16, parts[index] & 0xffff);
        if parts[index] == 0 {
            parts[index] = part;
            return true;
        }
        if have_end == first {
            parts[index] = have_first << 16 | end;
            return true;
        }
        if have_first == end {
            parts[index] = first << 16 | have_end;
            return true;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::note;

    const fn part(first: u32, end: u32) -> u32 {
        first << 16 | end
    }

    #[test]
    fn parts_are_taken_once_in_any_order() {
        for order in [[0, 1, 2, 3], [0, 3, 1, 2], [0, 2, 3, 1]] {
            let mut parts = [0; 4];
            for index in order {
                assert!(note(&mut parts, part(index * 185, (index + 1) * 185)), "{order:?}");
            }
            for index in order {
                assert!(!note(&mut parts, part(index * 185, (index + 1) * 185)), "twice: {order:?}");
            }
        }
    }

    #[test]
    fn an_overlap_of_one_unit_is_seen() {
        for (first, end, expected) in [(185, 370, true), (184, 370, false), (0, 1, false), (100, 101, false)] {
            let mut parts = [part(0, 185), 0, 0, 0];
            assert_eq!(note(&mut parts, part(first, end)), expected, "{first} to {end}");
        }
    }

    #[test]
    fn a_long_datagram_in_order_needs_one_place() {
        let mut parts = [0; 4];
        for index in 0..44 {
            assert!(note(&mut parts, part(index * 185, (index + 1) * 185)));
        }
        assert_eq!(parts, [part(0, 44 * 185), 0, 0, 0]);
    }
}
