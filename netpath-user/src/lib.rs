//! The netpath daemon and command line, as a library.

pub mod dataplane;
pub mod desired;
