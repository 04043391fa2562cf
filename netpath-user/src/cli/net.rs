//! `netpath net ls`: the networks that netpath carries. Only the daemon knows Docker's names for them.

use super::{
    args::Global,
    exit::Exit,
    output::{Table, short_id, show},
};
use crate::status::Network;

pub(super) async fn list(global: &Global) -> anyhow::Result<Exit> {
    let networks = global.client().networks().await?;
    show(global.output, &networks, |networks| table(networks))?;
    Ok(Exit::Ok)
}

/// Networks as `netpath net ls` and `netpath status` show them.
pub(super) fn table(networks: &[Network]) -> String {
    let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SUBNET", "BRIDGE", "DATAPATH", "ENDPOINTS"]);
    for Network { network, datapath } in networks {
        table.row([
            short_id(&network.id),
            network.name.clone(),
            network.driver.clone(),
            network.subnets.join(","),
            network.bridge.clone(),
            datapath.clone().unwrap_or_else(|| "off".to_owned()),
            network.endpoints.to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::table;
    use crate::{report::NetworkStatus, status::Network};

    #[test]
    fn networks_look_like_dockers_with_a_datapath() {
        let bridge = NetworkStatus {
            id: "8a1c23f10f4e5d6c7b8a".to_owned(),
            name: "bridge".to_owned(),
            driver: "bridge".to_owned(),
            bridge: "docker0".to_owned(),
            subnets: vec!["172.17.0.0/16".to_owned()],
            endpoints: 2,
            ..Default::default()
        };
        let unnamed = NetworkStatus { bridge: "br-1".to_owned(), endpoints: 1, ..Default::default() };
        let networks = [
            Network { network: bridge, datapath: Some("tcx".to_owned()) },
            Network { network: unnamed, datapath: None },
        ];
        assert_eq!(
            table(&networks),
            "NETWORK ID     NAME     DRIVER   SUBNET          BRIDGE    DATAPATH   ENDPOINTS\n\
             8a1c23f10f4e   bridge   bridge   172.17.0.0/16   docker0   tcx        2\n\
             -              -        -        -               br-1      off        1\n"
        );
    }

    #[test]
    fn json_keeps_the_networks_fields_at_one_level() {
        let network = Network {
            network: NetworkStatus { name: "bridge".to_owned(), ..Default::default() },
            datapath: Some("tcx".to_owned()),
        };
        let json = serde_json::to_value(network).unwrap();
        assert_eq!((json["name"].as_str(), json["datapath"].as_str()), (Some("bridge"), Some("tcx")));
    }
}
