//! `netpath ports`: published ports, from the pins; the daemon, when it answers, adds containers' names.

use std::{collections::BTreeMap, net::Ipv4Addr};

use netpath_common::abi::{Published, PublishedKey};
use serde::Serialize;

use super::{
    args::Global,
    exit::Exit,
    output::{Table, protocol_name, show},
};

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Port {
    host_address: Ipv4Addr,
    host_port: u16,
    protocol: &'static str,
    container_address: Ipv4Addr,
    container_port: u16,
    /// Absent while no daemon answers.
    container: Option<String>,
}

pub(super) async fn run(global: &Global) -> anyhow::Result<Exit> {
    let published = global.pins()?.published()?;
    // Without a daemon the ports are still what they are, only nameless.
    let endpoints = global.client().endpoints().await.unwrap_or_default();
    let names = endpoints.into_iter().map(|endpoint| (endpoint.address, endpoint.container_name)).collect();
    show(global.output, &report(&published, &names), |ports| table(ports))?;
    Ok(Exit::Ok)
}

/// Ports in the order of their host addresses and numbers.
fn report(published: &[(PublishedKey, Published)], names: &BTreeMap<Ipv4Addr, String>) -> Vec<Port> {
    let port = |(key, target): &(PublishedKey, Published)| {
        let container_address = target.address.into();
        Port {
            host_address: key.address.into(),
            host_port: u16::from_be_bytes(key.port),
            protocol: protocol_name(key.protocol),
            container_address,
            container_port: u16::from_be_bytes(target.port),
            container: names.get(&container_address).cloned(),
        }
    };
    let mut ports: Vec<_> = published.iter().map(port).collect();
    ports.sort();
    ports
}

/// Ports that follow each other on both sides share a line.
fn table(ports: &[Port]) -> String {
    let mut table = Table::new(["HOST ADDRESS", "PORT", "PROTO", "CONTAINER ADDRESS", "CONTAINER"]);
    let mut by_protocol: Vec<_> = ports.iter().collect();
    by_protocol.sort_by_key(|port| (port.host_address, port.protocol, port.host_port));
    for run in by_protocol.chunk_by(|one, next| follows(one, next)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        table.row([
            first.host_address.to_string(),
            range(first.host_port, last.host_port),
            first.protocol.to_owned(),
            format!("{}:{}", first.container_address, range(first.container_port, last.container_port)),
            first.container.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn follows(one: &Port, next: &Port) -> bool {
    let shared = |port: &Port| (port.host_address, port.protocol, port.container_address);
    shared(one) == shared(next)
        && one.host_port.checked_add(1) == Some(next.host_port)
        && one.container_port.checked_add(1) == Some(next.container_port)
}

fn range(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use netpath_common::abi::{Published, PublishedKey};
    use serde_json::json;

    use super::{report, table};

    fn published(host: [u8; 4], port: u16, protocol: u8, container: [u8; 4], inner: u16) -> (PublishedKey, Published) {
        (
            PublishedKey { address: host, port: port.to_be_bytes(), protocol, reserved: 0 },
            Published { address: container, port: inner.to_be_bytes(), reserved: [0; 2] },
        )
    }

    const ANY: [u8; 4] = [0; 4];
    const WEB: [u8; 4] = [172, 17, 0, 2];

    fn names() -> BTreeMap<Ipv4Addr, String> {
        BTreeMap::from([(WEB.into(), "web".to_owned())])
    }

    #[test]
    fn ranges_share_a_line_of_the_table_but_not_of_the_json() {
        let mut pinned: Vec<_> = (5000..5100).rev().map(|port| published(ANY, port, 17, WEB, port)).collect();
        pinned.extend((5000..5003).map(|port| published(ANY, port, 6, WEB, port)));
        pinned.push(published(ANY, 8080, 6, WEB, 80));
        pinned.push(published(ANY, 8081, 6, WEB, 90));
        pinned.push(published([127, 0, 0, 1], 8080, 6, [172, 17, 0, 9], 80));
        let ports = report(&pinned, &names());
        assert_eq!(ports.len(), 106);
        assert_eq!(
            table(&ports),
            "HOST ADDRESS   PORT        PROTO   CONTAINER ADDRESS      CONTAINER\n\
             0.0.0.0        5000-5002   tcp     172.17.0.2:5000-5002   web\n\
             0.0.0.0        8080        tcp     172.17.0.2:80          web\n\
             0.0.0.0        8081        tcp     172.17.0.2:90          web\n\
             0.0.0.0        5000-5099   udp     172.17.0.2:5000-5099   web\n\
             127.0.0.1      8080        tcp     172.17.0.9:80          -\n"
        );
    }

    #[test]
    fn json_names_every_field() {
        let ports = report(&[published(ANY, 8080, 6, WEB, 80)], &names());
        let expected = json!([{
            "host_address": "0.0.0.0", "host_port": 8080, "protocol": "tcp",
            "container_address": "172.17.0.2", "container_port": 80, "container": "web",
        }]);
        assert_eq!(serde_json::to_value(&ports).unwrap(), expected);
        let nameless = report(&[published(ANY, 8080, 6, WEB, 80)], &BTreeMap::new());
        assert_eq!(serde_json::to_value(&nameless).unwrap()[0]["container"], json!(null));
    }
}
