//! A frame at XDP.

use core::ptr::read_volatile;

use aya_ebpf::{helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use netpath_common::{
    drop::DropReason,
    packet::{Packet, ZeroChecksum},
    wire::checksum::Checksum,
};

use super::{load, store};

/// A frame in the driver's buffer.
pub(crate) struct XdpPacket<'context> {
    context: &'context XdpContext,
}

impl<'context> XdpPacket<'context> {
    #[inline(always)]
    pub(crate) const fn new(context: &'context XdpContext) -> Self {
        Self { context }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { read_volatile(&raw const (*self.context.ctx).data) as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { read_volatile(&raw const (*self.context.ctx).data_end) as usize }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the context is the program's own. Counts the frame's fragments too (kernel 5.18).
        unsafe { bpf_xdp_get_buff_len(self.context.ctx) as u32 }
    }

    #[inline(always)]
    fn first_len(&self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn segment_payload_len(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn read_u16(&self, at: usize) -> Option<[u8; 2]> {
        load!(self, at, u16).map(u16::to_ne_bytes)
    }

    #[inline(always)]
    fn read_u32(&self, at: usize) -> Option<[u8; 4]> {
        load!(self, at, u32).map(u32::to_ne_bytes)
    }

    #[inline(always)]
    fn read_words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        load!(self, at, [u32; N])
    }

    #[inline(always)]
    fn write_u16(&mut self, at: usize, value: [u8; 2]) -> Result<(), DropReason> {
        store!(self, at, u16::from_ne_bytes(value), u16)
    }

    #[inline(always)]
    fn write_u32(&mut self, at: usize, value: [u8; 4]) -> Result<(), DropReason> {
        store!(self, at, u32::from_ne_bytes(value), u32)
    }

    #[inline(always)]
    fn write_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), DropReason> {
        store!(self, at, words, [u32; N])
    }

    /// Nothing at XDP needs it.
    fn resize(&mut self, _len: u32) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    /// A frame has no more than its bytes: the sum is there, whole.
    #[inline(always)]
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
