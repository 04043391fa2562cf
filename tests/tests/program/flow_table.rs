//! The flow table in the kernel: it takes as many flows as it may and no more, finds each, and counts them whatever happens.

use std::{collections::BTreeSet, net::Ipv4Addr, thread};

use netpath::{
    dataplane::{Dataplane as _, Remover},
    desired::model::Change,
    settings::PortRange,
};
use netpath_common::abi::{FlowKey, Mode};

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

#[test]
fn two_cpus_that_open_and_end_the_same_flows_leave_no_half_and_no_miscount() {
    /// Few clients, so that both CPUs are at the same flow all the time.
    const CLIENTS: u32 = 4;
    const TIMES: u32 = 4000;
    on_host_with(Mode::Takeover, RANGE_OF_PORTS, FLOWS_MAX, |host| {
        let frames: Vec<_> = (0..CLIENTS).map(asked).collect();
        host.at_uplink(&frames[0]);
        let opened = flows(host).1;
        let original = *opened.iter().find(|key| key.destination == HOST.octets()).expect("the flow was opened");
        let key = |number: u32| {
            let [.., high, low] = number.to_be_bytes();
            FlowKey { source: [198, 18, high, low], ..original }
        };
        let remover = Remover::open(host.pin_dir()).expect("the program is pinned");
        let (host_of_both, frames, remover) = (&*host, &frames, &remover);
        let removed: u64 = thread::scope(|scope| {
            let cpus = [0, 1].map(|cpu| {
                scope.spawn(move || {
                    let work = |turn: u32| {
                        let number = turn % CLIENTS;
                        let run =
                            host_of_both.kernel.test_tc("np_uplink", host_of_both.uplink, &frames[number as usize]);
                        run.expect("the program runs");
                        if (turn + cpu).is_multiple_of(3) {
                            remover.remove(&[key(number)]).expect("the program runs")
                        } else {
                            0
                        }
                    };
                    (0..TIMES).map(work).sum::<u64>()
                })
            });
            cpus.map(|cpu| cpu.join().expect("no turn panics")).into_iter().sum()
        });
        println!("{removed} flows were ended");
        assert!(removed > u64::from(TIMES) / 3, "{removed} were ended");
        let (counted, keys) = flows(host);
        assert_eq!(2 * counted, keys.len() as u64);
    });
}
