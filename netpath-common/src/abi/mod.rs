//! Every type that is stored in a map, once, and nothing else.
//!
//! All of them are plain old data without padding. Addresses and ports are byte arrays in network order, so that a
//! packet's bytes are compared and copied without conversion; everything else is in host order. A change of any of
//! these types is a change of the schema: raise [`names::SCHEMA`].

pub mod closed;
pub mod cone;
pub mod config;
pub mod counters;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod flow_table;
pub mod names;
pub mod policy;
pub mod published;
pub mod socket;
pub mod uplink;

pub use closed::{ClosedPorts, Rate, Refusal, Sender};
pub use cone::{Cone, ConeKey, ConeOwner};
pub use config::{Config, Mode};
pub use counters::{PathCount, Traffic};
pub use endpoint::{Admitted, AdmittedKey, Endpoint, Hop, HopKind, Terms};
pub use event::{EndReason, Event, EventKind};
pub use flow::{
    Direction, Flow, FlowKey, FlowKind, FragmentKey, FragmentPorts, Handover, HeldFragment, HeldKey, NextHop, Seen,
};
pub use flow_table::{FlowBucket, FlowPlace, FlowRegion, FlowTable, FlowTags};
pub use policy::{Action, Origin, Policy, PolicyKey, PolicyRule};
pub use published::{PublishedBlock, PublishedKey};
pub use socket::{Asked, AskedKey};
pub use uplink::{Uplink, UplinkAddress};

/// An IPv4 address in network byte order.
pub type Address = [u8; 4];
/// An IPv6 address as words as they lie in memory.
pub type Ipv6Address = [u32; 4];
/// A port, or an ICMP echo identifier, in network byte order.
pub type Port = [u8; 2];
/// Keys that one run of `np_collect` or `np_remove` takes, as packet data behind an Ethernet header's length of nothing.
/// More would fit the page that a test run gives a packet, but the verifier goes through each of them.
pub const RUN_KEYS_MAX: usize = 48;
/// Words of 64 bits that hold a bit for each port.
pub const RESERVED_PORT_WORDS: usize = 65_536 / 64;
/// An Ethernet address.
pub type Mac = [u8; 6];

/// Declares a map type: `repr(C)`, plain old data (checked for padding by bytemuck), `aya::Pod` for userspace, and its
/// size, which is part of the schema.
macro_rules! abi {
    ($(#[$meta:meta])* pub struct $name:ident[$size:literal] { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        const _: () = assert!(size_of::<$name>() == $size, "the size is part of the schema");

        // SAFETY: bytemuck::Pod, derived above, already proves that every bit pattern is valid and that there is no
        // padding, which is all that aya::Pod asks for.
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "the one place where a map type is declared plain old data to aya")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use abi;
