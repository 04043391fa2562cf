//! What the kernel should hold: a pure model of the host, and the difference to what it does hold.
//!
//! Docker events and netlink only change the inputs ([`docker`], [`host`]); [`build`] makes the wanted
//! [`model::State`] from them; [`diff`] decides; [`crate::dataplane`] applies. A missed event, a restart and a first
//! start are therefore the same case. Nothing here does input or output or reads a clock.

pub mod build;
pub mod describe;
pub mod diff;
pub mod docker;
pub mod host;
mod links;
pub mod macvlan;
pub mod model;
pub mod network;
pub mod numbers;
pub mod policy;
pub mod ports;
#[cfg(test)]
pub(crate) mod sample;
pub mod uplinks;
