//! Checksums counted in full, the slow way: what the incremental ones must agree with.

/// Whether every checksum of an IPv4 frame is right; a sum that isn't there can't be wrong. `None` for anything else
/// than a whole TCP, UDP or ICMP packet.
pub(super) fn are_right(frame: &[u8]) -> Option<bool> {
    let packet = frame.get(14..).filter(|_| frame.get(12..14) == Some(&[8, 0]))?;
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let (header, payload) = (packet.get(..header_len)?, packet.get(header_len..total_len)?);
    let is_fragment = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]) & 0x3fff != 0;
    if is_fragment {
        return None;
    }
    let protocol = *header.get(9)?;
    let pseudo = match protocol {
        1 => 0,
        6 | 17 => sum(header.get(12..20)?) + u64::from(protocol) + payload.len() as u64,
        _ => return None,
    };
    let is_absent = protocol == 17 && payload.get(6..8)? == [0, 0];
    Some(fold(sum(header)) == 0xffff && (is_absent || fold(pseudo + sum(payload)) == 0xffff))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::are_right;

    fn check(write: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        write(&mut frame);
        assert_eq!(are_right(&frame), Some(true));
        for at in [22, frame.len() - 1] {
            frame[at] ^= 4;
            assert_eq!(are_right(&frame), Some(false), "byte {at}");
            frame[at] ^= 4;
        }
    }

    #[test]
    fn they_agree_with_another_implementation_and_see_a_changed_byte() {
        let ip = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        check(|frame| ip().tcp(1, 2, 3, 4).write(frame, b"odd").unwrap());
        check(|frame| ip().udp(1, 2).write(frame, b"even").unwrap());
        check(|frame| ip().icmpv4_echo_request(1, 2).write(frame, b"x").unwrap());
    }
}
