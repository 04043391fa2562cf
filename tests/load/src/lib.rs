//! What the benchmark and its eBPF programs agree on: the words of the generator's map, and the counters.
//!
//! Plain numbers, so that neither side needs a type of the other's world.
#![no_std]

/// What the generator makes, as words by the constants of [`load`].
pub type Load = [u32; load::WORDS];

/// The words of a [`Load`].
pub mod load {
    /// How many.
    pub const WORDS: usize = 12;
    /// The interface by which the frames leave.
    pub const INTERFACE: usize = 0;
    /// The first two bytes of the destination's Ethernet address.
    pub const TO_HIGH: usize = 1;
    /// The other four.
    pub const TO_LOW: usize = 2;
    /// The first two bytes of the source's Ethernet address.
    pub const FROM_HIGH: usize = 3;
    /// The other four.
    pub const FROM_LOW: usize = 4;
    /// The IPv4 address to which all is sent.
    pub const DESTINATION: usize = 5;
    /// The first port to which is sent.
    pub const PORT: usize = 6;
    /// How many ports in a row, at least one.
    pub const PORTS: usize = 7;
    /// The IPv4 address of the first flow.
    pub const SOURCE: usize = 8;
    /// The number of the first flow.
    pub const FLOW: usize = 9;
    /// How many flows, at least one.
    pub const FLOWS: usize = 10;
}

/// Flows that share a source address, each with a port of its own from [`SOURCE_PORT`] on.
pub const FLOWS_PER_SOURCE: u32 = 50_000;

/// The port of a source's first flow.
pub const SOURCE_PORT: u32 = 10_000;

/// The length of a frame: the least that Ethernet has, without its check sequence.
pub const FRAME_LEN: usize = 60;

/// Where the bare redirect leads a port: an interface and an Ethernet address, as in [`Load`].
pub type Target = [u32; 3];

/// The counters' map.
pub mod counter {
    /// How many.
    pub const SLOTS: usize = 3;
    /// Frames that the generator has made.
    pub const MADE: u32 = 0;
    /// UDP packets that reached the sink.
    pub const SUNK: u32 = 1;
    /// UDP packets that the bare redirect has sent on, or the bare refusal dropped.
    pub const LED: u32 = 2;
}
