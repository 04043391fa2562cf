//! The operator's policy: who may open flows to published ports.

use super::*;
use crate::abi::{Action, Origin, Policy, PolicyKey, PolicyRule};

const ASKED: Summary = Summary { source: FAR, destination: Model::HOST, source_port: 5000, destination_port: 8080 };

/// A list that denies one source everything, under counter 1; everything else has counter 0.
fn denying(source: Address) -> Policy {
    let wanted = PolicyKey { source, ..PolicyKey::ZERO };
    let mask = PolicyKey { source: [255; 4], ..PolicyKey::ZERO };
    let rule =
        PolicyRule { wanted, mask, port_last: u16::MAX, counter: 1, action: Action::Deny as u8, ..PolicyRule::UNSET };
    let mut policy = Policy { rule_count: 1, ..Policy::NONE };
    policy.rules[0] = rule;
    policy
}

fn hits(model: &Model, counter: u16) -> u64 {
    model.policy_hits.get(&counter).copied().unwrap_or(0)
}

#[test]
fn a_denied_client_opens_nothing_and_others_do() {
    for (mode, kind) in
        [(Mode::Takeover, Kind::Tcp(tcp::SYN)), (Mode::Sole, Kind::Tcp(tcp::SYN)), (Mode::Sole, Kind::Udp)]
    {
        let mut model = Model::host(mode);
        model.policy = denying(FAR);
        let mut frame = build(ASKED, kind, b"hello");
        let before = frame.clone();
        assert_eq!(inbound(&mut model, 1, &mut frame).drop_reason(), Some(DropReason::PolicyDenied));
        assert_eq!((frame, model.flows.len()), (before, 0));
        assert_eq!((hits(&model, 1), hits(&model, 0)), (1, 0));

        let mut frame = build(Summary { source: [203, 0, 113, 10], ..ASKED }, kind, b"hello");
        assert_eq!(inbound(&mut model, 1, &mut frame).path(), Some(PathCount::PublishedIn));
        assert_eq!((hits(&model, 1), hits(&model, 0)), (1, 1));
    }
}

#[test]
fn the_port_is_the_hosts_and_the_network_the_containers() {
    let deny = |wanted: PolicyKey, mask: PolicyKey, port: u16| {
        let mut policy = denying([0; 4]);
        policy.rules[0] = PolicyRule { wanted, mask, port_first: port, port_last: port, ..policy.rules[0] };
        policy
    };
    let network =
        |network, mask| (PolicyKey { network, ..PolicyKey::ZERO }, PolicyKey { network: mask, ..PolicyKey::ZERO });
    for ((wanted, mask), port, is_denied) in [
        (network(0, 0), 8080, true),
        (network(0, 0), 80, false),
        (network(1, u16::MAX), 8080, true),
        (network(2, u16::MAX), 8080, false),
    ] {
        let mut model = Model::host(Mode::Sole);
        model.policy = deny(wanted, mask, port);
        let reason = inbound(&mut model, 1, &mut build(ASKED, Kind::Udp, b"")).drop_reason();
        assert_eq!(reason.is_some(), is_denied, "{wanted:?} {port}");
    }
}

#[test]
fn a_dry_run_counts_and_denies_nothing() {
    let mut model = Model::host(Mode::Sole);
    model.policy = Policy { dry_run: 1, ..denying(FAR) };
    assert_eq!(inbound(&mut model, 1, &mut build(ASKED, Kind::Udp, b"")).path(), Some(PathCount::PublishedIn));
    assert_eq!((hits(&model, 1), model.counted(PathCount::PolicyWouldDeny)), (1, 1));
}

#[test]
fn packets_of_a_known_flow_are_not_judged() {
    let mut model = Model::host(Mode::Sole);
    assert_eq!(inbound(&mut model, 1, &mut build(ASKED, Kind::Udp, b"")).path(), Some(PathCount::PublishedIn));
    model.policy = denying(FAR);
    assert_eq!(inbound(&mut model, 1, &mut build(ASKED, Kind::Udp, b"")).path(), Some(PathCount::PublishedIn));
    assert!(model.policy_hits.is_empty());

    // The daemon ends it, by either entry; then its next packet is judged.
    let entries: Vec<_> = model.flows.iter().map(|(key, flow)| (*key, *flow)).collect();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|(key, flow)| model.policy.denies(key, flow)));
    let mut dry_run = model.policy;
    dry_run.dry_run = 1;
    assert!(!entries.iter().any(|(key, flow)| dry_run.denies(key, flow)));
    assert!(conntrack::remove(&mut model, &entries[0].0, SECOND_NS));
    let fate = inbound(&mut model, 1, &mut build(ASKED, Kind::Udp, b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::PolicyDenied));
}

#[test]
fn in_takeover_a_denied_client_is_not_left_to_the_kernel_either() {
    // What netpath would leave: the middle of a connection, a flow of nf_conntrack's, a packet that must be answered, and
    // everything as long as no flows are opened.
    let middle = build(ASKED, Kind::Tcp(tcp::ACK), b"hello");
    let mut model = Model::host(Mode::Takeover);
    assert_eq!(inbound(&mut model, 1, &mut middle.clone()).path(), Some(PathCount::Handover));
    model.policy = denying(FAR);
    assert_eq!(inbound(&mut model, 1, &mut middle.clone()).drop_reason(), Some(DropReason::PolicyDenied));
    model.config.opens_flows = 0;
    let fate = inbound(&mut model, 1, &mut build(ASKED, Kind::Tcp(tcp::SYN), b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::PolicyDenied));
}

#[test]
fn hairpins_are_judged_by_the_containers_address_and_a_rule_can_leave_them_out() {
    for (origin, is_denied) in [(None, true), (Some(Origin::Container), true), (Some(Origin::Wire), false)] {
        let mut model = Model::host(Mode::Sole);
        model.policy = denying(CLIENT);
        if let Some(origin) = origin {
            model.policy.rules[0].wanted.origin = origin as u8;
            model.policy.rules[0].mask.origin = u8::MAX;
        }
        let asked = Summary { source: CLIENT, ..ASKED };
        let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(asked, Kind::Udp, b""));
        assert_eq!(fate.drop_reason() == Some(DropReason::PolicyDenied), is_denied, "{origin:?}");
        let entries: Vec<_> = model.flows.iter().map(|(key, flow)| (*key, *flow)).collect();
        assert_eq!(entries.is_empty(), is_denied);
        assert!(!entries.iter().any(|(key, flow)| model.policy.denies(key, flow)));
    }
}

#[test]
fn what_isnt_published_is_not_the_policys() {
    let mut model = Model::host(Mode::Sole);
    model.policy = Policy { default_action: Action::Deny as u8, ..Policy::NONE };
    let own = Summary { destination_port: 22, ..ASKED };
    assert_eq!(inbound(&mut model, 1, &mut build(own, Kind::Tcp(tcp::SYN), b"")).path(), Some(PathCount::ToKernel));
    let out = Summary { source: CLIENT, destination: FAR, source_port: 5000, destination_port: 8080 };
    let mut frame = build(out, Kind::Udp, b"");
    assert_eq!(outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame).path(), Some(PathCount::MasqueradeOut));
    let answer = reversed(read(&frame));
    let fate = inbound(&mut model, 1, &mut build(answer, Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeIn));
    assert!(model.policy_hits.is_empty());
}

#[test]
fn a_cone_is_open_to_everyone_but_who_is_denied() {
    let mut model = Model::host(Mode::Sole);
    model.open_cones(CLIENT);
    let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(udp_to(53), Kind::Udp, b""));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
    let knock = |model: &mut Model, source| {
        let knock = Summary { source, destination: Model::HOST, source_port: 9999, destination_port: 5000 };
        inbound(model, 1, &mut build(knock, Kind::Udp, b""))
    };
    let stranger = [203, 0, 113, 77];
    model.policy = denying(stranger);
    assert_eq!(knock(&mut model, stranger).drop_reason(), Some(DropReason::PolicyDenied));
    assert_eq!(knock(&mut model, [203, 0, 113, 78]).path(), Some(PathCount::ConeIn));
}
