//! Real packets behind `netpath_common::packet::Packet`: the only pointer arithmetic.

pub(crate) mod tc;
pub(crate) mod xdp;

/// Reads a value at an offset of the packet when it lies before its end.
///
/// Words are read whole although they may be misaligned: the verifier allows it on every architecture whose loads may
/// be misaligned, and byte loads would cost four times as many instructions.
macro_rules! load {
    ($packet:expr, $at:expr, $type:ty) => {{
        let at: usize = $at;
        let start = $packet.data();
        // The comparison that the verifier looks for: the end of what is read against the end of the packet. `data` is
        // read anew each time, so that the compiler can't see that an earlier comparison proves this one: the verifier
        // doesn't carry that proof over to a pointer that was computed again.
        if at > $crate::packet::OFFSET_MAX || start + at + size_of::<$type>() > $packet.data_end() {
            None
        } else {
            // SAFETY: the comparison above keeps the read inside the packet, and any bits are a valid integer.
            Some(unsafe { *((start + at) as *const $type) })
        }
    }};
}

/// Writes a value at an offset of the packet when it lies before its end.
macro_rules! store {
    ($packet:expr, $at:expr, $value:expr, $type:ty) => {{
        let at: usize = $at;
        let start = $packet.data();
        if at > $crate::packet::OFFSET_MAX || start + at + size_of::<$type>() > $packet.data_end() {
            Err(netpath_common::drop::DropReason::RewriteFailed)
        } else {
            // SAFETY: the comparison above keeps the write inside the packet.
            unsafe { *((start + at) as *mut $type) = $value };
            Ok(())
        }
    }};
}

/// Nothing that is read or written begins later: the last byte of a datagram of 1480 bytes behind Ethernet and the longest
/// IPv4 header. A bound that the verifier can see.
pub(crate) const OFFSET_MAX: usize = 14 + 60 + 1480;

pub(crate) use {load, store};
