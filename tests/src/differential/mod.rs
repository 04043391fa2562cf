//! The differential tier: the same packets through Docker's iptables and through netpath, and what comes out compared.
//!
//! A seed gives a sequence of packets ([`generate`]). It is played in two labs ([`arena`]), in one of which dockerd's own
//! rules carry the packets, in the other netpath. What comes out, where, and how it was changed is compared packet by
//! packet ([`compare`]). Differences that are meant have names ([`known`]); any other fails, with the seed ([`session`]).

pub mod arena;
pub mod checksum;
pub mod compare;
#[cfg(test)]
mod compare_tests;
#[cfg(test)]
mod document_tests;
pub mod frame;
pub mod generate;
pub mod invalid;
pub mod judge;
pub mod known;
pub mod names;
pub mod packet;
pub mod seen;
pub mod sentinel;
pub mod session;
pub mod spoil;
pub mod tap;
