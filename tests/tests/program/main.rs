//! The program tier: each program on single frames in the real kernel, through `BPF_PROG_TEST_RUN`.
//!
//! Every test says what came in, what went out, and which counters moved; all other counters must stand still.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod adopt;
mod budget;
mod closed_ports;
mod flow_table;
mod handover;
mod harness;
mod policy;
mod race;

use harness::*;
use netpath::dataplane::{Dataplane as _, Pins};
use netpath_common::{
    abi::{Mode, PathCount},
    drop::DropReason,
};

const TO_BRIDGE: ([u8; 6], [u8; 6]) = (CLIENT_MAC, BRIDGE_MAC);
const FROM_WEB: ([u8; 6], [u8; 6]) = (WEB_MAC, BRIDGE_MAC);
/// The protocol's number (IANA).
const ICMP: u8 = 1;
const FROM_WIRE: ([u8; 6], [u8; 6]) = (REMOTE_MAC, HOST_MAC);

#[test]
fn a_container_leaves_behind_the_hosts_address_and_gets_its_answers() {
    on_host(Mode::Takeover, |host| {
        for (out, back) in [(Kind::Udp, Kind::Udp), (Kind::Syn, Kind::SynAck), (Kind::EchoRequest, Kind::EchoReply)] {
            let port = match out {
                Kind::EchoRequest => 0,
                _ => 53,
            };
            let opening = frame(TO_BRIDGE, tuple((CLIENT, 5000), (FAR, port)), out);
            host.assert_counted(
                |host| {
                    let (action, sent) = host.at_container(host.client, &opening);
                    assert_eq!(action, REDIRECT);
                    assert_eq!(read(&sent), tuple((HOST, 5000), (FAR, port)));
                    assert_eq!(sent[22], 63, "one hop less to live");
                },
                &[],
                &[PathCount::MasqueradeOut, PathCount::FlowsOpened],
            );
            let answer = frame(FROM_WIRE, tuple((FAR, port), (HOST, 5000)), back);
            host.assert_counted(
                |host| {
                    let (action, sent) = host.at_uplink(&answer);
                    assert_eq!(action, REDIRECT);
                    assert_eq!(read(&sent), tuple((FAR, port), (CLIENT, 5000)));
                    assert_eq!(sent[..12], [CLIENT_MAC, BRIDGE_MAC].concat(), "Ethernet addresses");
                },
                &[],
                &[PathCount::MasqueradeIn],
            );
        }
    });
}

#[test]
fn two_containers_with_one_source_port_get_two_ports() {
    on_host(Mode::Takeover, |host| {
        let (_, first) = host.at_container(host.client, &frame(TO_BRIDGE, tuple((CLIENT, 5000), (FAR, 53)), Kind::Udp));
        let (_, second) = host.at_container(host.web, &frame(FROM_WEB, tuple((WEB, 5000), (FAR, 53)), Kind::Udp));
        assert_eq!(read(&first).source_port, 5000, "the first keeps its port");
        let port = read(&second).source_port;
        assert!((40_000..=40_003).contains(&port), "the second gets one of the range: {port}");
        let (_, answer) = host.at_uplink(&frame(FROM_WIRE, tuple((FAR, 53), (HOST, port)), Kind::Udp));
        assert_eq!(read(&answer), tuple((FAR, 53), (WEB, 5000)));
        let (_, other) = host.at_container(host.web, &frame(FROM_WEB, tuple((WEB, 5000), (REMOTE, 53)), Kind::Udp));
        assert_eq!(read(&other).source_port, 5000, "towards another destination the port is free");
    });
}

#[test]
fn echo_identifiers_that_clash_are_translated() {
    on_host(Mode::Takeover, |host| {
        let ping = |macs, source| frame(macs, tuple((source, 7), (FAR, 0)), Kind::EchoRequest);
        host.at_container(host.client, &ping(TO_BRIDGE, CLIENT));
        let (_, second) = host.at_container(host.web, &ping(FROM_WEB, WEB));
        let identifier = read(&second).source_port;
        assert_ne!(identifier, 7);
        let (_, answer) = host.at_uplink(&frame(FROM_WIRE, tuple((FAR, 0), (HOST, identifier)), Kind::EchoReply));
        assert_eq!(read(&answer), tuple((FAR, 0), (WEB, 7)));
    });
}

#[test]
fn a_range_that_is_used_up_is_counted_and_not_shared() {
    on_host(Mode::Takeover, |host| {
        for last in 0..5 {
            let address = std::net::Ipv4Addr::new(172, 17, 0, 10 + last);
            let endpoint = netpath::desired::model::Endpoint {
                ifindex: host.client,
                bridge_ifindex: host.bridge,
                mac: CLIENT_MAC,
                bridge_mac: BRIDGE_MAC,
                network: 1,
                gateway: GATEWAY,
                masquerade: std::net::Ipv4Addr::UNSPECIFIED,
                terms: 0,
                full_cone: false,
                mtu: 1500,
                takes_frames: false,
            };
            let change = netpath::desired::model::Change::SetEndpoint(address, endpoint);
            netpath::dataplane::Dataplane::apply(&mut host.kernel, &change).expect("the map takes the endpoint");
        }
        let mut ports = std::collections::BTreeSet::new();
        let mut refused = 0;
        for last in 0..5 {
            let address = std::net::Ipv4Addr::new(172, 17, 0, 10 + last);
            let opening = frame(TO_BRIDGE, tuple((address, 40_000), (FAR, 53)), Kind::Udp);
            let (action, sent) = host.at_container(host.client, &opening);
            if action == SHOT || sent[23] == ICMP {
                refused += 1;
            } else {
                assert!(ports.insert(read(&sent).source_port), "no port twice");
            }
        }
        assert_eq!((ports.len(), refused), (4, 1), "four ports in the range");
        let again = frame(TO_BRIDGE, tuple((CLIENT, 40_000), (FAR, 53)), Kind::Udp);
        // Longer than the interval between two answers.
        pass(std::time::Duration::from_millis(20));
        host.assert_counted(
            |host| {
                let (action, answer) = host.at_container(host.client, &again);
                assert_eq!((action, answer.len()), (REDIRECT, 70));
                assert_eq!((&answer[..6], &answer[6..12]), (CLIENT_MAC.as_slice(), BRIDGE_MAC.as_slice()));
                assert_eq!((answer[23], &answer[34..36]), (ICMP, [3, 13].as_slice()), "administratively prohibited");
            },
            &[DropReason::PortsExhausted],
            &[PathCount::Answered],
        );
    });
}

#[test]
fn a_client_reaches_a_published_port_with_its_own_address() {
    on_host(Mode::Takeover, |host| {
        for (out, back) in [(Kind::Udp, Kind::Udp), (Kind::Syn, Kind::SynAck)] {
            host.assert_counted(
                |host| {
                    let (action, sent) = host.at_uplink(&frame(FROM_WIRE, tuple((REMOTE, 6000), (HOST, 8080)), out));
                    assert_eq!(action, REDIRECT);
                    assert_eq!(read(&sent), tuple((REMOTE, 6000), (WEB, 80)));
                    assert_eq!(sent[..12], [WEB_MAC, BRIDGE_MAC].concat(), "Ethernet addresses");
                },
                &[],
                &[PathCount::PublishedIn, PathCount::FlowsOpened],
            );
            host.assert_counted(
                |host| {
                    let answer = frame(FROM_WEB, tuple((WEB, 80), (REMOTE, 6000)), back);
                    let (action, sent) = host.at_container(host.web, &answer);
                    assert_eq!(action, REDIRECT);
                    assert_eq!(read(&sent), tuple((HOST, 8080), (REMOTE, 6000)));
                },
                &[],
                &[PathCount::PublishedOut],
            );
        }
    });
}

#[test]
fn each_port_of_a_block_leads_to_its_own_and_those_beside_it_nowhere() {
    on_host(Mode::Takeover, |host| {
        let last = RANGE + (1 << RANGE_BITS) - 1;
        for port in [RANGE, RANGE + 100, last] {
            let inside = RANGE_TARGET + (port - RANGE);
            for kind in [Kind::Udp, Kind::Syn] {
                let (action, sent) = host.at_uplink(&frame(FROM_WIRE, tuple((REMOTE, 6000), (HOST, port)), kind));
                assert_eq!((action, read(&sent)), (REDIRECT, tuple((REMOTE, 6000), (WEB, inside))));
                let asked = frame(TO_BRIDGE, tuple((CLIENT, 6000), (HOST, port)), kind);
                let (action, sent) = host.at_container(host.client, &asked);
                assert_eq!((action, read(&sent)), (REDIRECT, tuple((CLIENT, 6000), (WEB, inside))));
            }
        }
        for port in [RANGE - 1, last + 1] {
            let asked = frame(FROM_WIRE, tuple((REMOTE, 6000), (HOST, port)), Kind::Udp);
            assert_eq!(host.at_uplink(&asked), (OK, asked.clone()), "{port}");
        }
        let entries = Pins::open(host.pin_dir()).expect("the pins can be opened").published().expect("and read");
        assert_eq!(entries, host.kernel.actual().published, "what was written is read back");
        assert_eq!(entries.len(), 4);
    });
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    on_host(Mode::Takeover, |host| {
        let mut bare = frame(TO_BRIDGE, tuple((CLIENT, 5001), (FAR, 53)), Kind::Udp);
        bare[40..42].fill(0);
        let (action, sent) = host.at_container(host.client, &bare);
        assert_eq!((action, &sent[40..42]), (REDIRECT, &[0, 0][..]));
    });
}

#[test]
fn containers_of_one_network_are_bridged_untouched() {
    on_host(Mode::Sole, |host| {
        let sent = frame((CLIENT_MAC, WEB_MAC), tuple((CLIENT, 1), (WEB, 2)), Kind::Udp);
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.client, &sent), (REDIRECT, sent.clone())),
            &[],
            &[PathCount::Local],
        );
    });
}

#[test]
fn the_host_reaches_containers_and_they_reach_it() {
    on_host(Mode::Sole, |host| {
        let down = frame((BRIDGE_MAC, WEB_MAC), tuple((GATEWAY, 1), (WEB, 2)), Kind::Udp);
        host.assert_counted(
            |host| assert_eq!(host.at_bridge(&down), (REDIRECT, down.clone())),
            &[],
            &[PathCount::HostToContainer],
        );
        let up = frame(FROM_WEB, tuple((WEB, 2), (GATEWAY, 1)), Kind::Udp);
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.web, &up), (OK, up.clone())),
            &[],
            &[PathCount::ContainerToHost],
        );
    });
}

#[test]
fn frames_from_the_wire_to_a_container_are_dropped_at_both_hooks() {
    on_host(Mode::Takeover, |host| {
        let direct = frame(FROM_WIRE, tuple((REMOTE, 1), (WEB, 80)), Kind::Syn);
        host.assert_counted(
            |host| {
                assert_eq!(host.at_xdp(&direct), XDP_DROP);
                assert_eq!(host.at_uplink(&direct).0, SHOT);
            },
            &[DropReason::DirectToContainer, DropReason::DirectToContainer],
            &[],
        );
        let proper = frame(FROM_WIRE, tuple((REMOTE, 1), (HOST, 22)), Kind::Syn);
        host.assert_counted(|host| assert_eq!(host.at_xdp(&proper), XDP_PASS), &[], &[]);
        host.assert_counted(|host| assert_eq!(host.at_uplink(&proper).0, OK), &[], &[PathCount::ToKernel]);
    });
}

#[test]
fn malformed_frames_are_dropped_with_their_reason() {
    type Row = (&'static str, fn(&mut Vec<u8>), DropReason);
    let rows: [Row; 6] = [
        ("version 6 in an IPv4 frame", |frame| frame[14] = 0x65, DropReason::MalformedIpv4),
        ("header length 4 words", |frame| frame[14] = 0x44, DropReason::MalformedIpv4),
        ("total length beyond the frame", |frame| frame[16] = 0x7f, DropReason::MalformedIpv4),
        (
            "total length shorter than the header",
            |frame| frame[16..18].copy_from_slice(&[0, 19]),
            DropReason::MalformedIpv4,
        ),
        ("UDP length beyond the packet", |frame| frame[38] = 0x7f, DropReason::MalformedTransport),
        (
            "UDP length shorter than its header",
            |frame| frame[38..40].copy_from_slice(&[0, 7]),
            DropReason::MalformedTransport,
        ),
    ];
    on_host(Mode::Takeover, move |host| {
        for (description, spoil, reason) in rows {
            let mut bad = frame(FROM_WIRE, tuple((REMOTE, 1), (HOST, 8080)), Kind::Udp);
            spoil(&mut bad);
            println!("{description}");
            host.assert_counted(
                |host| {
                    assert_eq!(host.at_xdp(&bad), XDP_DROP);
                    assert_eq!(host.at_uplink(&bad).0, SHOT);
                    assert_eq!(host.at_container(host.client, &bad).0, SHOT);
                },
                &[reason; 3],
                &[],
            );
        }
        // A test run makes no socket buffer of so little; a driver does.
        let mut cut = frame(FROM_WIRE, tuple((REMOTE, 1), (HOST, 8080)), Kind::Udp);
        cut.truncate(30);
        host.assert_counted(|host| assert_eq!(host.at_xdp(&cut), XDP_DROP), &[DropReason::Truncated], &[]);
    });
}

#[test]
fn the_middle_of_an_unknown_connection_belongs_to_the_kernel_in_takeover_and_is_picked_up_alone() {
    let middle = frame(TO_BRIDGE, tuple((CLIENT, 5002), (FAR, 80)), Kind::Ack);
    let unknown = middle.clone();
    on_host(Mode::Takeover, move |host| {
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.client, &unknown), (OK, unknown.clone())),
            &[],
            &[PathCount::Handover],
        );
    });
    on_host(Mode::Sole, move |host| {
        host.assert_counted(
            |host| assert_eq!(read(&host.at_container(host.client, &middle).1), tuple((HOST, 5002), (FAR, 80))),
            &[],
            &[PathCount::MasqueradeOut, PathCount::FlowsOpened],
        );
        let reset = frame(TO_BRIDGE, tuple((CLIENT, 5003), (FAR, 80)), Kind::Rst);
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.client, &reset).0, SHOT),
            &[DropReason::NoFlow],
            &[],
        );
    });
}

#[test]
fn a_foreign_source_is_dropped_in_both_modes() {
    let spoofed = frame(TO_BRIDGE, tuple((std::net::Ipv4Addr::new(10, 9, 8, 7), 1), (FAR, 80)), Kind::Syn);
    for mode in [Mode::Takeover, Mode::Sole] {
        let spoofed = spoofed.clone();
        on_host(mode, move |host| {
            host.assert_counted(
                |host| assert_eq!(host.at_container(host.client, &spoofed).0, SHOT),
                &[DropReason::ForeignSource],
                &[],
            );
        });
    }
}

#[test]
fn a_veth_that_is_not_known_yet_is_the_kernels_in_takeover_and_closed_alone() {
    let first = frame(TO_BRIDGE, tuple((std::net::Ipv4Addr::new(172, 17, 0, 9), 1), (FAR, 80)), Kind::Syn);
    let same = first.clone();
    on_host(Mode::Takeover, move |host| {
        let uplink = host.uplink;
        host.assert_counted(|host| assert_eq!(host.at_container(uplink, &same).0, OK), &[], &[PathCount::ToKernel]);
    });
    on_host(Mode::Sole, move |host| {
        let uplink = host.uplink;
        host.assert_counted(
            |host| assert_eq!(host.at_container(uplink, &first).0, SHOT),
            &[DropReason::ForeignSource],
            &[],
        );
    });
}

#[test]
fn the_kernel_answers_for_a_dying_packet_and_for_one_that_is_too_big() {
    on_host(Mode::Sole, |host| {
        let flow = tuple((CLIENT, 5004), (FAR, 33_434));
        let dying = frame_with(TO_BRIDGE, flow, Kind::Udp, 1, b"x");
        host.assert_counted(
            |host| {
                let (action, sent) = host.at_container(host.client, &dying);
                assert_eq!((action, &sent), (OK, &dying), "untouched, so that the answer fits");
            },
            &[],
            &[PathCount::KernelAnswers],
        );
        assert_eq!(host.at_container(host.client, &frame(TO_BRIDGE, flow, Kind::Udp)).0, REDIRECT);
        let mut big = frame_with(TO_BRIDGE, flow, Kind::Udp, 64, &[7; 1600]);
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.client, &big).0, OK),
            &[],
            &[PathCount::KernelAnswers],
        );
        // Without "don't fragment" the kernel would fragment it and send it on untranslated.
        big[20] = 0;
        let (sum, carried) = u16::from_be_bytes([big[24], big[25]]).overflowing_add(0x4000);
        big[24..26].copy_from_slice(&(sum + u16::from(carried)).to_be_bytes());
        host.assert_counted(
            |host| {
                let (action, answer) = host.at_container(host.client, &big);
                assert_eq!((action, answer.len()), (REDIRECT, 70));
                assert_eq!((answer[23], &answer[34..36]), (ICMP, [3, 4].as_slice()), "fragmentation needed");
                assert_eq!(answer[40..42], 1500_u16.to_be_bytes(), "the uplink's MTU");
            },
            &[DropReason::TooBig],
            &[PathCount::Answered],
        );
    });
}

#[test]
fn icmp_errors_follow_the_flow_that_they_quote() {
    on_host(Mode::Takeover, |host| {
        let (_, sent) = host.at_container(host.client, &frame(TO_BRIDGE, tuple((CLIENT, 5005), (FAR, 53)), Kind::Udp));
        host.at_container(host.web, &frame(FROM_WEB, tuple((WEB, 5005), (FAR, 53)), Kind::Udp));
        // A router on the way refuses what left the host: the error quotes the translated packet.
        let error = unreachable(FROM_WIRE, REMOTE, HOST, &sent[14..]);
        host.assert_counted(
            |host| {
                let (action, received) = host.at_uplink(&error);
                assert_eq!(action, REDIRECT);
                let outer = read(&received);
                assert_eq!((outer.source, outer.destination), (REMOTE, CLIENT));
                assert_eq!(quoted(&received), tuple((CLIENT, 5005), (FAR, 53)), "as the container sent it");
            },
            &[],
            &[PathCount::IcmpError],
        );
        // A container refuses what came in by a published port: the error quotes what the container saw.
        let (_, received) = host.at_uplink(&frame(FROM_WIRE, tuple((REMOTE, 6001), (HOST, 8080)), Kind::Udp));
        let error = unreachable(FROM_WEB, WEB, REMOTE, &received[14..]);
        host.assert_counted(
            |host| {
                let (action, sent) = host.at_container(host.web, &error);
                assert_eq!(action, REDIRECT);
                let outer = read(&sent);
                assert_eq!((outer.source, outer.destination), (HOST, REMOTE));
                assert_eq!(quoted(&sent), tuple((REMOTE, 6001), (HOST, 8080)), "as the client sent it");
            },
            &[],
            &[PathCount::IcmpError],
        );
    });
}

#[test]
fn later_fragments_follow_the_first() {
    on_host(Mode::Takeover, |host| {
        let mut first = frame(TO_BRIDGE, tuple((CLIENT, 5006), (FAR, 53)), Kind::Udp);
        fragment(&mut first, 0x2000);
        let mut later = frame(TO_BRIDGE, tuple((CLIENT, 1), (FAR, 2)), Kind::Udp);
        fragment(&mut later, 0x0004);
        let mut stray = later.clone();
        stray[18..20].copy_from_slice(&[0xab, 0xcd]);
        fragment(&mut stray, 0x0004);
        host.assert_counted(
            |host| assert_eq!(host.at_container(host.client, &stray).0, SHOT, "held: its bytes are in a map"),
            &[],
            &[PathCount::FragmentHeld],
        );
        assert_eq!(host.at_container(host.client, &first).0, REDIRECT);
        let (action, sent) = host.at_container(host.client, &later);
        assert_eq!(action, REDIRECT);
        assert_eq!(sent[26..30], HOST.octets(), "the source is translated");
        assert_eq!(sent[34..], later[34..], "the payload is not");
    });
}

#[test]
fn what_isnt_ipv4_goes_to_the_kernel() {
    on_host(Mode::Sole, |host| {
        let mut arp = frame(TO_BRIDGE, tuple((CLIENT, 1), (WEB, 2)), Kind::Udp);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        host.assert_counted(
            |host| {
                assert_eq!(host.at_container(host.client, &arp), (OK, arp.clone()));
                assert_eq!(host.at_uplink(&arp), (OK, arp.clone()));
            },
            &[],
            &[PathCount::ToKernel, PathCount::ToKernel],
        );
    });
}

#[test]
fn a_gone_endpoints_flows_end_at_once_and_the_collector_sweeps_them() {
    use netpath::{dataplane::Dataplane as _, desired::model::Change};
    on_host(Mode::Takeover, |host| {
        host.at_container(host.client, &frame(TO_BRIDGE, tuple((CLIENT, 5007), (FAR, 53)), Kind::Udp));
        assert_eq!(host.kernel.pins().flows_used().expect("the table can be read"), 1);
        host.kernel.apply(&Change::RemoveEndpoint(CLIENT)).expect("the endpoint is removed");
        let collected = host.kernel.collect(4096).expect("the collector runs");
        assert_eq!((collected.scanned, collected.deleted), (2, 1));
        assert_eq!(host.kernel.pins().flows_used().expect("the table can be read"), 0);
    });
}

#[test]
fn the_collector_leaves_living_flows_alone() {
    on_host(Mode::Takeover, |host| {
        host.at_container(host.client, &frame(TO_BRIDGE, tuple((CLIENT, 5008), (FAR, 53)), Kind::Udp));
        let collected = host.kernel.collect(4096).expect("the collector runs");
        assert_eq!((collected.scanned, collected.deleted), (2, 0));
    });
}

/// Makes a packet a fragment: flags and offset, and the checksum for them.
fn fragment(frame: &mut [u8], flags_and_offset: u16) {
    frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
    frame[24..26].fill(0);
    let header = etherparse::Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 header").0;
    frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

/// An ICMP "port unreachable" that quotes a packet.
fn unreachable(
    macs: ([u8; 6], [u8; 6]),
    source: std::net::Ipv4Addr,
    destination: std::net::Ipv4Addr,
    packet: &[u8],
) -> Vec<u8> {
    let icmp = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2(macs.0, macs.1)
        .ipv4(source.octets(), destination.octets(), 64)
        .icmpv4(icmp)
        .write(&mut bytes, packet)
        .expect("a packet is built");
    bytes
}

/// The tuple of the packet that an ICMP error quotes, with its checksums verified.
fn quoted(frame: &[u8]) -> Tuple {
    let mut inner = vec![0; 12];
    inner.extend([0x08, 0x00]);
    inner.extend(&frame[42..]);
    read(&inner)
}
