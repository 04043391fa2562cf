//! The netpath daemon and command line.

fn main() {}
