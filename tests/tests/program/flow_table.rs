//! The flow table in the kernel: it takes as many flows as it may and no more, finds each, and counts them whatever happens.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use netpath::{
    dataplane::{Dataplane as _, Remover},
    desired::model::Change,
    settings::PortRange,
};
use netpath_common::abi::{FlowKey, Mode, RUN_KEYS_MAX};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::harness::*;

const RANGE_OF_PORTS: PortRange = PortRange { first: 32_768, last: 60_999 };
const FLOWS_MAX: u32 = 2048;

/// The packet of a client of the published port: each number is another client.
fn asked(number: u32) -> Vec<u8> {
    let [.., high, low] = number.to_be_bytes();
    frame((REMOTE_MAC, HOST_MAC), tuple((Ipv4Addr::new(198, 18, high, low), 5000), (HOST, 8080)), Kind::Udp)
}

/// The flows that are counted, and the keys that are there; each once.
fn flows(host: &Host) -> (u64, BTreeSet<FlowKey>) {
    let found = host.kernel.pins().flows().expect("the table can be read");
    let keys: BTreeSet<_> = found.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.len(), found.len(), "an entry was read twice");
    for (key, flow) in &found {
        assert!(keys.contains(&flow.reply_key(key.protocol)), "half of a flow: {key:?}");
    }
    (host.kernel.pins().flows_used().expect("the count can be read"), keys)
}

#[test]
fn a_table_takes_as_many_flows_as_it_may_and_finds_each() {
    on_host_with(Mode::Takeover, RANGE_OF_PORTS, FLOWS_MAX, |host| {
        let opened = |host: &mut Host, number| host.at_uplink(&asked(number)).0 == REDIRECT;
        assert!((0..FLOWS_MAX).all(|number| opened(host, number)), "there is room for each");
        let (counted, full) = flows(host);
        assert_eq!((counted, full.len()), (u64::from(FLOWS_MAX), 2 * FLOWS_MAX as usize));
        assert!((0..FLOWS_MAX).all(|number| opened(host, number)), "each is found");
        assert_eq!(flows(host).1, full, "what was found wasn't opened again");

        // One more takes the place of one that nobody has answered, if it comes upon one.
        let newcomer = (FLOWS_MAX..).take(200).find(|number| opened(host, *number));
        assert!(newcomer.is_some(), "of 200 newcomers one comes upon one of 2,048 flows in 16,384 places");
        let (counted, keys) = flows(host);
        assert_eq!((counted, keys.len()), (u64::from(FLOWS_MAX), full.len()));
        assert_eq!(keys.difference(&full).count(), 2, "the new flow is there");

        let named: Vec<_> = keys.iter().take(1001).copied().collect();
        let pairs: BTreeSet<_> = named.iter().map(|key| key.min(&reply_of(host, key)).to_owned()).collect();
        let remover = Remover::open(host.pin_dir()).expect("the program is pinned");
        assert_eq!(remover.remove(&named).expect("the program runs"), pairs.len() as u64);
        let left = u64::from(FLOWS_MAX) - pairs.len() as u64;
        assert_eq!((flows(host).0, flows(host).1.len() as u64), (left, 2 * left));
        assert!((10_000..10_000 + pairs.len() as u32).all(|number| opened(host, number)), "their room is free again");
        assert_eq!(flows(host).0, u64::from(FLOWS_MAX));

        host.kernel.apply(&Change::RemoveEndpoint(WEB)).expect("the endpoint is removed");
        let mut left = None;
        while left.is_none() {
            left = host.kernel.collect(500).expect("the collector runs").left;
        }
        assert_eq!((left, flows(host)), (Some(0), (0, BTreeSet::new())));
    });
}

/// The key of the other direction.
fn reply_of(host: &Host, key: &FlowKey) -> FlowKey {
    let flows = host.kernel.pins().flows().expect("the table can be read");
    let (_, flow) = flows.iter().find(|(other, _)| other == key).expect("the key is there");
    flow.reply_key(key.protocol)
}

/// Keeps the calling thread on a CPU.
fn stay_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a number of a CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("this test needs two CPUs");
}

#[test]
fn two_cpus_that_open_and_end_the_same_flow_leave_one_and_none() {
    const TURNS: u32 = 2000;
    on_host_with(Mode::Takeover, RANGE_OF_PORTS, FLOWS_MAX, |host| {
        let remover = Remover::open(host.pin_dir()).expect("the program is pinned");
        let (host, remover, together) = (&*host, &remover, &Barrier::new(2));
        let ended: u64 = thread::scope(|scope| {
            let cpus = [0, 1].map(|cpu| {
                scope.spawn(move || {
                    stay_on(cpu);
                    // What is found is judged at the end: a panic here would leave the other CPU at the barrier for ever.
                    let mut wrong = Vec::new();
                    let mut ended = 0;
                    for turn in 0..TURNS {
                        let packet = asked(turn);
                        together.wait();
                        host.kernel.test_tc("np_uplink", host.uplink, &packet).expect("the program runs");
                        together.wait();
                        let (counted, keys) = flows(host);
                        if (counted, keys.len()) != (1, 2) {
                            wrong.push((turn, counted, keys.len()));
                        }
                        let named: Vec<_> = keys.iter().take(1).copied().collect();
                        together.wait();
                        ended += remover.remove(&named).expect("the program runs");
                        together.wait();
                        let (counted, keys) = flows(host);
                        if (counted, keys.len()) != (0, 0) {
                            wrong.push((turn, counted, keys.len()));
                        }
                    }
                    assert!(wrong.is_empty(), "turn, flows counted, entries found: {wrong:?}");
                    ended
                })
            });
            cpus.map(|cpu| cpu.join().expect("every turn was right")).into_iter().sum()
        });
        println!("{TURNS} flows; a CPU found one to end {ended} times");
        assert!((u64::from(TURNS)..=u64::from(2 * TURNS)).contains(&ended), "{ended}");
    });
}

/// Without waiting for each other, and many removals in each run of the program: most flows are opened while it runs.
#[test]
fn a_cpu_that_ends_what_another_one_opens_leaves_no_half_and_no_miscount() {
    const OPENINGS: u32 = 20_000;
    const CLIENTS: u32 = 4;
    on_host_with(Mode::Takeover, RANGE_OF_PORTS, FLOWS_MAX, |host| {
        assert!((0..CLIENTS).all(|number| host.at_uplink(&asked(number)).0 == REDIRECT));
        // By the direction that is inserted last: ended by the other one in between, a flow would be left half.
        let named: Vec<_> = flows(host).1.into_iter().filter(|key| key.destination == HOST.octets()).collect();
        let named = named.repeat(RUN_KEYS_MAX / named.len());
        let remover = Remover::open(host.pin_dir()).expect("the program is pinned");
        let (host_of_both, is_over) = (&*host, &AtomicBool::new(false));
        let ended: u64 = thread::scope(|scope| {
            let ending = scope.spawn(|| {
                stay_on(1);
                let mut ended = 0;
                while !is_over.load(Ordering::Relaxed) {
                    ended += remover.remove(&named).expect("the program runs");
                }
                ended
            });
            let opening = scope.spawn(|| {
                stay_on(0);
                let open = |turn: u32| {
                    let packet = asked(turn % CLIENTS);
                    host_of_both.kernel.test_tc("np_uplink", host_of_both.uplink, &packet).map(drop)
                };
                let outcome = (0..OPENINGS).try_for_each(open);
                is_over.store(true, Ordering::Relaxed);
                outcome.expect("the program runs");
            });
            opening.join().expect("each flow is opened");
            ending.join().expect("each flow is ended")
        });
        println!("{OPENINGS} packets of {CLIENTS} flows, which were ended {ended} times meanwhile");
        assert!(ended > u64::from(OPENINGS) / 10, "the CPUs didn't meet: {ended}");
        let (counted, keys) = flows(host);
        assert_eq!(2 * counted, keys.len() as u64);
        remover.remove(&named).expect("the program runs");
        assert_eq!(flows(host), (0, BTreeSet::new()));
    });
}
