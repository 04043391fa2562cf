//! Datagrams to ports that nobody listens on, at XDP and at tc: the kernel gets its share, the rest is dropped and counted.

use std::{net::UdpSocket, time::Duration};

use netpath_common::{
    abi::{Mode, PathCount, Rate},
    drop::DropReason,
};

use super::{FROM_WIRE, harness::*};

/// What the kernel gets of a sender that has two places: both are used up in one test.
const SHARE: usize = 2 * 3;
const PROBES: usize = 20;

fn allow(host: &mut Host) {
    // Far apart, so that none comes while the test runs.
    let of_sender = Rate { interval_ns: 3_600_000_000_000, ahead_ns: 2 * 3_600_000_000_000 };
    let rates = Some((of_sender, Rate::per_second(0, 0)));
    host.kernel.write_closed_ports(rates, Duration::from_secs(600)).expect("the map can be written");
}

/// What was refused is refused again for some milliseconds without a look.
fn forget_refusals() {
    pass(Duration::from_millis(50));
}

/// Whether the program drops a frame: at XDP or at tc.
fn drops(host: &mut Host, at_xdp: bool, frame: &[u8]) -> bool {
    if at_xdp { host.at_xdp(frame) == XDP_DROP } else { host.at_uplink(frame).0 == SHOT }
}

fn dropped(host: &mut Host, at_xdp: bool, frame: &[u8]) -> usize {
    (0..PROBES).filter(|_| drops(host, at_xdp, frame)).count()
}

/// Tries until it works: a closed socket stays in the kernel as long as a process that another test is starting has its
/// descriptor, which is from fork to exec.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    (0..500).find_map(|_| {
        let result = attempt();
        if result.is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        result
    })
}

fn bind(address: &str) -> UdpSocket {
    eventually(|| UdpSocket::bind(address).ok()).expect("the port is free")
}

#[test]
fn beyond_the_kernels_share_datagrams_to_closed_ports_are_dropped_and_counted() {
    for at_xdp in [true, false] {
        on_host(Mode::Takeover, move |host| {
            let probe = frame(FROM_WIRE, tuple((FAR, 5000), (HOST, 9999)), Kind::Udp);
            assert_eq!(dropped(host, at_xdp, &probe), 0, "nothing is dropped unless the daemon allows it");
            allow(host);
            let reasons = [DropReason::PortClosed; PROBES - SHARE];
            let ways: &[PathCount] = if at_xdp { &[] } else { &[PathCount::ToKernel; SHARE] };
            host.assert_counted(|host| assert_eq!(dropped(host, at_xdp, &probe), PROBES - SHARE), &reasons, ways);
            let another = frame(FROM_WIRE, tuple((REMOTE, 5000), (HOST, 9999)), Kind::Udp);
            assert!(!drops(host, at_xdp, &another), "another sender has a share of his own");

            let own = format!("{HOST}:9999");
            let socket = bind(&own);
            forget_refusals();
            assert_eq!(dropped(host, at_xdp, &probe), 0, "there is a socket now");
            drop(socket);
            let is_gone = eventually(|| (dropped(host, at_xdp, &probe) == PROBES).then_some(()));
            assert!(is_gone.is_some(), "it is gone again");
            let any = bind("[::]:9999");
            forget_refusals();
            assert_eq!(dropped(host, at_xdp, &probe), 0, "one of IPv6 takes it as well");
            drop(any);
            let connected = bind(&own);
            connected.connect((REMOTE, 5000)).expect("there is a route");
            assert_eq!(dropped(host, at_xdp, &probe), PROBES, "a socket that is connected to another is none");
            assert_eq!(dropped(host, at_xdp, &another), 0);

            host.kernel.write_closed_ports(None, Duration::ZERO).expect("the map can be written");
            assert_eq!(dropped(host, at_xdp, &probe), 0, "all are the kernel's again");
        });
    }
}

#[test]
fn what_is_no_datagram_to_a_closed_port_passes() {
    on_host(Mode::Sole, |host| {
        allow(host);
        let exhausted = frame(FROM_WIRE, tuple((FAR, 5000), (HOST, 9999)), Kind::Udp);
        assert_eq!(dropped(host, true, &exhausted), PROBES - SHARE);
        for (port, kind) in [(8080, Kind::Udp), (68, Kind::Udp), (9999, Kind::Syn), (9999, Kind::EchoRequest)] {
            let packet = frame(FROM_WIRE, tuple((FAR, 5000), (HOST, port)), kind);
            assert_eq!(dropped(host, true, &packet), 0, "{kind:?} to {port}");
            assert_eq!(dropped(host, false, &packet), 0, "{kind:?} to {port}");
        }
        let elsewhere =
            frame(FROM_WIRE, tuple((FAR, 5000), (std::net::Ipv4Addr::new(198, 51, 100, 255), 9999)), Kind::Udp);
        assert_eq!(dropped(host, true, &elsewhere), 0, "a broadcast");
        let sent = frame((CLIENT_MAC, BRIDGE_MAC), tuple((CLIENT, 9999), (FAR, 5000)), Kind::Udp);
        assert_eq!(host.at_container(host.client, &sent).0, REDIRECT);
        assert_eq!(dropped(host, true, &exhausted), 0, "now it is an answer");
        assert_eq!(dropped(host, false, &exhausted), 0);
    });
}
