//! Sockets of the host that are bound to 127.0.0.0/8, in sole mode, and errors about what the kernel couldn't deliver.

use super::*;
use crate::path::bound_to_loopback::bound_to_loopback;

const LOCAL: Address = [127, 0, 0, 1];
const ASKED: Summary = Summary { source: LOCAL, destination: LOCAL, source_port: 5000, destination_port: 8080 };
const SEEN: Summary = Summary { source: Model::GATEWAY, destination: WEB, source_port: 5000, destination_port: 80 };

const TO_FAR: Summary = Summary { source: CLIENT, destination: FAR, source_port: 4000, destination_port: 80 };

fn send(model: &mut Model, seconds: u64, frame: &mut [u8]) -> Fate {
    bound_to_loopback(&mut { frame }, model, &mut Workspace::EMPTY.clone(), seconds * SECOND_NS)
}

#[test]
fn a_bound_socket_reaches_a_published_port_and_is_answered_by_loopback() {
    for kind in [Kind::Tcp(tcp::SYN), Kind::Udp] {
        let mut model = Model::host(Mode::Sole);
        let mut frame = build(ASKED, kind, b"hello");
        let fate = send(&mut model, 1, &mut frame);
        assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
        assert_eq!((fate.path(), read(&frame)), (Some(PathCount::HostToContainer), SEEN));

        let mut answer = build(reversed(SEEN), kind, b"hello");
        assert_eq!(
            outbound(&mut model, CLIENT_IFINDEX, 1, &mut answer.clone()).drop_reason(),
            Some(DropReason::ForeignSource)
        );
        let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut answer);
        assert_eq!((fate.forward(), fate.path()), (Some(Forward::InByLoopback), Some(PathCount::ContainerToHost)));
        assert_eq!(read(&answer), reversed(ASKED));
        assert_eq!(answer[..12], [0; 12], "the loopback interface's own address");
    }
}

#[test]
fn an_error_of_the_container_finds_the_socket() {
    let mut model = Model::host(Mode::Sole);
    let mut sent = build(ASKED, Kind::Udp, b"hello");
    _ = send(&mut model, 1, &mut sent);
    let mut frame = port_unreachable(WEB, Model::GATEWAY, &sent);
    let fate = outbound(&mut model, WEB_IFINDEX, 1, &mut frame);
    assert_eq!((fate.forward(), fate.path()), (Some(Forward::InByLoopback), Some(PathCount::IcmpError)));
    assert_eq!((read(&frame).source, read(&frame).destination), (LOCAL, LOCAL));
    assert_eq!(quoted(&frame), ASKED);
}

#[test]
fn two_sockets_never_share_what_the_container_sees() {
    let mut model = Model::host(Mode::Sole);
    let mut first = build(ASKED, Kind::Udp, b"");
    _ = send(&mut model, 1, &mut first);
    let mut second = build(Summary { destination: [127, 0, 0, 9], ..ASKED }, Kind::Udp, b"");
    _ = send(&mut model, 1, &mut second);
    assert_eq!(read(&first).destination, read(&second).destination);
    assert_ne!(read(&first).source_port, read(&second).source_port);
}

#[test]
fn all_else_goes_on_untouched_and_opens_nothing() {
    let elsewhere = [
        (Mode::Takeover, ASKED, Kind::Udp),
        (Mode::Sole, Summary { destination_port: 8081, ..ASKED }, Kind::Udp),
        (Mode::Sole, Summary { source: Model::HOST, ..ASKED }, Kind::Udp),
        (Mode::Sole, Summary { destination: FAR, ..ASKED }, Kind::Udp),
        (Mode::Sole, ASKED, Kind::Tcp(tcp::ACK)),
        (Mode::Sole, ASKED, Kind::Ping),
    ];
    for (mode, summary, kind) in elsewhere {
        let mut model = Model::host(mode);
        let mut frame = build(summary, kind, b"");
        let before = frame.clone();
        assert_eq!(send(&mut model, 1, &mut frame), Fate::UNDECIDED, "{summary:?}");
        assert_eq!((frame, model.flows.len()), (before, 0), "{summary:?}");
    }
}

#[test]
fn a_datagram_that_no_veth_takes_opens_no_flow() {
    let mut model = Model::host(Mode::Sole);
    let fate = send(&mut model, 1, &mut build(ASKED, Kind::Udp, &[0; 4000]));
    assert_eq!((fate.drop_reason(), model.flows.len()), (Some(DropReason::TooBig), 0));
}

#[test]
fn it_ends_with_its_container() {
    let mut model = Model::host(Mode::Sole);
    _ = send(&mut model, 1, &mut build(ASKED, Kind::Tcp(tcp::SYN), b""));
    model.endpoints.clear();
    for hop in model.hops.values_mut() {
        hop.generation += 1;
    }
    assert_eq!(send(&mut model, 2, &mut build(ASKED, Kind::Tcp(tcp::ACK), b"")), Fate::UNDECIDED);
    assert_eq!(model.flows.len(), 0);
}

/// The kernel takes the host for the sender of what it was given translated.
#[test]
fn an_error_of_the_kernel_about_a_containers_packet_finds_the_container() {
    for mode in [Mode::Takeover, Mode::Sole] {
        for kind in [Kind::Tcp(tcp::SYN), Kind::Udp, Kind::Ping] {
            let mut model = Model::host(mode);
            let destination_port = if kind == Kind::Ping { 0 } else { 80 };
            let asked = Summary { destination_port, ..TO_FAR };
            let mut sent = build(asked, kind, b"hello");
            let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut sent);
            assert_eq!(fate.forward(), Some(Forward::OutOfUplink { ifindex: Model::UPLINK }));

            let mut error = port_unreachable(Model::HOST, Model::HOST, &sent);
            let fate = send(&mut model, 3, &mut error);
            assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }), "{mode:?} {kind:?}");
            assert_eq!(fate.path(), Some(PathCount::IcmpError));
            assert_eq!((read(&error).source, read(&error).destination, quoted(&error)), (Model::HOST, CLIENT, asked));
        }
    }
}

#[test]
fn an_error_of_the_kernel_about_a_published_ports_answer_finds_the_server() {
    let mut model = Model::host(Mode::Sole);
    let asked = Summary { source: FAR, destination: Model::HOST, source_port: 4000, destination_port: 8080 };
    let mut question = build(asked, Kind::Udp, b"?");
    assert!(inbound(&mut model, 1, &mut question).forward().is_some());
    let mut answer = build(reversed(read(&question)), Kind::Udp, b"!");
    assert!(outbound(&mut model, WEB_IFINDEX, 1, &mut answer).forward().is_some());
    let mut error = port_unreachable(Model::HOST, Model::HOST, &answer);
    assert_eq!(send(&mut model, 3, &mut error).forward(), Some(Forward::IntoContainer { ifindex: WEB_IFINDEX }));
    assert_eq!(quoted(&error), reversed(read(&question)));
}

#[test]
fn the_kernels_other_errors_stay_the_hosts() {
    for mode in [Mode::Takeover, Mode::Sole] {
        let mut model = Model::host(mode);
        _ = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(TO_FAR, Kind::Udp, b""));
        let others = [
            Summary { source: Model::HOST, source_port: 4001, ..TO_FAR },
            Summary { source: Model::HOST, destination: Model::HOST, ..TO_FAR },
            // Only its own interface brings packets of the opening direction.
            reversed(TO_FAR),
        ];
        for other in others {
            let mut error = port_unreachable(Model::HOST, Model::HOST, &build(other, Kind::Udp, b""));
            let before = error.clone();
            assert_eq!(send(&mut model, 3, &mut error), Fate::UNDECIDED, "{other:?}");
            assert_eq!(error, before, "{other:?}");
        }
    }
}
