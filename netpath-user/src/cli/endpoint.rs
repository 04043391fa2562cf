//! `netpath endpoint ls`: containers' addresses, and the host side of their veths, which docker never shows.
//!
//! The daemon's word when it answers; else what is pinned, without Docker's names.

use std::net::Ipv4Addr;

use clap::Args;

use super::{
    args::Global,
    exit::Exit,
    list::{self, ListArgs, Look},
    output::{Table, message},
};
use crate::{report::EndpointStatus, status::Status, subnet::Subnet};

/// `netpath endpoint ls`.
#[derive(Debug, Clone, Args)]
pub(super) struct EndpointListArgs {
    /// Endpoints that fit only: network=, container= (name, id or its beginning), name= (a part of the container's), id= (the
    /// endpoint's beginning), address= (or a subnet), mac=, veth=, attached=true|false
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<Filter>,
    #[command(flatten)]
    list: ListArgs,
}

/// A property that endpoints are chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Network(String),
    Container(String),
    Name(String),
    Id(String),
    Address(Subnet),
    Mac(String),
    Veth(String),
    Attached(bool),
}

fn filter(text: &str) -> Result<Filter, String> {
    let keys = ["network", "container", "name", "id", "address", "mac", "veth", "attached"];
    let (key, value) = list::key_value(text, &keys)?;
    Ok(match key {
        "network" => Filter::Network(value.to_owned()),
        "container" => Filter::Container(value.to_owned()),
        "name" => Filter::Name(value.to_owned()),
        "id" => Filter::Id(value.to_owned()),
        "address" => Filter::Address(value.parse()?),
        "mac" => Filter::Mac(value.to_ascii_lowercase()),
        "veth" => Filter::Veth(value.to_owned()),
        _ => Filter::Attached(list::switch(value)?),
    })
}

impl Filter {
    /// Whether only the daemon can answer it.
    const fn needs_names(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Container(_) | Self::Name(_) | Self::Id(_))
    }

    fn fits(&self, endpoint: &EndpointStatus) -> bool {
        match self {
            Self::Network(wanted) => list::is_meant(wanted, &endpoint.network_name, &endpoint.network_id),
            Self::Container(wanted) => list::is_meant(wanted, &endpoint.container_name, &endpoint.container_id),
            Self::Name(part) => endpoint.container_name.contains(part),
            Self::Id(beginning) => endpoint.endpoint_id.starts_with(beginning),
            Self::Address(subnet) => subnet.contains(endpoint.address),
            Self::Mac(mac) => endpoint.mac == *mac,
            Self::Veth(veth) => endpoint.veth == *veth,
            Self::Attached(attached) => endpoint.attached == *attached,
        }
    }
}

pub(super) async fn list(global: &Global, args: &EndpointListArgs) -> anyhow::Result<Exit> {
    let mut endpoints = match global.client().endpoints().await {
        Ok(endpoints) => endpoints,
        Err(error) if args.filters.iter().any(Filter::needs_names) => {
            return Err(anyhow::Error::from(error).context("names and ids are the daemon's to know"));
        }
        Err(error) => {
            let endpoints = Status::of_pins(&global.pins()?)?.endpoints;
            message(format_args!("{error}; this is what is pinned"));
            endpoints
        }
    };
    endpoints.retain(|endpoint| list::fits(&args.filters, |filter| filter.fits(endpoint)));
    args.list.show(global.output, &endpoints, id, table)?;
    Ok(Exit::Ok)
}

/// What `-q` prints. What is pinned has no id; then it is the address.
fn id(endpoint: &EndpointStatus, look: Look) -> String {
    match endpoint.endpoint_id.as_str() {
        "" => Ipv4Addr::to_string(&endpoint.address),
        id => look.id(id),
    }
}

/// Endpoints as `netpath endpoint ls` and `netpath net inspect` show them.
pub(super) fn table(endpoints: &[EndpointStatus], look: Look) -> String {
    let mut header = vec!["CONTAINER ID", "CONTAINER", "NETWORK", "ADDRESS", "MAC", "VETH", "ATTACHED"];
    if look.wide {
        header.extend(["ENDPOINT ID", "NETWORK ID", "IFINDEX"]);
    }
    let mut table = Table::with_header(header);
    for endpoint in endpoints {
        let mut row = vec![
            look.id(&endpoint.container_id),
            endpoint.container_name.clone(),
            endpoint.network_name.clone(),
            endpoint.address.to_string(),
            endpoint.mac.clone(),
            endpoint.veth.clone(),
            if endpoint.attached { "yes" } else { "no" }.to_owned(),
        ];
        if look.wide {
            row.extend([look.id(&endpoint.endpoint_id), look.id(&endpoint.network_id), endpoint.ifindex.to_string()]);
        }
        table.add(row);
    }
    table.to_string()
}

/// An endpoint for tests.
#[cfg(test)]
pub(super) fn sample() -> EndpointStatus {
    EndpointStatus {
        endpoint_id: "e0123456789abcdef".to_owned(),
        container_id: "c0123456789abcdef".to_owned(),
        container_name: "web-1".to_owned(),
        network_id: "d0123456789abcdef".to_owned(),
        network_name: "front".to_owned(),
        address: [172, 18, 0, 2].into(),
        mac: "02:42:ac:12:00:02".to_owned(),
        veth: "veth1234567".to_owned(),
        ifindex: 9,
        attached: true,
    }
}

#[cfg(test)]
mod tests {
    use super::{EndpointStatus, Look, filter, id, sample, table};

    #[test]
    fn the_table_shows_the_veth_and_wide_all_ids() {
        assert_eq!(
            table(&[sample()], Look { wide: false, no_trunc: false }),
            "CONTAINER ID   CONTAINER   NETWORK   ADDRESS      MAC                 VETH          ATTACHED\n\
             c0123456789a   web-1       front     172.18.0.2   02:42:ac:12:00:02   veth1234567   yes\n"
        );
        let wide = table(&[sample()], Look { wide: true, no_trunc: true });
        for id in ["c0123456789abcdef", "d0123456789abcdef", "e0123456789abcdef"] {
            assert!(wide.contains(id), "{wide}");
        }
    }

    #[test]
    fn filters_choose() {
        for (text, expected) in [
            ("network=front", true),
            ("network=fron", false),
            ("network=d0123", true),
            ("container=web-1", true),
            ("container=c01", true),
            ("container=web", false),
            ("name=web", true),
            ("id=e01", true),
            ("address=172.18.0.2", true),
            ("address=172.18.0.0/24", true),
            ("address=172.17.0.0/16", false),
            ("mac=02:42:AC:12:00:02", true),
            ("veth=veth1234567", true),
            ("veth=veth", false),
            ("attached=false", false),
        ] {
            assert_eq!(filter(text).unwrap().fits(&sample()), expected, "{text}");
        }
        for text in ["address=nowhere", "attached=so", "driver=bridge"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_only_the_pins_know_goes_by_its_address() {
        let look = Look { wide: false, no_trunc: false };
        assert_eq!(id(&sample(), look), "e0123456789a");
        assert_eq!(id(&EndpointStatus { endpoint_id: String::new(), ..sample() }, look), "172.18.0.2");
    }
}
