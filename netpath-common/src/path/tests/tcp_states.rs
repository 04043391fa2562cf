//! TCP connections over the packet path: what ends them and what doesn't.

use super::*;
use crate::conntrack::{PairState, Shown, pair_state};

const ACK: u8 = tcp::ACK;
const SERVER: Summary = Summary { source: FAR, destination: Model::HOST, source_port: 80, destination_port: 5000 };

/// A connection of a container to the world; the client's first sequence number is 1000, the server's 9000.
struct Connection {
    model: Model,
    seconds: u64,
}

impl Connection {
    fn new() -> Self {
        Self { model: Model::host(Mode::Takeover), seconds: 1 }
    }

    fn open() -> Self {
        let mut connection = Self::new();
        connection.client(tcp::SYN, 1000, 0, b"");
        connection.server(tcp::SYN | ACK, 9000, 1001, b"");
        connection.client(ACK, 1001, 9001, b"");
        assert_eq!(connection.state(), Some(PairState::Established));
        connection
    }

    fn client(&mut self, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) {
        let mut frame = segment(udp_to(80), flags, sequence, acknowledgement, payload);
        let fate = outbound(&mut self.model, CLIENT_IFINDEX, self.seconds, &mut frame);
        assert_eq!(fate.path(), Some(PathCount::MasqueradeOut), "a packet of the client");
        assert_eq!(read(&frame).source, Model::HOST, "nothing leaves untranslated");
    }

    fn server(&mut self, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) {
        assert_eq!(self.try_server(flags, sequence, acknowledgement, payload).path(), Some(PathCount::MasqueradeIn));
    }

    fn try_server(&mut self, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Fate {
        let mut frame = segment(SERVER, flags, sequence, acknowledgement, payload);
        inbound(&mut self.model, self.seconds, &mut frame)
    }

    fn state(&self) -> Option<PairState> {
        let (key, original) = self.model.flows.iter().find(|(key, _)| key.source == CLIENT)?;
        let reply = self.model.flows.get(&original.reply_key(key.protocol))?;
        Some(pair_state(key.protocol, &Shown::of(original), &Shown::of(reply)))
    }
}

fn segment(summary: Summary, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(summary.source_port, summary.destination_port, sequence, 1000);
    header.acknowledgment_number = acknowledgement;
    (header.syn, header.ack) = (flags & tcp::SYN != 0, flags & ACK != 0);
    (header.fin, header.rst) = (flags & tcp::FIN != 0, flags & tcp::RST != 0);
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let builder = builder.ipv4(summary.source, summary.destination, 64).tcp_header(header);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn a_connection_is_followed_to_its_end() {
    let mut connection = Connection::open();
    connection.client(ACK, 1001, 9001, b"question");
    connection.server(ACK, 9001, 1009, b"answer");
    connection.client(tcp::FIN | ACK, 1009, 9007, b"");
    assert_eq!(connection.state(), Some(PairState::FinWait));
    connection.server(ACK, 9007, 1010, b"");
    assert_eq!(connection.state(), Some(PairState::CloseWait));
    connection.server(tcp::FIN | ACK, 9007, 1010, b"bye");
    assert_eq!(connection.state(), Some(PairState::LastAck));
    connection.client(ACK, 1010, 9011, b"");
    assert_eq!(connection.state(), Some(PairState::TimeWait));
}

#[test]
fn both_sides_may_open_at_once() {
    let mut connection = Connection::new();
    connection.client(tcp::SYN, 1000, 0, b"");
    connection.server(tcp::SYN, 9000, 0, b"");
    assert_eq!(connection.state(), Some(PairState::SynReceived));
    connection.client(tcp::SYN | ACK, 1000, 9001, b"");
    connection.server(tcp::SYN | ACK, 9000, 1001, b"");
    connection.client(ACK, 1001, 9001, b"");
    assert_eq!(connection.state(), Some(PairState::Established));
    connection.seconds += 3600;
    connection.server(ACK, 9001, 1001, b"still there");
}

#[test]
fn a_reset_out_of_window_is_carried_and_kills_nothing() {
    for sequence in [0, 8999, 9002, 9001_u32.wrapping_add(1 << 30), 9001_u32.wrapping_sub(70_000)] {
        let mut connection = Connection::open();
        connection.server(tcp::RST, sequence, 0, b"");
        assert_eq!(connection.state(), Some(PairState::Established), "{sequence}");
        connection.seconds += 3600;
        connection.client(ACK, 1001, 9001, b"alive");
    }
}

#[test]
fn a_reset_where_the_receiver_waits_ends_the_connection() {
    let mut connection = Connection::open();
    connection.server(tcp::RST | ACK, 9001, 1001, b"");
    assert_eq!(connection.state(), Some(PairState::Close));
    connection.seconds += 12;
    assert_eq!(connection.try_server(ACK, 9001, 1001, b"late").path(), Some(PathCount::ToKernel));
    assert!(connection.model.flows.is_empty());
}

#[test]
fn a_reset_behind_data_under_way_ends_the_connection() {
    let mut connection = Connection::open();
    connection.server(ACK, 9001, 1001, b"not acknowledged");
    connection.server(tcp::RST, 9017, 0, b"");
    assert_eq!(connection.state(), Some(PairState::Close));
}

#[test]
fn a_refusal_ends_an_attempt_and_a_forged_one_doesnt() {
    for (acknowledgement, expected) in [(1001, PairState::Close), (77, PairState::SynSent)] {
        let mut connection = Connection::new();
        connection.client(tcp::SYN, 1000, 0, b"");
        connection.server(tcp::RST | ACK, 0, acknowledgement, b"");
        assert_eq!(connection.state(), Some(expected));
    }
}

#[test]
fn what_is_forged_before_the_answer_doesnt_spoil_the_connection() {
    let mut connection = Connection::new();
    connection.client(tcp::SYN, 1000, 0, b"");
    connection.server(ACK, 123_456, 77, b"forged");
    connection.server(tcp::SYN | ACK, 9000, 1001, b"");
    connection.client(ACK, 1001, 9001, b"");
    assert_eq!(connection.state(), Some(PairState::Established));
    connection.server(tcp::RST, 9001, 0, b"");
    assert_eq!(connection.state(), Some(PairState::Close));
}

#[test]
fn who_goes_on_talking_has_not_been_reset() {
    let mut connection = Connection::open();
    connection.server(tcp::RST, 9001, 0, b"");
    assert_eq!(connection.state(), Some(PairState::Close));
    connection.client(ACK, 1001, 9001, b"a challenge");
    assert_eq!(connection.state(), Some(PairState::Established));
    connection.seconds += 3600;
    connection.server(ACK, 9001, 1012, b"");
}

#[test]
fn a_close_out_of_window_closes_nothing() {
    let mut connection = Connection::open();
    connection.server(tcp::FIN | ACK, 9001_u32.wrapping_add(1 << 29), 1001, b"");
    assert_eq!(connection.state(), Some(PairState::Established));
}

#[test]
fn a_new_syn_against_the_direction_of_a_closed_connection_belongs_to_the_host() {
    let mut connection = Connection::open();
    connection.client(tcp::FIN | ACK, 1001, 9001, b"");
    connection.server(tcp::FIN | ACK, 9001, 1002, b"");
    assert_eq!(connection.try_server(tcp::SYN, 50_000, 0, b"").path(), Some(PathCount::MasqueradeIn), "not yet");
    connection.client(ACK, 1002, 9002, b"");
    assert_eq!(connection.state(), Some(PairState::TimeWait));
    assert_eq!(connection.try_server(tcp::SYN, 50_000, 0, b"").path(), Some(PathCount::ToKernel));
    assert!(connection.model.flows.is_empty());
}

#[test]
fn a_syn_into_an_open_connection_changes_nothing() {
    let mut connection = Connection::open();
    connection.client(tcp::SYN, 77_000, 0, b"");
    assert_eq!(connection.state(), Some(PairState::Established));
    connection.server(ACK, 9001, 1001, b"");
    connection.client(tcp::RST, 1001, 0, b"");
    assert_eq!(connection.state(), Some(PairState::Close), "the challenge's answer is believed");
}

#[test]
fn a_new_syn_reopens_a_closed_connection_with_the_same_mapping() {
    let mut model = Model::host(Mode::Takeover);
    let flow = udp_to(80);
    let answer = Summary { source: FAR, destination: Model::HOST, source_port: 80, destination_port: 5000 };
    for (out, flags) in [
        (true, tcp::SYN),
        (false, tcp::SYN | tcp::ACK),
        (true, tcp::ACK),
        (true, tcp::FIN | tcp::ACK),
        (false, tcp::FIN | tcp::ACK),
        (true, tcp::ACK),
        (true, tcp::SYN),
        (false, tcp::SYN | tcp::ACK),
        (true, tcp::ACK),
    ] {
        let mut frame = build(if out { flow } else { answer }, Kind::Tcp(flags), b"");
        let fate =
            if out { outbound(&mut model, CLIENT_IFINDEX, 1, &mut frame) } else { inbound(&mut model, 1, &mut frame) };
        assert!(fate.forward().is_some_and(|forward| forward != Forward::Kernel), "flags {flags:#x}: {fate:?}");
    }
    // Open again: an hour of silence doesn't end it, as it would end a closed one.
    let fate = inbound(&mut model, 3600, &mut build(answer, Kind::Tcp(tcp::ACK), b"x"));
    assert_eq!(fate.path(), Some(PathCount::MasqueradeIn));
}
