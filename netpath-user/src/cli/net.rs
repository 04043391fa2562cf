//! `netpath net ls`: the networks that netpath manages. Only the daemon knows Docker's names for them.

use clap::Args;

use super::{
    args::Global,
    exit::Exit,
    list::{self, ListArgs, Look},
    output::Table,
};
use crate::status::Network;

/// `netpath net ls`.
#[derive(Debug, Clone, Args)]
pub(super) struct NetListArgs {
    /// Networks that fit only: name= (a part), id= (its beginning), driver=, bridge=, internal=true|false, refused=true|false
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<Filter>,
    #[command(flatten)]
    list: ListArgs,
}

/// A property that networks are chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Name(String),
    Id(String),
    Driver(String),
    Bridge(String),
    Internal(bool),
    Refused(bool),
}

fn filter(text: &str) -> Result<Filter, String> {
    let (key, value) = list::key_value(text, &["name", "id", "driver", "bridge", "internal", "refused"])?;
    Ok(match key {
        "name" => Filter::Name(value.to_owned()),
        "id" => Filter::Id(value.to_owned()),
        "driver" => Filter::Driver(value.to_owned()),
        "bridge" => Filter::Bridge(value.to_owned()),
        "internal" => Filter::Internal(list::switch(value)?),
        _ => Filter::Refused(list::switch(value)?),
    })
}

impl Filter {
    fn fits(&self, Network { network, .. }: &Network) -> bool {
        match self {
            Self::Name(part) => network.name.contains(part),
            Self::Id(beginning) => network.id.starts_with(beginning),
            Self::Driver(driver) => network.driver == *driver,
            Self::Bridge(bridge) => network.bridge == *bridge,
            Self::Internal(internal) => network.internal == *internal,
            Self::Refused(refused) => network.refused.is_empty() != *refused,
        }
    }
}

pub(super) async fn list(global: &Global, args: &NetListArgs) -> anyhow::Result<Exit> {
    let mut networks = global.client().networks().await?;
    networks.retain(|network| list::fits(&args.filters, |filter| filter.fits(network)));
    args.list.show(global.output, &networks, |network, look| look.id(&network.network.id), table)?;
    Ok(Exit::Ok)
}

/// How a network's packets are carried, in a word.
pub(super) fn datapath(Network { network, datapath }: &Network) -> String {
    match datapath {
        _ if !network.refused.is_empty() => "refused".to_owned(),
        Some(datapath) => datapath.clone(),
        None => "off".to_owned(),
    }
}

/// Networks as `netpath net ls` and `netpath status` show them.
pub(super) fn table(networks: &[Network], look: Look) -> String {
    let mut header = vec!["NETWORK ID", "NAME", "DRIVER", "SUBNET", "BRIDGE", "DATAPATH", "ENDPOINTS"];
    if look.wide {
        header.extend(["GATEWAY", "INTERNAL", "NUMBER", "IFINDEX", "OPTIONS"]);
    }
    let mut table = Table::with_header(header);
    for of_network in networks {
        let network = &of_network.network;
        let mut row = vec![
            look.id(&network.id),
            network.name.clone(),
            network.driver.clone(),
            network.subnets.join(","),
            network.bridge.clone(),
            datapath(of_network),
            network.endpoints.to_string(),
        ];
        if look.wide {
            let options: Vec<_> = network.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.extend([
                network.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
                if network.internal { "yes" } else { "no" }.to_owned(),
                network.number.to_string(),
                network.bridge_ifindex.map(|ifindex| ifindex.to_string()).unwrap_or_default(),
                options.join(","),
            ]);
        }
        table.add(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::{Filter, filter, table};
    use crate::{cli::list::Look, report::NetworkStatus, status::Network};

    fn bridge() -> Network {
        let network = NetworkStatus {
            id: "8a1c23f10f4e5d6c7b8a".to_owned(),
            name: "bridge".to_owned(),
            driver: "bridge".to_owned(),
            bridge: "docker0".to_owned(),
            subnets: vec!["172.17.0.0/16".to_owned()],
            endpoints: 2,
            ..Default::default()
        };
        Network { network, datapath: Some("tcx".to_owned()) }
    }

    #[test]
    fn networks_look_like_dockers_with_a_datapath() {
        let unnamed = NetworkStatus { bridge: "br-1".to_owned(), endpoints: 1, ..Default::default() };
        let refused =
            NetworkStatus { name: "web".to_owned(), refused: vec!["a rule".to_owned()], ..Default::default() };
        let networks = [
            bridge(),
            Network { network: unnamed, datapath: None },
            Network { network: refused, datapath: Some("tcx".to_owned()) },
        ];
        assert_eq!(
            table(&networks, Look { wide: false, no_trunc: false }),
            "NETWORK ID     NAME     DRIVER   SUBNET          BRIDGE    DATAPATH   ENDPOINTS\n\
             8a1c23f10f4e   bridge   bridge   172.17.0.0/16   docker0   tcx        2\n\
             -              -        -        -               br-1      off        1\n\
             -              web      -        -               -         refused    0\n"
        );
        let wide = table(&networks[..1], Look { wide: true, no_trunc: true });
        assert!(wide.contains("8a1c23f10f4e5d6c7b8a") && wide.contains("INTERNAL"), "{wide}");
    }

    #[test]
    fn filters_are_dockers() {
        for (text, expected) in [
            ("name=ridg", true),
            ("name=web", false),
            ("id=8a1c", true),
            ("id=1c", false),
            ("driver=bridge", true),
            ("driver=macvlan", false),
            ("bridge=docker0", true),
            ("internal=false", true),
            ("internal=1", false),
            ("refused=false", true),
        ] {
            assert_eq!(filter(text).unwrap().fits(&bridge()), expected, "{text}");
        }
        assert_eq!(filter("internal=true"), Ok(Filter::Internal(true)));
        assert!(filter("internal=perhaps").is_err());
        assert!(filter("label=x").is_err());
    }

    #[test]
    fn json_keeps_the_networks_fields_at_one_level() {
        let json = serde_json::to_value(bridge()).unwrap();
        assert_eq!((json["name"].as_str(), json["datapath"].as_str()), (Some("bridge"), Some("tcx")));
    }
}
