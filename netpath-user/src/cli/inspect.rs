//! `netpath net inspect`: all that is known of networks, their containers and published ports included.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::{
    args::Global,
    endpoint,
    exit::Exit,
    list::{self, Look},
    net::datapath,
    output::{Format, message, show},
    ports::{self, Port},
};
use crate::{dataplane::PinsError, report::EndpointStatus, status::Network};

/// `netpath net inspect`.
#[derive(Debug, Clone, Args)]
pub(super) struct InspectArgs {
    /// Networks by name, by id, or by the beginning of their id
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// All that is known of a network.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Inspection {
    /// The network itself.
    #[serde(flatten)]
    network: Network,
    /// Its containers' addresses that are in the dataplane.
    containers: Vec<EndpointStatus>,
    /// Published ports that lead to them.
    published: Vec<Port>,
}

pub(super) async fn run(global: &Global, args: &InspectArgs) -> anyhow::Result<Exit> {
    let client = global.client();
    let networks = client.networks().await?;
    let endpoints = client.endpoints().await?;
    let published = match crate::dataplane::Pins::open(&global.pin_dir) {
        Ok(pins) => ports::report(&pins.published()?, &endpoints),
        // The daemon runs and hasn't attached anything yet.
        Err(PinsError::Absent(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let mut exit = Exit::Ok;
    for wanted in &args.networks {
        match list::find("network", &networks, wanted, |at| (&at.network.name, &at.network.id)) {
            Ok(network) => found.push(inspection(network, &endpoints, &published)),
            // As docker does: the others are shown all the same.
            Err(error) => {
                message(error);
                exit = Exit::Failure;
            }
        }
    }
    let look = Look { wide: global.output == Format::Wide, no_trunc: true };
    show(global.output, found.as_slice(), |found| {
        found.iter().map(|inspection| text(inspection, look)).collect::<Vec<_>>().join("\n")
    })?;
    Ok(exit)
}

fn inspection(network: &Network, endpoints: &[EndpointStatus], published: &[Port]) -> Inspection {
    let containers: Vec<_> =
        endpoints.iter().filter(|endpoint| endpoint.network_id == network.network.id).cloned().collect();
    let leads_here = |port: &&Port| containers.iter().any(|endpoint| endpoint.address == port.container_address);
    let published = published.iter().filter(leads_here).cloned().collect();
    Inspection { network: network.clone(), containers, published }
}

fn text(Inspection { network, containers, published }: &Inspection, look: Look) -> String {
    let status = &network.network;
    let unknown = || "-".to_owned();
    let mut lines = vec![
        ("Name", status.name.clone()),
        ("Id", status.id.clone()),
        ("Driver", status.driver.clone()),
        ("Bridge", bridge(status.bridge_ifindex, &status.bridge)),
        ("Datapath", datapath(network)),
        ("Subnets", status.subnets.join(", ")),
        ("Gateway", status.gateway.map_or_else(unknown, |gateway| gateway.to_string())),
        ("Internal", if status.internal { "yes" } else { "no" }.to_owned()),
        ("Number", status.number.to_string()),
    ];
    lines.extend(status.refused.iter().map(|reason| ("Refused", reason.clone())));
    let mut text: String = lines.iter().map(|(label, value)| format!("{:<11}{value}\n", format!("{label}:"))).collect();
    text += &options(&status.options);
    if !containers.is_empty() {
        text = text + "\n" + &endpoint::table(containers, Look { no_trunc: false, ..look });
    }
    if !published.is_empty() {
        text = text + "\n" + &ports::table(published, Look { no_trunc: false, ..look });
    }
    text
}

fn bridge(ifindex: Option<u32>, name: &str) -> String {
    ifindex.map_or_else(|| format!("{name} (not there)"), |ifindex| format!("{name} (interface {ifindex})"))
}

fn options(options: &BTreeMap<String, String>) -> String {
    let lines = options.iter().map(|(key, value)| format!("{:<11}{key} = {value}\n", "Option:"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::{Look, inspection, text};
    use crate::{
        cli::{endpoint::sample, ports::Port},
        report::NetworkStatus,
        status::Network,
    };

    fn network() -> Network {
        let network = NetworkStatus {
            id: "n".repeat(64),
            name: "web".to_owned(),
            driver: "bridge".to_owned(),
            bridge: "br-1".to_owned(),
            bridge_ifindex: Some(7),
            subnets: vec!["172.18.0.0/16".to_owned()],
            gateway: Some([172, 18, 0, 1].into()),
            options: [("full_cone".to_owned(), "true".to_owned())].into(),
            refused: vec!["iptables -t filter -A DOCKER-USER -j DROP".to_owned()],
            ..Default::default()
        };
        Network { network, datapath: Some("tcx".to_owned()) }
    }

    #[test]
    fn a_network_has_its_own_containers_and_ports_only() {
        let mine = crate::report::EndpointStatus { network_id: "n".repeat(64), ..sample() };
        let others = crate::report::EndpointStatus { address: [172, 17, 0, 9].into(), ..sample() };
        let port = |container_address| Port { container_address, ..crate::cli::ports::sample() };
        let published = [port(mine.address), port(others.address)];
        let inspection = inspection(&network(), &[mine.clone(), others], &published);
        assert_eq!(inspection.containers, [mine]);
        assert_eq!(inspection.published, published[..1]);
        let text = text(&inspection, Look { wide: false, no_trunc: true });
        for expected in ["Name:      web\n", "Refused:   iptables", "full_cone = true", "veth1234567", "8080"] {
            assert!(text.contains(expected), "{expected} isn't in {text}");
        }
    }
}
