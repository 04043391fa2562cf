//! `netpath ct`: tracked connections. From the pins, so that it works without a daemon; when one answers, it adds networks'
//! names.

mod connection;
mod events;
mod filter;
mod format;
mod remove;
#[cfg(test)]
mod sample;
mod state;
mod stats;

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::connection::{Connection, Names};
#[cfg(test)]
pub(super) use self::{
    connection::Connection as ListedConnection,
    events::{Lost, Told},
    remove::Removed,
    stats::Stats,
};
pub(super) use self::{events::EventsArgs, filter::FilterArgs};
use super::{
    args::{CtVerb, Global},
    exit::Exit,
    output::{Format, show},
};
use crate::dataplane::Pins;
use crate::{control::ClientError, status::Network};

/// How many connections there are.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Count {
    /// Connections in the table.
    count: u64,
    /// How many it holds.
    capacity: u32,
}

pub(super) async fn run(global: &Global, verb: CtVerb) -> anyhow::Result<Exit> {
    match verb {
        CtVerb::Ls(filter) => list(global, &filter).await,
        CtVerb::Count => count(global),
        CtVerb::Rm(filter) => remove::remove(global, &filter).await,
        CtVerb::Flush => remove::flush(global),
        CtVerb::Stats => stats::run(global),
        CtVerb::Events(args) => events::run(global, &args).await,
    }
}

async fn list(global: &Global, filter: &FilterArgs) -> anyhow::Result<Exit> {
    let Selection { connections } = Selection::read(global, filter).await?;
    let render = match global.output {
        Format::Wide => format::wide,
        Format::Conntrack => format::conntrack,
        Format::Table | Format::Json => format::table,
    };
    show(global.output, connections.as_slice(), render)?;
    Ok(Exit::Ok)
}

fn count(global: &Global) -> anyhow::Result<Exit> {
    let pins = global.pins()?;
    let count = Count { count: pins.flows_used()?, capacity: pins.flows_capacity() };
    show(global.output, &count, |count| format!("{}\n", count.count))?;
    Ok(Exit::Ok)
}

/// The connections that a filter chooses.
struct Selection {
    connections: Vec<Connection>,
}

impl Selection {
    async fn read(global: &Global, filter: &FilterArgs) -> anyhow::Result<Self> {
        let pins = global.pins()?;
        let (wanted, networks) = numbers(filter.networks(), global.client().networks().await)?;
        let entries = pins.flows()?;
        // Read after the table: no entry is newer than the clock.
        let now_ns = monotonic_ns()?;
        let hops = connection::hops(&entries).into_iter();
        let names = Names {
            networks,
            interfaces: hops.filter_map(|hop| Some((hop, pins.hop_interface(hop)?))).collect(),
            timeouts: pins.timeouts()?,
        };
        let mut connections = connection::connections(&entries, now_ns, &names);
        connections.retain(|connection| filter.fits(connection, &wanted));
        Ok(Self { connections })
    }
}

/// The names of networks, as far as a daemon answers, and the timeouts.
async fn network_names(global: &Global, pins: &Pins) -> anyhow::Result<Names> {
    let networks = by_number(global.client().networks().await.unwrap_or_default());
    Ok(Names { networks, timeouts: pins.timeouts()?, ..Names::default() })
}

/// Docker's names of networks.
fn by_number(networks: Vec<Network>) -> BTreeMap<u16, String> {
    networks.into_iter().map(|network| (network.network.number, network.network.name)).collect()
}

/// The networks that are known, and the numbers of those that are named by name, id or number. A name that is a number is
/// a name. Without a daemon connections are still what they are, only their networks are nameless.
///
/// # Errors
///
/// When there is no such network, or nobody who knows names.
fn numbers(
    wanted: &[String],
    answer: Result<Vec<Network>, ClientError>,
) -> anyhow::Result<(Vec<u16>, BTreeMap<u16, String>)> {
    let (known, nobody) = match answer {
        Ok(known) => (known, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut numbers = Vec::new();
    for text in wanted {
        match (find(&known, text), text.parse(), nobody.is_some()) {
            (Some(number), _, _) | (None, Ok(number), _) => numbers.push(number),
            (None, Err(_), false) => {
                bail!("netpath carries no network {text}; `netpath net ls` lists those that it does")
            }
            (None, Err(_), true) => {
                let what = || format!("without a daemon networks have numbers, not names such as {text}");
                return nobody.map_or(Ok((numbers, BTreeMap::new())), |error| Err(error).with_context(what));
            }
        }
    }
    Ok((numbers, by_number(known)))
}

/// The number of the network with this name or id.
fn find(known: &[Network], text: &str) -> Option<u16> {
    /// The length of an id as Docker shows it.
    const SHORT_ID: usize = 12;
    let is_id = |id: &str| text.len() >= SHORT_ID && id.starts_with(text);
    let named = known.iter().map(|network| &network.network).find(|one| one.name == text || is_id(&one.id))?;
    Some(named.number)
}

/// The clock of entries and events.
fn monotonic_ns() -> anyhow::Result<u64> {
    let now =
        std::time::Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the monotonic clock")?);
    u64::try_from(now.as_nanos()).context("the monotonic clock has run for 584 years")
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use super::{Exit, numbers};
    use crate::{control::ClientError, report::NetworkStatus, status::Network};

    fn network(number: u16, name: &str, id: &str) -> Network {
        let network = NetworkStatus { number, name: name.to_owned(), id: id.to_owned(), ..NetworkStatus::default() };
        Network { network, datapath: None }
    }

    #[test]
    fn networks_are_found_by_name_id_and_number() {
        let find = |text: &str| {
            let known = vec![network(1, "bridge", "0123456789abcdef"), network(2, "7", "fedcba9876543210")];
            numbers(&[text.to_owned()], Ok(known)).map(|(numbers, _)| numbers).map_err(|error| error.to_string())
        };
        assert_eq!(find("bridge"), Ok(vec![1]));
        assert_eq!(find("0123456789ab"), Ok(vec![1]));
        assert_eq!(find("2"), Ok(vec![2]));
        assert_eq!(find("7"), Ok(vec![2]));
        assert_eq!(find("0123"), Ok(vec![123]));
        assert!(find("other").unwrap_err().contains("net ls"));
    }

    #[test]
    fn without_a_daemon_only_numbers_are_known() {
        let nobody = || {
            let source = io::Error::from(io::ErrorKind::NotFound);
            Err(ClientError::Unreachable { path: PathBuf::from("/s"), source })
        };
        assert_eq!(numbers(&["3".to_owned()], nobody()).unwrap().0, [3]);
        let error = numbers(&["bridge".to_owned()], nobody()).unwrap_err();
        assert!(error.to_string().contains("without a daemon"), "{error}");
        assert_eq!(Exit::of(&error), Exit::Unreachable);
    }
}
