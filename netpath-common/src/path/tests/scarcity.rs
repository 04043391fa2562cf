//! When the table is full, or no port is left.

use super::*;
use crate::conntrack::PairState;

#[test]
fn a_full_table_drops_and_counts_and_leaves_no_half() {
    for flows_max in [0, 1] {
        let mut model = Model::host(Mode::Takeover);
        model.flows_max = flows_max;
        let fate = outbound(&mut model, CLIENT_IFINDEX, 0, &mut build(udp_to(53), Kind::Udp, b""));
        assert_eq!(fate.drop_reason(), Some(DropReason::FlowTableFull));
        assert!(model.flows.is_empty());
    }
}

fn from_port(source_port: u16) -> Summary {
    Summary { source_port, ..udp_to(53) }
}

fn answer_to(summary: Summary) -> Summary {
    Summary { destination: Model::HOST, ..reversed(summary) }
}

/// Opens a flow and makes it a stream: packets in both directions, over more than two seconds.
fn open_stream(model: &mut Model, flow: Summary) {
    for now_s in [0, 3] {
        _ = outbound(model, CLIENT_IFINDEX, now_s, &mut build(flow, Kind::Udp, b""));
        _ = inbound(model, now_s, &mut build(answer_to(flow), Kind::Udp, b""));
    }
}

#[test]
fn a_flood_makes_room_for_itself_and_open_flows_stay() {
    for is_answered in [false, true] {
        let mut model = Model::host(Mode::Takeover);
        model.flows_max = 64;
        let open: Vec<_> = (1..=8).map(from_port).collect();
        open.iter().for_each(|flow| open_stream(&mut model, *flow));
        let mut refused = 0;
        for flow in (1000..2000).map(from_port) {
            let fate = outbound(&mut model, CLIENT_IFINDEX, 3, &mut build(flow, Kind::Udp, b""));
            refused += u32::from(fate.drop_reason().is_some());
            if is_answered {
                _ = inbound(&mut model, 3, &mut build(answer_to(flow), Kind::Udp, b""));
            }
        }
        for flow in &open {
            let fate = inbound(&mut model, 3, &mut build(answer_to(*flow), Kind::Udp, b""));
            assert_eq!(fate.path(), Some(PathCount::MasqueradeIn), "an open flow is never pushed out");
        }
        assert!(refused < 100, "of 1000 flows {refused} found no room, answered: {is_answered}");
        assert!(model.counted(PathCount::FlowsEvicted) > 800);
    }
}

#[test]
fn a_table_full_of_open_flows_takes_no_more_and_says_so() {
    let mut model = Model::host(Mode::Takeover);
    model.flows_max = 16;
    for flow in (1..=8).map(from_port) {
        open_stream(&mut model, flow);
    }
    let fate = outbound(&mut model, CLIENT_IFINDEX, 3, &mut build(from_port(9), Kind::Udp, b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::FlowTableFull));
    assert_eq!(model.flows.len(), 16);
}

/// A model with ports 40000 to 40003, and all of them taken by flows to one destination.
fn exhausted(is_answered: bool) -> Model {
    let mut model = Model::host(Mode::Takeover);
    (model.config.port_first, model.config.port_last) = (40_000, 40_003);
    for (index, port) in (40_000..=40_003).enumerate() {
        let address = [172, 17, 1, index as u8];
        model.add_endpoint(address, 100 + index as u32);
        let flow = Summary { source: address, ..from_port(port) };
        let fate = outbound(&mut model, 100 + index as u32, 1, &mut build(flow, Kind::Udp, b""));
        assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
        if is_answered {
            let answer = Summary { source: FAR, destination: Model::HOST, source_port: 53, destination_port: port };
            _ = inbound(&mut model, 1, &mut build(answer, Kind::Udp, b""));
        }
    }
    model
}

#[test]
fn without_a_free_port_the_sender_is_told() {
    let mut model = exhausted(true);
    let mut frame = build(from_port(40_001), Kind::Udp, b"a payload long enough to be cut off by the answer");
    let sent = frame.clone();
    let fate = outbound(&mut model, CLIENT_IFINDEX, 2, &mut frame);
    assert_eq!(fate.drop_reason(), Some(DropReason::PortsExhausted));
    assert_eq!(fate.forward(), Some(Forward::IntoContainer { ifindex: CLIENT_IFINDEX }));

    let answer = &frame[..70];
    let packet = SlicedPacket::from_ethernet(answer).unwrap();
    let Some(NetSlice::Ipv4(ipv4)) = &packet.net else { panic!("not IPv4") };
    let header = ipv4.header().to_header();
    assert_eq!((header.source, header.destination), (Model::GATEWAY, CLIENT));
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("not ICMP") };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 13));
    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
    assert_eq!(icmp.payload(), &sent[14..42], "what it quotes");
    assert_eq!((&answer[..6], &answer[6..12]), (&sent[6..12], &sent[..6]), "Ethernet addresses");

    let mut told = || {
        let mut another = build(from_port(40_002), Kind::Udp, b"a payload long enough to be cut off by the answer");
        let fate = outbound(&mut model, CLIENT_IFINDEX, 2, &mut another);
        assert_eq!(fate.drop_reason(), Some(DropReason::PortsExhausted));
        fate.is_answered()
    };
    assert!(told());
    assert!((0..100).any(|_| !told()), "answers have a bound");
}

#[test]
fn an_unanswered_flow_gives_its_port_away_when_none_is_free() {
    let mut model = exhausted(false);
    let mut frame = build(from_port(40_001), Kind::Udp, b"");
    let fate = outbound(&mut model, CLIENT_IFINDEX, 3, &mut frame);
    assert_eq!(fate.path(), Some(PathCount::MasqueradeOut));
    assert!((40_000..=40_003).contains(&read(&frame).source_port));
    assert_eq!(model.counted(PathCount::FlowsEvicted), 1);
    assert_eq!(model.flows.len(), 8, "no half stays behind");
}

#[test]
fn a_flow_of_this_very_second_keeps_its_port() {
    let mut model = exhausted(false);
    let fate = outbound(&mut model, CLIENT_IFINDEX, 1, &mut build(from_port(40_001), Kind::Udp, b""));
    assert_eq!(fate.drop_reason(), Some(DropReason::PortsExhausted));
}

#[test]
fn a_range_is_used_to_the_last_port_without_a_duplicate() {
    let mut model = Model::host(Mode::Sole);
    let (first, last) = (20_000_u16, 20_999);
    (model.config.port_first, model.config.port_last) = (first, last);
    model.flows_max = 8192;
    let mut taken = std::collections::BTreeSet::new();
    let mut opened_at = Vec::new();
    for index in 0..3000_u32 {
        let [_, _, high, low] = index.to_be_bytes();
        let address = [172, 17, 2 + high, low];
        model.add_endpoint(address, 100 + index);
        let flow = Summary { source: address, ..from_port(5353) };
        let mut frame = build(flow, Kind::Udp, b"");
        let fate = outbound(&mut model, 100 + index, 1, &mut frame);
        if fate.path() == Some(PathCount::MasqueradeOut) {
            assert!(taken.insert(read(&frame).source_port), "two flows share a port");
            opened_at.push(index);
        }
    }
    // Its own port, outside the range, and those of the range.
    assert!(taken.contains(&5353) && taken.iter().all(|port| *port == 5353 || (first..=last).contains(port)));
    assert!(taken.len() > 990, "{} ports of 1000 were found", taken.len());
    let at_90_percent = opened_at.iter().position(|index| *index > 910).unwrap_or(0);
    assert!(at_90_percent >= 890, "up to 90 % hardly a flow is refused: {at_90_percent}");
}

#[test]
fn expendable_states_are_those_that_nobody_waits_in() {
    assert!(PairState::SynSent.is_expendable() && PairState::TimeWait.is_expendable());
    assert!(!PairState::Established.is_expendable() && !PairState::UdpReplied.is_expendable());
}

/// Flows to one destination until its range holds no more: how many find a port, and after how many looks, by how full the
/// range is.
#[test]
fn a_range_is_filled_towards_one_destination() {
    const SIZE: u32 = 8192;
    let mut model = Model::host(Mode::Sole);
    (model.config.port_first, model.config.port_last) = (20_000, 20_000 + SIZE as u16 - 1);
    model.flows_max = 4 * SIZE as usize;
    let levels = [0, 10, 50, 90, 95, 99, 100];
    // Attempts, successes and looks of the levels.
    let mut tallies = [(0_u64, 0_u64, 0_u64); 7];
    let mut taken = std::collections::BTreeSet::new();
    for index in 0..16 * SIZE {
        let [_, a, b, c] = index.to_be_bytes();
        let address = [10, a, b, c];
        model.endpoints.remove(&[10, 0, 0, 0]);
        model.add_endpoint(address, 100 + index);
        // Nobody keeps a published port, so every flow searches.
        let mut frame = build(Summary { source: address, ..from_port(8080) }, Kind::Udp, b"");
        let percent = taken.len() * 100 / SIZE as usize;
        let level = levels.iter().rposition(|level| percent >= *level).unwrap_or(0);
        let before = model.looks.get();
        let fate = outbound(&mut model, 100 + index, 1, &mut frame);
        let (attempts, successes, looks) = &mut tallies[level];
        *attempts += 1;
        *looks += model.looks.get() - before;
        if fate.path() == Some(PathCount::MasqueradeOut) {
            *successes += 1;
            assert!(taken.insert(read(&frame).source_port), "two flows share a port");
        }
        if taken.len() == SIZE as usize && tallies[6].0 >= 1000 {
            break;
        }
    }
    println!("full from   attempts   find a port   looks for a flow");
    for (level, (attempts, successes, looks)) in levels.iter().zip(tallies) {
        if attempts > 0 {
            let (rate, looks) = (successes as f64 * 100.0 / attempts as f64, looks as f64 / attempts as f64);
            println!("{level:>7} %   {attempts:>8}   {rate:>9.2} %   {looks:>8.1}");
        }
    }
    println!("{} ports of {SIZE} were given away", taken.len());
    assert!(tallies[3].1 * 100 > tallies[3].0 * 95, "from 90 % to 95 % hardly a flow is refused");
    assert!(taken.len() as u32 > SIZE * 99 / 100, "{} ports of {SIZE}", taken.len());
    assert_eq!(tallies[6].1, 0, "a full range has no port");
}
