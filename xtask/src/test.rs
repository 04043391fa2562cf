//! `cargo xtask test`: the tiers of tests, from the quickest to the most real.
//!
//! A failing tier does not stop the next: each says something of its own. The tiers inside the kernel need root; when
//! we are not root only their test programs run through sudo, and everything is built as the user.

use std::process::Command;

use anyhow::Result;

use crate::build::{Profile, build};
use crate::cargo::{Metadata, cargo};
use crate::tally::Tally;
use crate::{fuzz, process, setup};

/// Arguments of `cargo xtask test`.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out fuzzing and the tiers that need Docker.
    #[arg(long)]
    quick: bool,
    /// Only tests whose name contains this; leaves out fuzzing.
    filter: Option<String>,
}

/// The tiers that take minutes: netpath as a whole beside a real dockerd.
const WITH_DOCKER: [&str; 2] = ["differential", "system"];

const FUZZ_RUNS: u32 = 200_000;

/// The verb.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    setup::ensure(setup::Need::Tests)?;
    let filter = arguments.filter.as_deref();
    let mut tally = Tally::default();
    tally.step("host tier: the logic, without privileges", || {
        let mut test = cargo("test");
        test.args(["--package", "netpath-common", "--package", "netpath-user", "--package", "xtask"]).args(filter);
        process::run(&mut test)?;
        // Of the tests that need a kernel, the parts that don't.
        process::run(cargo("test").args(["--package", "netpath-tests", "--lib"]).args(filter))
    });
    if !arguments.quick && filter.is_none() {
        let check = fuzz::Extent::Check { runs: FUZZ_RUNS };
        tally.step(&format!("fuzz tier: {FUZZ_RUNS} inputs for each target"), || fuzz::fuzz(None, &check));
    }
    let metadata = Metadata::read()?;
    let mut tiers = metadata.tests_of("netpath-tests");
    tiers.retain(|tier| !(arguments.quick && WITH_DOCKER.contains(tier)));
    tiers.sort_by_key(|tier| WITH_DOCKER.contains(tier));
    for tier in tiers {
        tally.step(&format!("{tier} tier: in this kernel"), || in_kernel(tier, filter));
    }
    tally.close("tiers")
}

/// One test program of netpath-tests, as root.
fn in_kernel(tier: &str, filter: Option<&str>) -> Result<()> {
    let netpath = build(Profile::Release)?;
    let mut test = cargo("test");
    test.args(["--package", "netpath-tests", "--test", tier]).args(filter).env("NETPATH_BIN", &netpath);
    if !process::is_root() {
        let mut variable = Command::new("env");
        variable.env("NETPATH_BIN", &netpath).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let runner = process::privileged(variable)?;
        let words = std::iter::once(runner.get_program()).chain(runner.get_args());
        let words = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        test.arg("--config").arg(format!("target.'cfg(unix)'.runner={}", serde_json::to_string(&words)?));
    }
    process::run(&mut test)
}
