//! The packet path of netpath as pure logic, and the types that cross between kernel and userspace.
//!
//! Nothing in this crate calls a BPF helper, reads a clock or touches a map: it sees a packet through
//! [`packet::Packet`] and everything else through [`tables::Tables`]. That is why the same code runs inside the
//! kernel, in `cargo test` and under the fuzzer.
//!
//! The way of a packet, one module per step:
//!
//! 1. [`parse`]: bytes to [`parse::Headers`]; malformed ones are refused with a [`drop::DropReason`].
//! 2. [`path`]: classify. One file per direction, each readable from top to bottom.
//! 3. [`conntrack`]: track. The state of a flow, its lifetime, and opening a new one.
//! 4. [`nat`]: translate. Choosing a port, and the only writer of headers.
//! 5. [`forward`]: forward. Where the packet goes next.
//!
//! [`policy`] is the operator's list of who may open flows to published ports, asked by the second step.
//!
//! [`abi`] holds every type that is stored in a map, once.
#![cfg_attr(not(any(test, feature = "model")), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod conntrack;
mod counted;
pub mod drop;
pub mod flow_table;
pub mod forward;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod nat;
pub mod packet;
pub mod parse;
pub mod path;
pub mod policy;
pub mod tables;
pub mod wire;
