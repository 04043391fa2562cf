//! Set-up, build, lab, tests and benchmarks of netpath.
fn main() {}
