//! `netpath ports`: published ports, from the pins; the daemon, when it answers, adds containers' names.

use std::{collections::BTreeMap, net::Ipv4Addr, ops::RangeInclusive};

use clap::Args;
use serde::Serialize;

use super::{
    args::Global,
    exit::Exit,
    list::{self, ListArgs, Look},
    output::{Table, protocol_name},
};
use crate::{
    desired::{
        model::Protocol,
        ports::{PortBlock, PublishedPort, PublishedTarget},
    },
    report::EndpointStatus,
    subnet::Subnet,
};

/// `netpath ports`.
#[derive(Debug, Clone, Args)]
pub(super) struct PortsArgs {
    /// Ports that fit only: container=, network= (name, id or its beginning), publish=, target= (PORT[-PORT][/PROTOCOL]),
    /// proto=, address= (the host's, or a subnet)
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<Filter>,
    #[command(flatten)]
    list: ListArgs,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Port {
    pub(super) host_address: Ipv4Addr,
    pub(super) host_port: u16,
    pub(super) protocol: &'static str,
    pub(super) container_address: Ipv4Addr,
    pub(super) container_port: u16,
    /// The container's name; absent while no daemon answers, as the rest.
    pub(super) container: Option<String>,
    /// The container's id.
    pub(super) container_id: Option<String>,
    /// The name of the network that the port leads to.
    pub(super) network: Option<String>,
    /// That network's id.
    pub(super) network_id: Option<String>,
}

/// A property that ports are chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Container(String),
    Network(String),
    Publish(RangeInclusive<u16>, Option<String>),
    Target(RangeInclusive<u16>, Option<String>),
    Protocol(String),
    Address(Subnet),
}

fn filter(text: &str) -> Result<Filter, String> {
    let keys = ["container", "network", "publish", "target", "proto", "address"];
    let (key, value) = list::key_value(text, &keys)?;
    Ok(match key {
        "container" => Filter::Container(value.to_owned()),
        "network" => Filter::Network(value.to_owned()),
        "publish" => port_range(value).map(|(ports, protocol)| Filter::Publish(ports, protocol))?,
        "target" => port_range(value).map(|(ports, protocol)| Filter::Target(ports, protocol))?,
        "proto" => Filter::Protocol(publishable(value)?),
        _ => Filter::Address(value.parse()?),
    })
}

/// `80`, `8000-8099/tcp`.
fn port_range(text: &str) -> Result<(RangeInclusive<u16>, Option<String>), String> {
    let (ports, protocol) = text.split_once('/').map_or((text, None), |(ports, protocol)| (ports, Some(protocol)));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} isn't a port; ports are 0 to 65535"));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range ends ({last}) before it begins ({first})"));
    }
    Ok((first..=last, protocol.map(publishable).transpose()?))
}

/// The name of a protocol that ports can be published for.
fn publishable(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let known = Protocol::ALL.iter().any(|protocol| protocol_name(protocol.number()) == name);
    if known { Ok(name) } else { Err(format!("{text:?} is none of tcp, udp, sctp")) }
}

impl Filter {
    /// Whether only the daemon can answer it.
    const fn needs_names(&self) -> bool {
        matches!(self, Self::Container(_) | Self::Network(_))
    }

    fn fits(&self, port: &Port) -> bool {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let protocol = |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| port.protocol == wanted);
        match self {
            Self::Container(wanted) => list::is_meant(wanted, &text(&port.container), &text(&port.container_id)),
            Self::Network(wanted) => list::is_meant(wanted, &text(&port.network), &text(&port.network_id)),
            Self::Publish(ports, of) => ports.contains(&port.host_port) && protocol(of),
            Self::Target(ports, of) => ports.contains(&port.container_port) && protocol(of),
            Self::Protocol(wanted) => port.protocol == wanted,
            Self::Address(subnet) => subnet.contains(port.host_address),
        }
    }
}

pub(super) async fn run(global: &Global, args: &PortsArgs) -> anyhow::Result<Exit> {
    let published = global.pins()?.published()?;
    let endpoints = match global.client().endpoints().await {
        Err(error) if args.filters.iter().any(Filter::needs_names) => {
            return Err(anyhow::Error::from(error).context("names and ids are the daemon's to know"));
        }
        // Without a daemon the ports are still what they are, only nameless.
        endpoints => endpoints.unwrap_or_default(),
    };
    let mut ports = report(&published, &endpoints);
    ports.retain(|port| list::fits(&args.filters, |filter| filter.fits(port)));
    args.list.show(global.output, &ports, id, table)?;
    Ok(Exit::Ok)
}

/// What `-q` prints: ports have no other id.
fn id(port: &Port, _look: Look) -> String {
    format!("{}:{}/{}", port.host_address, port.host_port, port.protocol)
}

/// Ports in the order of their host addresses and numbers.
pub(super) fn report(published: &BTreeMap<PortBlock, PublishedTarget>, endpoints: &[EndpointStatus]) -> Vec<Port> {
    let owners: BTreeMap<_, _> = endpoints.iter().map(|endpoint| (endpoint.address, endpoint)).collect();
    let port = |(port, target): (PublishedPort, PublishedTarget)| {
        let of_owner = |text: fn(&EndpointStatus) -> &String| owners.get(&target.address).map(|at| text(at).clone());
        Port {
            host_address: port.address,
            host_port: port.port,
            protocol: protocol_name(port.protocol.number()),
            container_address: target.address,
            container_port: target.port,
            container: of_owner(|owner| &owner.container_name),
            container_id: of_owner(|owner| &owner.container_id),
            network: of_owner(|owner| &owner.network_name),
            network_id: of_owner(|owner| &owner.network_id),
        }
    };
    let singly = published.iter().flat_map(|(block, target)| block.ports(*target));
    let mut ports: Vec<_> = singly.map(port).collect();
    ports.sort();
    ports
}

/// Ports that follow each other on both sides share a line.
pub(super) fn table(ports: &[Port], look: Look) -> String {
    let mut header = vec!["HOST ADDRESS", "PORT", "PROTO", "CONTAINER ADDRESS", "CONTAINER"];
    if look.wide {
        header.extend(["CONTAINER ID", "NETWORK", "NETWORK ID"]);
    }
    let mut table = Table::with_header(header);
    let mut by_protocol: Vec<_> = ports.iter().collect();
    by_protocol.sort_by_key(|port| (port.host_address, port.protocol, port.host_port));
    for run in by_protocol.chunk_by(|one, next| follows(one, next)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let mut row = vec![
            first.host_address.to_string(),
            range(first.host_port, last.host_port),
            first.protocol.to_owned(),
            format!("{}:{}", first.container_address, range(first.container_port, last.container_port)),
            first.container.clone().unwrap_or_default(),
        ];
        if look.wide {
            row.extend([
                look.id(first.container_id.as_deref().unwrap_or_default()),
                first.network.clone().unwrap_or_default(),
                look.id(first.network_id.as_deref().unwrap_or_default()),
            ]);
        }
        table.add(row);
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

/// A port for tests.
#[cfg(test)]
pub(super) fn sample() -> Port {
    Port {
        host_address: Ipv4Addr::UNSPECIFIED,
        host_port: 8080,
        protocol: "tcp",
        container_address: [172, 18, 0, 2].into(),
        container_port: 80,
        container: Some("web-1".to_owned()),
        container_id: Some("c0123456789abcdef".to_owned()),
        network: Some("front".to_owned()),
        network_id: Some("d0123456789abcdef".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use serde_json::json;

    use super::{Look, filter, id, report, sample, table};
    use crate::{
        cli::endpoint,
        desired::{
            model::Protocol,
            ports::{PublishedPort, PublishedTarget, blocks},
        },
        report::EndpointStatus,
    };

    const TABLE: Look = Look { wide: false, no_trunc: false };

    fn published(
        address: Ipv4Addr,
        port: u16,
        protocol: Protocol,
        container: Ipv4Addr,
        inner: u16,
    ) -> (PublishedPort, PublishedTarget) {
        (PublishedPort { address, protocol, port }, PublishedTarget { address: container, port: inner })
    }

    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const WEB: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 9);

    fn endpoints() -> Vec<EndpointStatus> {
        vec![EndpointStatus { address: WEB, container_name: "web".to_owned(), ..endpoint::sample() }]
    }

    #[test]
    fn ranges_share_a_line_of_the_table_but_not_of_the_json() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let mut pinned: BTreeMap<_, _> = (5000..5100).map(|port| published(ANY, port, udp, WEB, port)).collect();
        pinned.extend((5000..5003).map(|port| published(ANY, port, tcp, WEB, port)));
        pinned.extend([published(ANY, 8080, tcp, WEB, 80), published(ANY, 8081, tcp, WEB, 90)]);
        pinned.extend([published(Ipv4Addr::LOCALHOST, 8080, tcp, OTHER, 80)]);
        let ports = report(&blocks(&pinned), &endpoints());
        assert_eq!(ports.len(), 106);
        assert_eq!(
            table(&ports, TABLE),
            "HOST ADDRESS   PORT        PROTO   CONTAINER ADDRESS      CONTAINER\n\
             0.0.0.0        5000-5002   tcp     172.17.0.2:5000-5002   web\n\
             0.0.0.0        8080        tcp     172.17.0.2:80          web\n\
             0.0.0.0        8081        tcp     172.17.0.2:90          web\n\
             0.0.0.0        5000-5099   udp     172.17.0.2:5000-5099   web\n\
             127.0.0.1      8080        tcp     172.17.0.9:80          -\n"
        );
        let wide = table(&ports, Look { wide: true, ..TABLE });
        assert!(wide.contains("c0123456789a   front     d0123456789a\n"), "{wide}");
    }

    #[test]
    fn filters_choose() {
        for (text, expected) in [
            ("container=web-1", true),
            ("container=c01", true),
            ("container=web", false),
            ("network=front", true),
            ("network=back", false),
            ("publish=8080", true),
            ("publish=8000-8099/TCP", true),
            ("publish=8080/udp", false),
            ("target=80", true),
            ("target=8080", false),
            ("proto=tcp", true),
            ("proto=sctp", false),
            ("address=0.0.0.0", true),
            ("address=127.0.0.0/8", false),
        ] {
            assert_eq!(filter(text).unwrap().fits(&sample()), expected, "{text}");
        }
        for text in ["publish=x", "publish=9-8", "publish=80/icmp", "proto=tpc", "address=web", "driver=bridge"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_names_every_field() {
        let one = blocks(&[published(ANY, 8080, Protocol::Tcp, WEB, 80)].into());
        let ports = report(&one, &endpoints());
        let expected = json!([{
            "host_address": "0.0.0.0", "host_port": 8080, "protocol": "tcp",
            "container_address": "172.17.0.2", "container_port": 80, "container": "web",
            "container_id": "c0123456789abcdef", "network": "front", "network_id": "d0123456789abcdef",
        }]);
        assert_eq!(serde_json::to_value(&ports).unwrap(), expected);
        assert_eq!(id(&ports[0], TABLE), "0.0.0.0:8080/tcp");
        let nameless = report(&one, &[]);
        assert_eq!(serde_json::to_value(&nameless).unwrap()[0]["container"], json!(null));
    }
}
