//! The netpath daemon and command line, as a library.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod desired;
mod ethtool;
pub mod firewall;
pub mod kernel_conntrack;
pub mod macvlan;
pub mod report;
pub mod settings;
pub mod status;
pub mod subnet;
pub mod watch;
