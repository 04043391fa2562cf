//! A socket buffer at tc.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_pull_data,
        bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use netpath_common::{
    drop::DropReason,
    packet::{Packet, ZeroChecksum},
    wire::{checksum::Checksum, ethernet, ipv4, tcp},
};

use super::{load, store};

/// Headers that should be readable without a helper; what a quoted packet needs beyond is pulled when it is there.
const HEADERS_LEN: u32 = (ethernet::LEN + ipv4::LEN + tcp::LEN) as u32;
/// What is pulled when headers aren't linear: the longest headers there are, never payload for its own sake.
const PULL_LEN: u32 = 162;
/// `skb->pkt_type`: for this host (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;
/// The number in a VLAN tag, beside its priority.
const VLAN_NUMBER: u32 = 0xfff;

/// Whether the packet came in by an interface, so that it isn't the host's own.
#[inline(always)]
pub(crate) fn is_forwarded(context: &TcContext) -> bool {
    came_by(context) != 0
}

/// The interface by which a packet came in that leaves by another one; 0: it is the host's own.
#[inline(always)]
pub(crate) fn came_by(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's own for the duration of the program.
    unsafe { (*context.skb.skb).ingress_ifindex }
}

/// A packet in a socket buffer.
pub(crate) struct TcPacket<'context> {
    context: &'context TcContext,
}

impl<'context> TcPacket<'context> {
    /// Makes the headers readable: drivers and GRO may leave them outside the linear part.
    #[inline(always)]
    pub(crate) fn new(context: &'context TcContext) -> Self {
        let packet = Self { context };
        let len = packet.len();
        let wanted = if len < HEADERS_LEN { len } else { HEADERS_LEN };
        if packet.data() + wanted as usize > packet.data_end() {
            let pulled = if len < PULL_LEN { len } else { PULL_LEN };
            // SAFETY: the context is the program's own. A failure leaves the headers unreadable, which parsing reports.
            unsafe { bpf_skb_pull_data(context.skb.skb, pulled) };
        }
        packet
    }

    /// Whether the kernel has the packet for one of IPv6; costs no look at its bytes.
    #[inline(always)]
    pub(crate) fn is_ipv6(context: &TcContext) -> bool {
        // SAFETY: the context is the kernel's own for the duration of the program.
        let protocol = unsafe { (*context.skb.skb).protocol };
        protocol == u32::from(u16::from_ne_bytes(ethernet::IPV6))
    }

    /// Makes the IPv6 header one of IPv4 by its length; its bytes are to be written. False: nothing has changed.
    #[inline(always)]
    pub(crate) fn shorten_to_ipv4(&mut self) -> bool {
        // SAFETY: the context is the program's own. The helper refuses what it can't change.
        unsafe { bpf_skb_change_proto(self.context.skb.skb, u16::from_ne_bytes(ethernet::IPV4), 0) == 0 }
    }

    /// Whether the packet path looks at the packet at all: a frame whose VLAN tag the driver took off belongs to an
    /// interface above this one.
    #[inline(always)]
    pub(crate) fn is_ours(&mut self) -> bool {
        if !self.is_tagged() {
            return true;
        }
        // A tag with a priority and no number (IEEE 802.1p) is of this very interface: the kernel takes it off and goes on
        // (`__netif_receive_skb_core`), so it must be no way past netpath.
        // SAFETY: the context is the program's own; pointers into the packet are read anew after this.
        self.skb().vlan_tci & VLAN_NUMBER == 0
            && unsafe { bpf_skb_vlan_pop(self.context.skb.skb) } == 0
            && !self.is_tagged()
    }

    /// Whether the frame has a VLAN tag beside it.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.skb().vlan_present != 0
    }

    /// Length of the frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.skb().len
    }

    /// The frame was addressed to a bridge or to a neighbour; where it goes, it is for the receiver. Without it the
    /// receiving stack drops what isn't `PACKET_HOST` (`ip_rcv`); kernels from 6.16 do this themselves.
    #[inline(always)]
    pub(crate) fn address_to_receiver(&self) {
        if self.skb().pkt_type != PACKET_HOST {
            // SAFETY: the context is the program's own, and the type is one that the helper may set.
            unsafe { bpf_skb_change_type(self.context.skb.skb, PACKET_HOST) };
        }
    }

    /// Tells userspace what became of this packet.
    #[cfg(feature = "trace")]
    #[inline(always)]
    pub(crate) fn log(&self, fate: netpath_common::forward::Fate) {
        let kind = if fate.forward().is_some() { "path" } else { "drop" };
        aya_log_ebpf::debug!(
            self.context,
            "ifindex {} len {} {} {}",
            self.skb().ifindex,
            self.len(),
            kind,
            fate.counter()
        );
    }

    #[inline(always)]
    fn skb(&self) -> &__sk_buff {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { &*self.context.skb.skb }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { read_volatile(&raw const (*self.context.skb.skb).data) as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: the context is the kernel's own for the duration of the program.
        unsafe { read_volatile(&raw const (*self.context.skb.skb).data_end) as usize }
    }

    /// One call of `bpf_l4_csum_replace` with a prepared difference; it knows the kinds of checksum that a socket
    /// buffer may have.
    #[inline(always)]
    fn replace_checksum(&mut self, at: usize, delta: Checksum, flags: u32) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own; the kernel checks the offset.
        let result = unsafe {
            bpf_l4_csum_replace(self.context.skb.skb, at as u32, 0, u64::from(delta.folded()), u64::from(flags))
        };
        if result == 0 { Ok(()) } else { Err(DropReason::RewriteFailed) }
    }
}

impl Packet for TcPacket<'_> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn segment_payload_len(&self) -> u32 {
        self.skb().gso_size
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

    #[inline(always)]
    fn resize(&mut self, len: u32) -> Result<(), DropReason> {
        // SAFETY: the context is the program's own. The helper pulls the data into the linear part.
        let result = unsafe { bpf_skb_change_tail(self.context.skb.skb, len, 0) };
        if result == 0 { Ok(()) } else { Err(DropReason::RewriteFailed) }
    }

    #[inline(always)]
    fn update_transport_checksum(
        &mut self,
        at: usize,
        addresses: Checksum,
        ports: Checksum,
        zero: ZeroChecksum,
    ) -> Result<(), DropReason> {
        let flags = match zero {
            ZeroChecksum::IsValue => 0,
            ZeroChecksum::IsNone => BPF_F_MARK_MANGLED_0,
        };
        // The addresses count through the pseudo-header, which a CHECKSUM_PARTIAL packet has summed already; the ports
        // it hasn't. So these are two differences, and the second is rare: ports are kept where they are free.
        self.replace_checksum(at, addresses, flags | BPF_F_PSEUDO_HDR)?;
        if ports.folded() != 0 {
            self.replace_checksum(at, ports, flags)?;
        }
        Ok(())
    }
}
