//! The seam between the packet path and a real packet: an XDP frame, an `__sk_buff` or a byte slice.
//!
//! Reads copy and writes store: no reference into a packet survives, because a helper may move its bytes. The reason
//! for the two checksum methods is the kernel's: a packet that came from a local peer may carry only the pseudo-header
//! sum (`CHECKSUM_PARTIAL`), a hardware sum over the whole packet may stand beside it (`CHECKSUM_COMPLETE`), and only
//! `bpf_l4_csum_replace` knows which.

use crate::{drop::DropReason, wire::checksum::Checksum};

/// Whether a transport checksum of zero means "none" (UDP over IPv4, RFC 768).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroChecksum {
    /// Zero is a sum like any other (TCP).
    IsValue,
    /// Zero means that the sender made none (UDP): it stays zero, and a sum that becomes zero is written as 0xFFFF.
    IsNone,
}

impl ZeroChecksum {
    /// The checksum field after a rewrite; `None`: there is none to change.
    #[inline(always)]
    #[must_use]
    pub const fn replace(self, old: [u8; 2], delta: Checksum) -> Option<[u8; 2]> {
        match (self, old, delta.apply(old)) {
            (Self::IsNone, [0, 0], _) => None,
            (Self::IsNone, _, [0, 0]) => Some([0xff, 0xff]),
            (_, _, new) => Some(new),
        }
    }
}

/// A packet, from its Ethernet header on.
pub trait Packet {
    /// Length of the frame in bytes, payload and Ethernet header included.
    fn frame_len(&self) -> u32;

    /// How many of these bytes lie in the frame's first buffer. Cheap everywhere, as [`Self::frame_len`] isn't at XDP; where
    /// that is cheap too, all of them count.
    #[inline(always)]
    fn first_len(&self) -> u32 {
        self.frame_len()
    }

    /// Payload bytes of each segment when the kernel has merged or not yet split segments (GRO, GSO), else 0.
    fn segment_payload_len(&self) -> u32;

    /// Two bytes at an offset, or `None` past the end.
    fn read_u16(&self, at: usize) -> Option<[u8; 2]>;

    /// Four bytes at an offset, or `None` past the end.
    fn read_u32(&self, at: usize) -> Option<[u8; 4]>;

    /// `N` neighbouring words of four bytes at an offset, each as it lies in memory, or `None` past the end. One check
    /// for all of them: the cheapest way to read a header.
    fn read_words<const N: usize>(&self, at: usize) -> Option<[u32; N]>;

    /// Writes two bytes.
    ///
    /// # Errors
    ///
    /// [`DropReason::RewriteFailed`] past the end.
    fn write_u16(&mut self, at: usize, value: [u8; 2]) -> Result<(), DropReason>;

    /// Writes four bytes.
    ///
    /// # Errors
    ///
    /// [`DropReason::RewriteFailed`] past the end.
    fn write_u32(&mut self, at: usize, value: [u8; 4]) -> Result<(), DropReason>;

    /// Writes `N` neighbouring words as they are to lie in memory.
    ///
    /// # Errors
    ///
    /// [`DropReason::RewriteFailed`] past the end.
    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason>;

    /// Makes the frame this long: cuts it off, or adds bytes of no meaning.
    ///
    /// # Errors
    ///
    /// [`DropReason::RewriteFailed`] when the buffer can't.
    fn resize(&mut self, len: u32) -> Result<(), DropReason>;

    /// Adds to the TCP or UDP checksum at an offset what changed in the addresses (seen through the pseudo-header) and
    /// in the transport header. Comes after all other writes: it may invalidate what the verifier knows of the packet.
    ///
    /// # Errors
    ///
    /// [`DropReason::RewriteFailed`] past the end.
    fn update_transport_checksum(
        &mut self,
        at: usize,
        addresses: Checksum,
        ports: Checksum,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason>;
}

impl Packet for &mut [u8] {
    fn frame_len(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn segment_payload_len(&self) -> u32 {
        0
    }

    fn read_u16(&self, at: usize) -> Option<[u8; 2]> {
        self.get(at..)?.first_chunk().copied()
    }

    fn read_u32(&self, at: usize) -> Option<[u8; 4]> {
        self.get(at..)?.first_chunk().copied()
    }

    fn read_words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let bytes = self.get(at..at.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Some(words)
    }

    fn write_u16(&mut self, at: usize, value: [u8; 2]) -> Result<(), DropReason> {
        *self.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(DropReason::RewriteFailed)? = value;
        Ok(())
    }

    fn write_u32(&mut self, at: usize, value: [u8; 4]) -> Result<(), DropReason> {
        *self.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(DropReason::RewriteFailed)? = value;
        Ok(())
    }

    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason> {
        let bytes = self.get_mut(at..at + 4 * N).ok_or(DropReason::RewriteFailed)?;
        for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        Ok(())
    }

    fn resize(&mut self, len: u32) -> Result<(), DropReason> {
        let frame = core::mem::take(self).split_at_mut_checked(len as usize);
        *self = frame.ok_or(DropReason::RewriteFailed)?.0;
        Ok(())
    }

    fn update_transport_checksum(
        &mut self,
        at: usize,
        addresses: Checksum,
        ports: Checksum,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        let old = self.read_u16(at).ok_or(DropReason::RewriteFailed)?;
        match zero.replace(old, addresses.plus(ports)) {
            Some(new) => self.write_u16(at, new),
            None => Ok(()),
        }
    }
}
