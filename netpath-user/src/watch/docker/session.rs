//! One connection to Docker, from the first list until it breaks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    query_parameters::{EventsOptionsBuilder, InspectContainerOptions, ListContainersOptions, ListNetworksOptions},
};
use futures_util::{StreamExt as _, stream};
use netpath_common::abi::Mode;
use tracing::debug;

use super::{
    convert::{self, Fingerprint, Sighting},
    mentions::{Collector, Mentions},
};
use crate::{
    desired::docker::{BRIDGE_DRIVER, DockerModel, Id, Peer},
    watch::{dockerd, netns},
};

/// For one answer; a busy dockerd takes seconds for a list of thousands.
const ANSWER_SECONDS_MAX: u64 = 30;
/// Containers that are inspected at the same time; more only queue up inside dockerd.
const INSPECTIONS_MAX: usize = 16;
/// Events of this long before the list are seen again, so that none falls between the list and the stream.
const OVERLAP: Duration = Duration::from_secs(1);
/// The events that can change what netpath does; health checks alone cause dozens of others per second.
const EVENTS: [&str; 12] = [
    "start",
    "restart",
    "die",
    "stop",
    "destroy",
    "rename",
    "create",
    "connect",
    "disconnect",
    "remove",
    "prune",
    "update",
];

/// A connection to Docker.
pub(super) struct Session {
    docker: Docker,
    /// What has been mentioned since the connection.
    pub(super) mentions: Collector,
    /// The mode that suits how dockerd was started.
    pub(super) mode: Mode,
}

/// What a round of questions left open.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Containers to look at again soon, and why.
    pub(super) open: BTreeMap<Id, String>,
}

impl Session {
    /// Connects and begins to follow events. Nothing has been listed yet.
    pub(super) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_str().context("the path of Docker's socket isn't UTF-8")?;
        let docker = Docker::connect_with_unix(path, ANSWER_SECONDS_MAX, API_DEFAULT_VERSION)
            .with_context(|| format!("connecting to Docker at {path}"))?;
        let docker =
            docker.negotiate_version().await.with_context(|| format!("asking Docker at {path} its version"))?;
        let options = EventsOptionsBuilder::new().since(&overlap_start()).filters(&filters()).build();
        let mentions = Collector::start(docker.events(Some(options)));
        Ok(Self { docker, mentions, mode: Mode::Takeover })
    }

    /// The negotiated API version.
    pub(super) fn api_version(&self) -> String {
        self.docker.client_version().to_string()
    }

    /// Lists everything and looks at every container again.
    pub(super) async fn list(&mut self, model: &mut DockerModel, socket: &Path) -> anyhow::Result<Outcome> {
        let networks =
            self.docker.list_networks(None::<ListNetworksOptions>).await.context("listing Docker's networks")?;
        self.mode = dockerd::detect(socket, convert::default_masquerades(&networks)).await;
        model.networks = networks.iter().filter_map(convert::network).collect();
        let listed = self.summaries().await?;
        let containers = listed.into_keys().chain(model.containers.keys().cloned()).collect();
        self.look(model, containers).await
    }

    /// Compares Docker's short list with the model; gives what differs.
    pub(super) async fn compare(&self, model: &DockerModel) -> anyhow::Result<Mentions> {
        let listed = self.summaries().await?;
        let differs = |id: &&Id| listed.get(*id) != model.containers.get(*id).map(convert::fingerprint).as_ref();
        let containers = listed.keys().chain(model.containers.keys()).filter(differs).cloned().collect();
        Ok(Mentions { containers, networks: true, ended: None })
    }

    /// Looks at what was mentioned.
    pub(super) async fn refresh(&self, model: &mut DockerModel, mentions: Mentions) -> anyhow::Result<Outcome> {
        if mentions.networks {
            self.list_networks(model).await?;
        }
        self.look(model, mentions.containers).await
    }

    async fn list_networks(&self, model: &mut DockerModel) -> anyhow::Result<()> {
        let networks =
            self.docker.list_networks(None::<ListNetworksOptions>).await.context("listing Docker's networks")?;
        model.networks = networks.iter().filter_map(convert::network).collect();
        Ok(())
    }

    async fn summaries(&self) -> anyhow::Result<HashMap<Id, Fingerprint>> {
        let running = None::<ListContainersOptions>;
        let containers = self.docker.list_containers(running).await.context("listing Docker's containers")?;
        Ok(containers.iter().filter_map(convert::summary).collect())
    }

    /// Inspects containers and finds their veths. On an error the model is as it was.
    async fn look(&self, model: &mut DockerModel, ids: BTreeSet<Id>) -> anyhow::Result<Outcome> {
        let answers: Vec<(Id, Result<_, Error>)> = stream::iter(ids)
            .map(|id| async move {
                let answer = self.docker.inspect_container(&id, None::<InspectContainerOptions>).await;
                (id, answer)
            })
            .buffer_unordered(INSPECTIONS_MAX)
            .collect()
            .await;
        let mut outcome = Outcome::default();
        let mut sightings = Vec::new();
        let mut gone = Vec::new();
        for (id, answer) in answers {
            match answer {
                Ok(api) => match convert::container(&api) {
                    Some(sighting) => sightings.push((id, sighting)),
                    None => gone.push(id),
                },
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => gone.push(id),
                Err(error) if is_about_one(&error) => {
                    outcome.open.insert(id.clone(), format!("Docker can't describe container {id}: {error}"));
                }
                Err(error) => return Err(error).with_context(|| format!("inspecting container {id}")),
            }
        }
        if sightings.iter().any(|(_, sighting)| has_unknown_network(model, sighting)) {
            self.list_networks(model).await?;
        }
        find_veths(model, &mut sightings, &mut outcome).await?;
        for id in gone {
            model.containers.remove(&id);
        }
        model.containers.extend(sightings.into_iter().map(|(id, sighting)| (id, sighting.container)));
        Ok(outcome)
    }
}

/// Whether an error concerns one container only; any other one means that the connection is broken.
fn is_about_one(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError { .. } | Error::JsonDataError { .. } | Error::JsonSerdeError { .. }
    )
}

fn has_unknown_network(model: &DockerModel, sighting: &Sighting) -> bool {
    sighting.container.interfaces.iter().any(|interface| !model.networks.contains_key(&interface.network))
}

/// Fills in the peers of interfaces on managed networks. A peer that was known and isn't found now is kept: an endpoint
/// keeps its veth for as long as it lives.
async fn find_veths(
    model: &DockerModel,
    sightings: &mut [(Id, Sighting)],
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let searches = sightings.iter().map(|(_, sighting)| sighting.search.clone()).collect();
    let found = netns::search(searches).await?;
    for ((id, sighting), found) in sightings.iter_mut().zip(found) {
        let container = &mut sighting.container;
        let mut reason = None;
        let peers = found.unwrap_or_else(|error| {
            debug!(container = container.name, error = format!("{error:#}"), "a namespace can't be read");
            reason = Some(format!("{error:#}"));
            vec![None; container.interfaces.len()]
        });
        for (interface, peer) in container.interfaces.iter_mut().zip(peers) {
            interface.peer = peer.or_else(|| known_peer(model, id, &interface.endpoint));
            let network = model.networks.get(&interface.network);
            if interface.peer.is_none() && network.is_some_and(|network| network.driver == BRIDGE_DRIVER) {
                let reason = reason.as_deref().unwrap_or("no veth with its address in its network namespace");
                outcome.open.insert(id.clone(), format!("container {}: {reason}", container.name));
            }
        }
    }
    Ok(())
}

fn known_peer(model: &DockerModel, id: &Id, endpoint: &Id) -> Option<Peer> {
    let interfaces = &model.containers.get(id)?.interfaces;
    interfaces.iter().find(|interface| interface.endpoint == *endpoint)?.peer
}

fn filters() -> HashMap<String, Vec<String>> {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    HashMap::from([("type".to_owned(), owned(&["container", "network"])), ("event".to_owned(), owned(&EVENTS))])
}

fn overlap_start() -> String {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP);
    format!("{}.{:09}", start.as_secs(), start.subsec_nanos())
}
