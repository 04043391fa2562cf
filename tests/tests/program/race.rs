//! Two CPUs open flows to one destination at the same time until its range of ports is full: no port is given twice.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Barrier, thread};

use netpath::{
    dataplane::Dataplane as _,
    desired::model::{Change, Endpoint},
    settings::PortRange,
};
use netpath_common::abi::Mode;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::harness::*;

const FIRST: u16 = 40_000;
const SIZE: u16 = 1000;
/// Flows that each CPU tries to open; together three times as many as there are ports.
const FLOWS: u16 = 1500;
/// Attempts for which the CPUs start together.
const TOGETHER: usize = 25;
/// Not kept by anybody: it is published, so that each flow must search.
const OWN: u16 = 8080;

fn client(index: u16) -> Ipv4Addr {
    let [high, low] = index.to_be_bytes();
    Ipv4Addr::new(172, 17, 16 + high, low)
}

/// What one CPU's flows got: the port, or none, in the order of the attempts.
fn open_all(host: &Host, cpu: usize, start: &Barrier) -> Vec<Option<u16>> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a number of a CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("this test needs two CPUs");
    let frames: Vec<_> = (0..FLOWS)
        .map(|index| {
            let source = client(index * 2 + u16::try_from(cpu).expect("0 or 1"));
            frame((CLIENT_MAC, BRIDGE_MAC), tuple((source, OWN), (FAR, 53)), Kind::Udp)
        })
        .collect();
    let run = |frame: &Vec<u8>| host.kernel.test_tc("np_container", host.client, frame).expect("the program runs");
    let mut runs = Vec::new();
    for together in frames.chunks(TOGETHER) {
        // Otherwise a CPU with other work to do would find all ports given away.
        start.wait();
        runs.extend(together.iter().map(run));
    }
    // A flow without a port is dropped, or its sender is told by an ICMP error.
    let port = |frame: &[u8]| (frame[23] == 17).then(|| read(frame).source_port);
    runs.iter().map(|run| if run.action == REDIRECT { port(&run.frame) } else { None }).collect()
}

#[test]
fn two_cpus_that_race_for_the_ports_of_one_destination_get_no_port_twice() {
    let range = PortRange { first: FIRST, last: FIRST + SIZE - 1 };
    on_host_with(Mode::Takeover, range, 8192, |host| {
        for index in 0..2 * FLOWS {
            let endpoint = Endpoint {
                ifindex: host.client,
                bridge_ifindex: host.bridge,
                mac: CLIENT_MAC,
                bridge_mac: BRIDGE_MAC,
                network: 1,
                gateway: GATEWAY,
                masquerade: Ipv4Addr::UNSPECIFIED,
                terms: 0,
                full_cone: false,
                mtu: 1500,
                takes_frames: false,
            };
            host.kernel.apply(&Change::SetEndpoint(client(index), endpoint)).expect("the map takes the endpoint");
        }
        let (host, start) = (&*host, &Barrier::new(2));
        let results = thread::scope(|scope| {
            let cpus = [0, 1].map(|cpu| scope.spawn(move || open_all(host, cpu, start)));
            cpus.map(|cpu| cpu.join().expect("no attempt panics"))
        });
        let mut holders: BTreeMap<u16, u32> = BTreeMap::new();
        for port in results.iter().flatten().flatten() {
            *holders.entry(*port).or_default() += 1;
        }
        let twice: Vec<_> = holders.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "given twice: {twice:?}");
        assert!(holders.keys().all(|port| (FIRST..FIRST + SIZE).contains(port)), "all are of the range");
        println!("attempts of each CPU, and how many found a port:");
        for chunk in 0..usize::from(FLOWS) / 100 {
            let found = |cpu: &Vec<Option<u16>>| cpu[chunk * 100..][..100].iter().flatten().count();
            println!(
                "{:>5} to {:>5}: {:>3} {:>3}",
                chunk * 100,
                chunk * 100 + 99,
                found(&results[0]),
                found(&results[1])
            );
        }
        println!("{} ports of {SIZE} were given away, none twice", holders.len());
        assert!(results.iter().all(|cpu| cpu.iter().flatten().count() > 100), "both CPUs took part");
        assert!(holders.len() > usize::from(SIZE) * 98 / 100, "{} ports of {SIZE} were found", holders.len());
    });
}
