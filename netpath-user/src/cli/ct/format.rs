//! How connections are written: as a table, a wider one, or as `conntrack -L` and `conntrack -E` write them.
//!
//! The lines of conntrack are those of libnetfilter_conntrack's src/conntrack/snprintf_default.c, compared with what
//! conntrack 1.4.7 prints on kernel 6.18.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::connection::{Connection, Side, Tuple};
use crate::cli::output::{Table, human_duration};

const HEADER: [&str; 9] =
    ["PROTO", "STATE", "SOURCE", "DESTINATION", "TRANSLATED", "KIND", "NETWORK", "IDLE", "EXPIRES"];

pub(super) fn table(connections: &[Connection]) -> String {
    let mut table = Table::new(HEADER);
    connections.iter().for_each(|connection| table.row(cells(connection)));
    table.to_string()
}

/// The table, and behind it where answers come from and go to, what each direction has shown, the network's number, where
/// packets leave and the hops' indices, each the original direction's and the reply's.
pub(super) fn wide(connections: &[Connection]) -> String {
    let [proto, state, source, destination, translated, kind, network, idle, expires] = HEADER;
    let mut table = Table::new([
        proto,
        state,
        source,
        destination,
        translated,
        kind,
        network,
        idle,
        expires,
        "REPLY SOURCE",
        "REPLY DESTINATION",
        "SEEN",
        "STATUS",
        "NUMBER",
        "OUT",
        "HOP",
    ]);
    for connection in connections {
        let [proto, state, source, destination, translated, kind, network, idle, expires] = cells(connection);
        let Tuple { source: from, source_port, destination: to, destination_port } = connection.reply;
        table.row([
            proto,
            state,
            source,
            destination,
            translated,
            kind,
            network,
            idle,
            expires,
            endpoint(from, source_port),
            endpoint(to, destination_port),
            both(connection, flags),
            status(connection).to_owned(),
            connection.network_number.to_string(),
            both(connection, |side| side.interface.clone().unwrap_or_else(|| "?".to_owned())),
            both(connection, |side| side.hop.to_string()),
        ]);
    }
    table.to_string()
}

fn cells(connection: &Connection) -> [String; 9] {
    let Tuple { source, source_port, destination, destination_port } = connection.original;
    [
        connection.protocol.to_owned(),
        connection.state.to_owned(),
        endpoint(source, source_port),
        endpoint(destination, destination_port),
        format!("-> {}", translated(connection)),
        connection.kind.to_owned(),
        network(connection),
        human_duration(connection.idle_ms),
        human_duration(connection.expires_ms),
    ]
}

/// The network's name; its number while no daemon tells names; none for the host's own flows.
fn network(connection: &Connection) -> String {
    match (&connection.network, connection.network_number) {
        (Some(name), _) => name.clone(),
        (None, 0) => "-".to_owned(),
        (None, number) => number.to_string(),
    }
}

/// What netpath makes of the side that it changes: the answers' destination, or where they come from.
fn translated(connection: &Connection) -> String {
    let Tuple { source, source_port, destination, destination_port } = connection.reply;
    if connection.kind == "published" { endpoint(source, source_port) } else { endpoint(destination, destination_port) }
}

/// `172.17.0.2:80`; without a port, as with the far side of an ICMP echo, the address alone.
fn endpoint(address: Ipv4Addr, port: u16) -> String {
    if port == 0 { address.to_string() } else { format!("{address}:{port}") }
}

/// Something of both directions, the original first.
fn both(connection: &Connection, show: impl Fn(&Side) -> String) -> String {
    let reply = connection.directions.reply.as_ref().map_or_else(|| "-".to_owned(), &show);
    format!("{}/{reply}", show(&connection.directions.original))
}

/// The first letters of what a direction has shown: `PSAF` has sent packets, a SYN, an ACK and a FIN.
fn flags(side: &Side) -> String {
    let letters: String = side.seen.iter().filter_map(|name| name.chars().next()).collect();
    if letters.is_empty() { "-".to_owned() } else { letters }
}

/// conntrack's word for how far a connection has come.
const fn status(connection: &Connection) -> &'static str {
    match (connection.replied, connection.assured) {
        (false, _) => "UNREPLIED",
        (true, true) => "ASSURED",
        (true, false) => "",
    }
}

/// What a line of conntrack tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'line> {
    pub(super) protocol: u8,
    /// Seconds; conntrack leaves out what has no more.
    pub(super) timeout: Option<u64>,
    pub(super) state: &'line str,
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    pub(super) replied: bool,
    pub(super) assured: bool,
}

/// The lines of `conntrack -L`. netpath has neither marks nor users of an entry to count.
pub(super) fn conntrack(connections: &[Connection]) -> String {
    let mut text = String::new();
    for connection in connections {
        let line = Line {
            protocol: connection.protocol_number,
            timeout: Some(connection.expires_ms / 1000),
            state: connection.state,
            original: connection.original,
            reply: connection.reply,
            replied: connection.replied,
            assured: connection.assured,
        };
        text += &format!("{} mark=0 use=1\n", line.text());
    }
    text
}

impl Line<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = format!("{:<8} {} ", conntrack_name(self.protocol), self.protocol);
        if let Some(timeout) = self.timeout {
            _ = write!(text, "{timeout} ");
        }
        if matches!(self.protocol, TCP | SCTP) {
            text = text + self.state + " ";
        }
        text += &tuple(self.protocol, self.original, EchoType::Request);
        if !self.replied {
            text += "[UNREPLIED] ";
        }
        text += &tuple(self.protocol, self.reply, EchoType::Reply);
        if self.assured {
            text += "[ASSURED] ";
        }
        text.truncate(text.trim_end().len());
        text
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const SCTP: u8 = 132;

/// The protocols that libnetfilter_conntrack has a name for, and netpath may meet.
const fn conntrack_name(protocol: u8) -> &'static str {
    match protocol {
        ICMP => "icmp",
        TCP => "tcp",
        UDP => "udp",
        GRE => "gre",
        SCTP => "sctp",
        _ => "unknown",
    }
}

/// The type of an ICMP echo message.
#[derive(Debug, Clone, Copy)]
enum EchoType {
    Request = 8,
    Reply = 0,
}

fn tuple(protocol: u8, tuple: Tuple, echo: EchoType) -> String {
    let Tuple { source, source_port, destination, destination_port } = tuple;
    let ports = match protocol {
        TCP | UDP | SCTP => format!("sport={source_port} dport={destination_port} "),
        GRE => format!("srckey={source_port:#x} dstkey={destination_port:#x} "),
        // The identifier takes the place of one port, the other is zero.
        ICMP => format!("type={} code=0 id={} ", echo as u8, source_port | destination_port),
        _ => String::new(),
    };
    format!("src={source} dst={destination} {ports}")
}

#[cfg(test)]
mod tests {
    use super::{super::connection::connections, super::sample::*, Line, conntrack, table, wide};
    use crate::cli::ct::connection::Names;

    #[test]
    fn both_directions_make_one_line() {
        let entries: Vec<_> = [published(), masqueraded(), pinged()].concat();
        let connections = connections(&entries, 110 * SECOND, &names());
        let lines = table(&connections);
        let cells: Vec<Vec<_>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells.len(), 4);
        assert_eq!(
            cells[1][..7],
            ["icmp", "ECHO", "172.17.0.2:77", "198.51.100.7", "->", "192.0.2.1:78", "masquerade"]
        );
        assert_eq!(
            cells[2][..6],
            ["tcp", "ESTABLISHED", "172.17.0.2:40000", "198.51.100.7:443", "->", "192.0.2.1:1025"]
        );
        assert_eq!(cells[2][6..9], ["masquerade", "bridge", "7s"]);
        assert_eq!(cells[3][..6], ["udp", "UNREPLIED", "198.51.100.7:5353", "192.0.2.1:53", "->", "172.17.0.2:5300"]);
    }

    #[test]
    fn without_a_daemon_the_network_is_a_number() {
        let connections = connections(&published(), 110 * SECOND, &Names::default());
        assert_eq!((connections[0].network.as_ref(), connections[0].network_number), (None, 1));
        assert!(table(&connections).lines().nth(1).unwrap().contains("published   1   "));
    }

    #[test]
    fn the_wide_table_ends_with_what_the_table_leaves_out() {
        let connections = connections(&masqueraded(), 110 * SECOND, &names());
        let text = wide(&connections);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[10..], ["198.51.100.7:443", "192.0.2.1:1025", "PSA/PSA", "ASSURED", "1", "eth0/eth0", "0/0"]);
        assert!(text.starts_with(table(&connections).lines().next().unwrap()));
    }

    #[test]
    fn lines_of_conntrack_are_conntracks() {
        let entries: Vec<_> = [published(), masqueraded(), pinged()].concat();
        let mut connections = connections(&entries, 110 * SECOND, &names());
        for (connection, seconds) in connections.iter_mut().zip([29, 431_999, 27]) {
            connection.expires_ms = seconds * 1000 + 999;
        }
        assert_eq!(
            conntrack(&connections),
            "icmp     1 29 src=172.17.0.2 dst=198.51.100.7 type=8 code=0 id=77 \
             src=198.51.100.7 dst=192.0.2.1 type=0 code=0 id=78 mark=0 use=1\n\
             tcp      6 431999 ESTABLISHED src=172.17.0.2 dst=198.51.100.7 sport=40000 dport=443 \
             src=198.51.100.7 dst=192.0.2.1 sport=443 dport=1025 [ASSURED] mark=0 use=1\n\
             udp      17 27 src=198.51.100.7 dst=192.0.2.1 sport=5353 dport=53 [UNREPLIED] \
             src=172.17.0.2 dst=198.51.100.7 sport=5300 dport=5353 mark=0 use=1\n"
        );
    }

    #[test]
    fn protocols_without_ports_and_without_time_leave_them_out() {
        let connection = &connections(&published(), 110 * SECOND, &names())[0];
        let line = |protocol| Line {
            protocol,
            timeout: None,
            state: "ESTABLISHED",
            original: connection.original,
            reply: connection.reply,
            replied: true,
            assured: false,
        };
        assert_eq!(line(50).text(), "unknown  50 src=198.51.100.7 dst=192.0.2.1 src=172.17.0.2 dst=198.51.100.7");
        assert_eq!(
            line(132).text(),
            "sctp     132 ESTABLISHED src=198.51.100.7 dst=192.0.2.1 sport=5353 dport=53 \
             src=172.17.0.2 dst=198.51.100.7 sport=5300 dport=5353"
        );
        assert!(line(47).text().contains("srckey=0x14e9 dstkey=0x35 "));
    }
}
