//! Flows that nf_conntrack had before: they stay with the kernel until they end, whatever the collector does meanwhile.

use std::time::Duration;

use netpath::dataplane::HandoverFlow;
use netpath_common::abi::{FlowKey, Mode, PathCount};

use super::{FROM_WIRE, harness::*};

/// Many, so that they share words of the filter.
const FLOWS: u16 = 2000;
const UDP: u8 = 17;

fn key(port: u16) -> FlowKey {
    FlowKey {
        source: REMOTE.octets(),
        destination: HOST.octets(),
        source_port: port.to_be_bytes(),
        destination_port: 8080_u16.to_be_bytes(),
        protocol: UDP,
        reserved: [0; 3],
    }
}

/// Whether a packet of the flow from this port is left to the kernel.
fn is_kernels(host: &mut Host, port: u16) -> bool {
    host.at_uplink(&frame(FROM_WIRE, tuple((REMOTE, port), (HOST, 8080)), Kind::Udp)).0 == OK
}

fn sweep(host: &mut Host) {
    while host.kernel.collect(10_000).expect("the collector runs").left.is_none() {}
}

#[test]
fn flows_from_before_stay_with_the_kernel_until_they_end() {
    on_host_with(Mode::Takeover, netpath::settings::PortRange { first: 40_000, last: 40_003 }, 4096, |host| {
        sweep(host);
        let flow = |port, timeout| HandoverFlow { key: key(port), timeout };
        let (long, short) = (Duration::from_secs(600), Duration::from_millis(300));
        let flows: Vec<_> = (1..=FLOWS).map(|port| flow(port, if port % 2 == 0 { long } else { short })).collect();
        host.kernel.add_handover(&flows).expect("the map can be written");
        sweep(host);
        let packet = frame(FROM_WIRE, tuple((REMOTE, 2), (HOST, 8080)), Kind::Udp);
        host.assert_counted(
            |host| assert_eq!(host.at_uplink(&packet), (OK, packet.clone())),
            &[],
            &[PathCount::Handover],
        );
        assert!(
            (1..=FLOWS).step_by(2).skip(1).all(|port| is_kernels(host, port + 1)),
            "all that may be silent for long"
        );
        assert!(!is_kernels(host, FLOWS + 1), "a new one is netpath's");

        pass(short + Duration::from_millis(20));
        sweep(host);
        assert!((1..=FLOWS).step_by(2).all(|port| is_kernels(host, port + 1)), "those that live stay");
        assert!((1..=FLOWS).step_by(2).all(|port| !is_kernels(host, port)), "those that have ended are new");
        host.kernel.add_handover(&[flow(FLOWS + 2, long)]).expect("the map can be written");
        assert!(is_kernels(host, FLOWS + 2), "one more, after the collector has been there");
    });
}
