//! The benchmark's own eBPF programs. None of them is part of netpath.
//!
//! [`generate`] makes UDP frames without a system call per packet: the benchmark runs it with `BPF_PROG_TEST_RUN` and
//! live frames. [`sink`] and [`sink_at_xdp`] count what arrives where a container's packets end, and drop it. [`bare`] leads packets by
//! their port into a container and translates nothing: what no translation can be cheaper than; nor any refusal than
//! [`refuse`].
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the attribute macros hand the context over by value")]

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{
        TC_ACT_OK, TC_ACT_SHOT,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    },
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::{bpf_redirect, bpf_redirect_peer},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use netpath_load::{FLOWS_PER_SOURCE, FRAME_LEN, Load, SOURCE_PORT, Target, counter, load};

#[btf_map]
static LOAD: Array<Load, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, { counter::SLOTS }> = PerCpuArray::new();

/// The bare redirect's ports.
#[btf_map]
static TARGETS: HashMap<u32, Target, 65_536> = HashMap::new();

/// Ethernet, IPv4 and UDP headers, as 16-bit words.
const HEADER_WORDS: usize = 21;

const ETHERTYPE_IPV4: u32 = 0x0800;
/// Version 4, a header of 20 bytes.
const IPV4: u32 = 0x4500;
const IPV4_LEN: u32 = FRAME_LEN as u32 - 14;
const DONT_FRAGMENT: u32 = 0x4000;
const UDP: u32 = 17;
/// 64 hops to live, then the protocol.
const TTL_AND_UDP: u32 = 0x4000 | UDP;
const UDP_LEN: u32 = IPV4_LEN - 20;

/// Writes the whole header of a frame and sends it out.
///
/// The whole, because the kernel reuses the frames' memory: a frame that was translated comes back translated.
#[xdp]
fn generate(context: XdpContext) -> u32 {
    let (Some(load), Some(made)) = (LOAD.get(0), count(counter::MADE)) else { return XDP_ABORTED };
    let start = context.data();
    if start + HEADER_WORDS * 2 > context.data_end() {
        return XDP_ABORTED;
    }
    let number = made as u32;
    let flow = load[load::FLOW].wrapping_add(number % load[load::FLOWS].max(1));
    let source = load[load::SOURCE].wrapping_add(flow / FLOWS_PER_SOURCE);
    let source_port = SOURCE_PORT + flow % FLOWS_PER_SOURCE;
    let port = load[load::PORT] + number % load[load::PORTS].max(1);
    let destination = load[load::DESTINATION];
    let (from, to) = ([source >> 16, source & 0xffff], [destination >> 16, destination & 0xffff]);
    let id = number & 0xffff;
    let addresses = from[0] + from[1] + to[0] + to[1];
    let ip_checksum = checksum(IPV4 + IPV4_LEN + id + DONT_FRAGMENT + TTL_AND_UDP + addresses);
    let udp_checksum = checksum(addresses + UDP + UDP_LEN + source_port + port + UDP_LEN);
    let header: [u32; HEADER_WORDS] = [
        load[load::TO_HIGH],
        load[load::TO_LOW] >> 16,
        load[load::TO_LOW],
        load[load::FROM_HIGH],
        load[load::FROM_LOW] >> 16,
        load[load::FROM_LOW],
        ETHERTYPE_IPV4,
        IPV4,
        IPV4_LEN,
        id,
        DONT_FRAGMENT,
        TTL_AND_UDP,
        ip_checksum,
        from[0],
        from[1],
        to[0],
        to[1],
        source_port,
        port,
        UDP_LEN,
        // Zero would say that there is none.
        if udp_checksum == 0 { 0xffff } else { udp_checksum },
    ];
    let words = start as *mut u16;
    for (index, word) in header.iter().enumerate() {
        // SAFETY: the frame is at least as long as the header, as was checked, and only this program has it now.
        unsafe { words.add(index).write_unaligned((*word as u16).to_be()) };
    }
    // SAFETY: plain numbers; the kernel checks the interface.
    unsafe { bpf_redirect(load[load::INTERFACE], 0) as u32 }
}

/// tc ingress on a container's interface: counts UDP and drops it. Everything else passes.
///
/// Not XDP: tc sees what was bridged as well as what was redirected past the interface's queue, at the same cost.
#[classifier]
fn sink(context: TcContext) -> i32 {
    match udp_port(bounds(&context)) {
        Some(_) => {
            count(counter::SUNK);
            TC_ACT_SHOT
        }
        None => TC_ACT_OK,
    }
}

/// The same at XDP, for a container that reads its packets there.
#[xdp]
fn sink_at_xdp(context: XdpContext) -> u32 {
    match udp_port((context.data(), context.data_end())) {
        Some(_) => {
            count(counter::SUNK);
            XDP_DROP
        }
        None => XDP_PASS,
    }
}

/// XDP on the host's interface: drops UDP, whatever it is. What no refusal can be cheaper than.
#[xdp]
fn refuse(context: XdpContext) -> u32 {
    match udp_port((context.data(), context.data_end())) {
        Some(_) => {
            count(counter::LED);
            XDP_DROP
        }
        None => XDP_PASS,
    }
}

/// tc ingress on the host's interface: leads UDP by its port into a container.
#[classifier]
fn bare(context: TcContext) -> i32 {
    let Some(port) = udp_port(bounds(&context)) else { return TC_ACT_OK };
    // SAFETY: the benchmark writes the map before it attaches this program, and not while it runs.
    let Some(target) = (unsafe { TARGETS.get(port) }) else { return TC_ACT_OK };
    let [interface, high, low] = *target;
    let (start, end) = bounds(&context);
    if start + 14 > end {
        return TC_ACT_OK;
    }
    let words = start as *mut u16;
    for (index, word) in [high, low >> 16, low].into_iter().enumerate() {
        // SAFETY: the packet is at least as long as an Ethernet header, as was checked.
        unsafe { words.add(index).write_unaligned((word as u16).to_be()) };
    }
    count(counter::LED);
    // SAFETY: plain numbers; the kernel checks the interface.
    unsafe { bpf_redirect_peer(interface, 0) as i32 }
}

/// The destination port of a UDP packet without IPv4 options.
#[inline(always)]
fn udp_port((start, end): (usize, usize)) -> Option<u32> {
    if start + HEADER_WORDS * 2 > end {
        return None;
    }
    let word = |index: usize| {
        // SAFETY: the packet is at least as long as the headers, as was checked.
        u32::from(u16::from_be(unsafe { (start as *const u16).add(index).read_unaligned() }))
    };
    (word(6) == ETHERTYPE_IPV4 && word(7) & 0xff00 == IPV4 && word(11) & 0xff == UDP).then(|| word(18))
}

/// Where a packet's first part begins and ends.
#[inline(always)]
fn bounds(context: &TcContext) -> (usize, usize) {
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's own. Volatile, because the verifier knows these fields as pointers only when
    // they are read whole.
    unsafe { (read_volatile(&raw const (*skb).data) as usize, read_volatile(&raw const (*skb).data_end) as usize) }
}

/// Adds one to a counter of this CPU; gives what it was.
#[inline(always)]
fn count(slot: u32) -> Option<u64> {
    let count = COUNTERS.get_ptr_mut(slot)?;
    // SAFETY: the slot is this CPU's own, and nothing else that counts in it interrupts these programs.
    unsafe {
        let before = *count;
        *count = before + 1;
        Some(before)
    }
}

/// The Internet checksum of a sum of 16-bit words, of which there are few.
#[inline(always)]
fn checksum(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) & 0xffff
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that are used are offered to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
