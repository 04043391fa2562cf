//! A frame at XDP. It is only read here: what changes it happens at tc.

use core::ptr::read_volatile;

use aya_ebpf::{helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use netpath_common::{
    drop::DropReason,
    packet::{Packet, ZeroChecksum},
    wire::checksum::Checksum,
};

use super::load;

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

    fn write_u16(&mut self, _at: usize, _value: [u8; 2]) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    fn write_u32(&mut self, _at: usize, _value: [u8; 4]) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    fn write_words<const N: usize>(&mut self, _at: usize, _words: [u32; N]) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    fn resize(&mut self, _len: u32) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }

    fn update_transport_checksum(
        &mut self,
        _at: usize,
        _addresses: Checksum,
        _ports: Checksum,
        _zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        Err(DropReason::RewriteFailed)
    }
}
