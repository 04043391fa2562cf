//! The operator's policy in the kernel: what it denies goes nowhere, and a list that takes another's place does so as a whole.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netpath::{
    dataplane::{Dataplane as _, PolicyPins},
    desired::{
        model::Change,
        policy::{Policy, resolve},
    },
    settings::{PortRange, Settings},
};
use netpath_common::{
    abi::{Mode, PathCount},
    drop::DropReason,
};

use super::harness::*;

/// How long lists take turns.
const TURNS: Duration = Duration::from_secs(3);

/// Packets that are judged without a system call in between: most of the time one is.
const BATCH: u32 = 10_000;

/// A list, as a configuration file has it; the network `web` is that of the test's containers.
fn list(text: &str, actual: &Policy) -> Policy {
    let wanted = Settings::parse(text).expect("the list is right").policy;
    resolve(&wanted, |name| (name == "web").then_some(1), actual)
}

const DENY_FAR: &str = "[[policy.rule]]\naction = \"deny\"\nsource = \"203.0.113.9\"\n";

#[test]
fn a_denied_client_is_dropped_and_counted_in_both_modes() {
    for mode in [Mode::Takeover, Mode::Sole] {
        on_host(mode, |host| {
            let policy = list(&format!("{DENY_FAR}network = \"web\"\nport = 8080\n"), &Policy::default());
            host.kernel.apply(&Change::SetPolicy(policy.clone())).expect("the maps take the list");
            for kind in [Kind::Syn, Kind::Udp, Kind::Ack] {
                let asked = frame((REMOTE_MAC, HOST_MAC), tuple((FAR, 5000), (HOST, 8080)), kind);
                let step = |host: &mut Host| assert_eq!(host.at_uplink(&asked).0, SHOT);
                host.assert_counted(step, &[DropReason::PolicyDenied], &[]);
            }
            let asked = frame((REMOTE_MAC, HOST_MAC), tuple((REMOTE, 5000), (HOST, 8080)), Kind::Udp);
            let step = |host: &mut Host| assert_eq!(host.at_uplink(&asked).0, REDIRECT);
            host.assert_counted(step, &[], &[PathCount::PublishedIn, PathCount::FlowsOpened]);
            let pins = PolicyPins::open(host.pin_dir()).expect("the maps are pinned");
            let hits = pins.hits(&policy).expect("the counters can be read");
            assert_eq!(hits[&policy.rules[0].counter].packets, 3);
            assert_eq!(hits[&policy.default_counter].packets, 1);
        });
    }
}

#[test]
fn a_list_ends_the_flows_that_it_denies_and_no_others() {
    on_host(Mode::Sole, |host| {
        let from = |source| frame((REMOTE_MAC, HOST_MAC), tuple((source, 5000), (HOST, 8080)), Kind::Udp);
        let hairpin = frame((CLIENT_MAC, BRIDGE_MAC), tuple((CLIENT, 5000), (HOST, 8080)), Kind::Udp);
        let out = frame((CLIENT_MAC, BRIDGE_MAC), tuple((CLIENT, 5000), (FAR, 53)), Kind::Udp);
        assert_eq!((host.at_uplink(&from(FAR)).0, host.at_uplink(&from(REMOTE)).0), (REDIRECT, REDIRECT));
        assert_eq!(host.at_container(host.client, &hairpin).0, REDIRECT);
        assert_eq!(host.at_container(host.client, &out).0, REDIRECT);
        for (text, ended) in [(DENY_FAR, 1), (DENY_FAR, 0), ("[policy]\ndefault = \"deny\"", 2)] {
            let policy = list(text, &Policy::default());
            host.kernel.apply(&Change::SetPolicy(policy)).expect("the maps take the list");
            assert_eq!(host.kernel.end_denied().expect("the flows are ended"), ended, "{text}");
        }
        assert_eq!((host.at_uplink(&from(REMOTE)).0, host.at_container(host.client, &hairpin).0), (SHOT, SHOT));
        assert_eq!(host.at_container(host.client, &out).0, REDIRECT);
    });
}

#[test]
fn no_packet_is_judged_by_some_of_each_of_two_lists() {
    // Both deny the client; the beginning of the one with the end of the other lets it in.
    let others = "[[policy.rule]]\naction = \"allow\"\nsource = \"192.0.2.0/24\"\n".repeat(127);
    let everybody = "[[policy.rule]]\naction = \"allow\"\n".repeat(127);
    on_host_with(Mode::Sole, PortRange { first: 40_000, last: 40_003 }, 1024, move |host| {
        let first = list(&format!("{DENY_FAR}{everybody}"), &Policy::default());
        let second = list(&format!("{others}{DENY_FAR}"), &first);
        let mut pins = PolicyPins::open(host.pin_dir()).expect("the maps are pinned");
        pins.set(&first).expect("the maps take the list");
        let asked = frame((REMOTE_MAC, HOST_MAC), tuple((FAR, 5000), (HOST, 8080)), Kind::Udp);
        let (host, asked, stop) = (&*host, &asked, &AtomicBool::new(false));
        let (judged, turns) = thread::scope(|scope| {
            let judging = scope.spawn(move || {
                let mut judged = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    host.kernel.repeat_tc("np_uplink", host.uplink, asked, BATCH).expect("the program runs");
                    judged += u64::from(BATCH);
                }
                judged
            });
            let begun = Instant::now();
            let mut turns = 0;
            while begun.elapsed() < TURNS {
                for list in [&second, &first] {
                    pins.set(list).expect("the maps take the list");
                    turns += 1;
                }
            }
            stop.store(true, Ordering::Relaxed);
            (judging.join().expect("no attempt panics"), turns)
        });
        println!("{judged} packets were judged while {turns} lists took turns");
        assert!(judged > 100_000 && turns > 20, "{judged} packets, {turns} lists");
        let flows = host.kernel.pins().flows_used().expect("the flows can be counted");
        assert_eq!(flows, 0, "a packet was let in");
    });
}
