//! The harness of the system tests: a lab of network namespaces with a real dockerd, the netpath under test on its host,
//! and clients and servers that say what they see.
//!
//! The tests themselves are in `tests/`. Everything here works on namespaces of its own making, never on the machine's
//! own network.

pub mod attack;
pub mod bench;
pub mod case;
pub mod client;
pub mod container;
pub mod differential;
pub mod dockerd;
pub mod engine;
pub mod flood;
pub mod icmp;
pub mod image;
pub mod lab;
pub mod netns;
pub mod netpath;
pub mod program;
pub mod proof;
pub mod protocol;
pub mod report;
pub mod root;
pub mod run;
pub mod runner;
pub mod server;
pub mod shell;
pub mod stun;
pub mod traffic;
pub mod usage;
pub mod wait;
