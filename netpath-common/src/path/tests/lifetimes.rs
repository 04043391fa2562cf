//! How long flows live.

use super::*;
use crate::conntrack::PairState;

/// At these seconds a container sends (true) or is answered (false).
type Exchange = &'static [(u64, bool)];

#[test]
fn a_silent_flow_ends_after_its_time_and_not_before() {
    let rows: [(&str, Exchange, u64); 5] = [
        ("unanswered", &[(1, true)], 30),
        ("answered once", &[(1, true), (1, false)], 30),
        ("a stream", &[(1, true), (1, false), (4, true)], 120),
        ("a stream of small steps", &[(1, true), (1, false), (2, true), (3, true), (4, true)], 120),
        ("no stream yet", &[(1, true), (1, false), (2, true)], 30),
    ];
    let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };
    for (description, exchange, timeout) in rows {
        for (after, lives) in [(timeout - 1, true), (timeout + 1, false)] {
            let mut model = Model::host(Mode::Takeover);
            let mut last = 0;
            for (seconds, sends) in exchange {
                let mut frame = build(if *sends { udp_to(53) } else { answer }, Kind::Udp, b"");
                let fate = if *sends {
                    outbound(&mut model, CLIENT_IFINDEX, *seconds, &mut frame)
                } else {
                    inbound(&mut model, *seconds, &mut frame)
                };
                assert!(fate.forward().is_some_and(|forward| forward != Forward::Kernel), "{description}: {fate:?}");
                last = *seconds;
            }
            let fate = inbound(&mut model, last + after, &mut build(answer, Kind::Udp, b""));
            let expected = if lives { PathCount::MasqueradeIn } else { PathCount::ToKernel };
            assert_eq!(fate.path(), Some(expected), "{description}, after {after} s");
            assert_eq!(model.flows.is_empty(), !lives, "both entries go together");
        }
    }
}

#[test]
fn timeouts_are_configurable() {
    let mut model = Model::host(Mode::Takeover);
    model.timeouts.insert(PairState::UdpUnreplied, 300);
    _ = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
    let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };
    let fate = inbound(&mut model, 299, &mut build(answer, Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeIn));
}

#[test]
fn packets_of_the_world_keep_a_mapping_alive_only_when_they_may() {
    for (inbound_refresh, expected) in [(1, PathCount::MasqueradeIn), (0, PathCount::ToKernel)] {
        let mut model = Model::host(Mode::Takeover);
        model.config.inbound_refresh = inbound_refresh;
        let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };
        _ = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
        for seconds in (0..120).step_by(20) {
            _ = inbound(&mut model, seconds, &mut build(answer, Kind::Udp, b""));
        }
        let fate = inbound(&mut model, 130, &mut build(answer, Kind::Udp, b""));
        assert_eq!(fate.path(), Some(expected), "inbound refresh: {inbound_refresh}");
    }
}

#[test]
fn a_direction_that_only_listens_is_kept_alive_by_the_other() {
    let mut model = Model::host(Mode::Takeover);
    _ = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
    let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: 5000 };
    for seconds in (20..600).step_by(20) {
        let fate = inbound(&mut model, seconds, &mut build(answer, Kind::Udp, b""));
        assert_eq!(fate.path(), Some(PathCount::MasqueradeIn), "after {seconds} s");
    }
    let fate = outbound(&mut model, CLIENT_IFINDEX, 600, &mut build(udp_to(53), Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
    assert_eq!(model.counted(PathCount::FlowsOpened), 1, "the flow never ended");
}

#[test]
fn an_expired_holder_gives_its_port_away() {
    let mut model = Model::host(Mode::Takeover);
    _ = outbound(&mut model, WEB_IFINDEX, 0, &mut build(Summary { source: WEB, ..udp_to(53) }, Kind::Udp, b""));
    let mut frame = build(udp_to(53), Kind::Udp, b"");
    _ = outbound(&mut model, CLIENT_IFINDEX, 100, &mut frame);
    assert_eq!(read(&frame).source_port, 5000);
    assert_eq!(model.flows.len(), 2, "the expired pair is gone whole");
}
