//! What the kernel should hold: a pure model of the host, and the difference to what it does hold.
//!
//! Docker events and netlink only change the model; [`diff`] decides; [`crate::dataplane`] applies. A missed event, a
//! restart and a first start are therefore the same case.

pub mod diff;
pub mod model;
