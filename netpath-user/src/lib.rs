//! The netpath daemon and command line, as a library.

pub mod dataplane;
pub mod desired;
pub mod kernel_conntrack;
