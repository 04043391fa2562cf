//! Programs that a start takes from the one before, instead of having the kernel verify them again.

use std::{collections::BTreeMap, fs, path::Path};

use netpath::{
    dataplane::{Kernel, detach},
    settings::PortRange,
};
use netpath_common::abi::Mode;

use super::harness::{on_host, options};

/// Every program that is loaded, with its number.
fn open(pin_dir: &Path) -> BTreeMap<String, u32> {
    let kernel = Kernel::open(&options(pin_dir, PortRange { first: 40_000, last: 40_003 }, 1024)).expect("it opens");
    let costs = kernel.program_costs().expect("the kernel tells of its programs");
    costs.into_iter().map(|program| (program.name, program.id)).collect()
}

#[test]
fn a_start_takes_the_programs_of_the_one_before_and_none_that_works_on_another_map() {
    on_host(Mode::Takeover, |host| {
        let pins = host.pin_dir.with_file_name(format!("np-adopt-{}", std::process::id()));
        let first = open(&pins);
        assert!(first.len() >= 10, "{first:?}");
        assert_eq!(open(&pins), first, "taken");

        // As after an update that changes how one map is pinned.
        let drops = fs::read_dir(pins.join("maps")).expect("there are maps").filter_map(Result::ok);
        let drops = drops.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/DROPS_"));
        fs::remove_file(drops.expect("the drops' counters are pinned")).expect("a pin can be removed");
        let third = open(&pins);
        for name in ["np_uplink", "np_container", "np_egress"] {
            assert_ne!(third[name], first[name], "{name} counts in the map that is gone");
        }
        assert_eq!(open(&pins), third, "the new ones are taken, too");

        detach(&pins).expect("everything can be taken away");
        assert!(!pins.exists());
        let fourth = open(&pins);
        assert!(fourth.iter().all(|(name, id)| third[name] != *id), "nothing outlives a detach");
        detach(&pins).expect("everything can be taken away");
    });
}
