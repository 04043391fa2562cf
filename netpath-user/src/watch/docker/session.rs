//! One connection to Docker, from the first list until it breaks.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bollard::{
    API_DEFAULT_VERSION, ClientVersion, Docker,
    query_parameters::{EventsOptionsBuilder, ListContainersOptions, ListNetworksOptions},
};
use netpath_common::abi::Mode;
use tokio::net::UnixStream;

use super::{
    convert::{self, Fingerprint},
    inspections::{Answer, Inspections},
    knowledge::Knowledge,
    mentions::{Collector, Mentions},
};
use crate::{
    desired::docker::{DockerModel, Engine, Id, Network},
    watch::dockerd,
};

/// For one answer; a busy dockerd takes seconds for a list of thousands.
const ANSWER_SECONDS_MAX: u64 = 30;
/// Events of this long before the list are seen again, so that none falls between the list and the stream.
const OVERLAP: Duration = Duration::from_secs(1);
/// The API of dockerd 27.0, the first to know gateway modes.
const GATEWAY_MODES: ClientVersion = ClientVersion { major_version: 1, minor_version: 46 };
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
    /// Questions about containers.
    pub(super) inspections: Inspections,
    /// The mode that suits how dockerd was started.
    pub(super) mode: Mode,
}

impl Session {
    /// Connects and begins to follow events. Nothing has been listed yet.
    pub(super) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_str().context("the path of Docker's socket isn't UTF-8")?;
        // Tells in plain words what the client library wraps up.
        drop(UnixStream::connect(socket).await.with_context(|| format!("no Docker daemon answers on {path}"))?);
        let docker = Docker::connect_with_unix(path, ANSWER_SECONDS_MAX, API_DEFAULT_VERSION)
            .with_context(|| format!("connecting to Docker at {path}"))?;
        let docker =
            docker.negotiate_version().await.with_context(|| format!("asking Docker at {path} its version"))?;
        let options = EventsOptionsBuilder::new().since(&overlap_start()).filters(&filters()).build();
        let mentions = Collector::start(docker.events(Some(options)));
        let inspections = Inspections::new(docker.clone());
        Ok(Self { docker, mentions, inspections, mode: Mode::Takeover })
    }

    /// The negotiated API version.
    pub(super) fn api_version(&self) -> String {
        self.docker.client_version().to_string()
    }

    /// Lists everything and looks at every container again.
    pub(super) async fn list(&mut self, knowledge: &mut Knowledge, socket: &Path) -> anyhow::Result<()> {
        let networks =
            self.docker.list_networks(None::<ListNetworksOptions>).await.context("listing Docker's networks")?;
        let found = dockerd::detect(socket, convert::default_masquerades(&networks)).await;
        self.mode = found.mode;
        knowledge.model.engine = Engine {
            knows_gateway_modes: self.docker.client_version() >= GATEWAY_MODES,
            masquerades_default: found.masquerades,
            allows_direct_routing: found.allows_direct_routing,
        };
        knowledge.model.networks = networks.iter().filter_map(convert::network).collect();
        let listed = summaries(&self.docker).await?;
        self.inspections.ask(listed.into_keys().chain(knowledge.model.containers.keys().cloned()));
        while !self.inspections.is_empty() {
            let answers = self.inspections.next().await;
            self.learn(answers, knowledge).await?;
        }
        Ok(())
    }

    /// Lists the networks again.
    pub(super) async fn list_networks(&self, knowledge: &mut Knowledge) -> anyhow::Result<()> {
        knowledge.model.networks = networks(&self.docker).await?;
        Ok(())
    }

    /// Asks for Docker's short lists, apart from this session: what happens meanwhile isn't held up by them.
    pub(super) fn short_lists(&self) -> impl Future<Output = anyhow::Result<ShortLists>> + Send + 'static {
        let docker = self.docker.clone();
        async move {
            let networks = networks(&docker).await?;
            Ok(ShortLists { networks, containers: summaries(&docker).await? })
        }
    }

    /// Learns answers about containers, and finds those containers' veths.
    pub(super) async fn learn(&self, answers: Vec<(Id, Answer)>, knowledge: &mut Knowledge) -> anyhow::Result<()> {
        let sightings = knowledge.learn_presence(answers)?;
        if knowledge.lacks_network_of(&sightings) {
            self.list_networks(knowledge).await?;
        }
        knowledge.learn_sightings(sightings).await
    }
}

/// What Docker says of everything in short.
pub(super) struct ShortLists {
    networks: BTreeMap<Id, Network>,
    containers: HashMap<Id, Fingerprint>,
}

impl ShortLists {
    /// What differs from the model. They may be older than it; so that is asked for again, not believed.
    pub(super) fn compare(&self, model: &DockerModel) -> Mentions {
        let Self { networks, containers: listed } = self;
        let differs = |id: &&Id| listed.get(*id) != model.containers.get(*id).map(convert::fingerprint).as_ref();
        let containers = listed.keys().chain(model.containers.keys()).filter(differs).cloned().collect();
        Mentions { containers, networks: *networks != model.networks, ended: None }
    }
}

async fn networks(docker: &Docker) -> anyhow::Result<BTreeMap<Id, Network>> {
    let networks = docker.list_networks(None::<ListNetworksOptions>).await.context("listing Docker's networks")?;
    Ok(networks.iter().filter_map(convert::network).collect())
}

async fn summaries(docker: &Docker) -> anyhow::Result<HashMap<Id, Fingerprint>> {
    let running = None::<ListContainersOptions>;
    let containers = docker.list_containers(running).await.context("listing Docker's containers")?;
    Ok(containers.iter().filter_map(convert::summary).collect())
}

fn filters() -> HashMap<String, Vec<String>> {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    HashMap::from([("type".to_owned(), owned(&["container", "network"])), ("event".to_owned(), owned(&EVENTS))])
}

fn overlap_start() -> String {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(OVERLAP);
    format!("{}.{:09}", start.as_secs(), start.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::docker::Container;

    fn lists(containers: &[(&str, &str)], networks: &[&str]) -> ShortLists {
        let fingerprint = |(id, name): &(&str, &str)| ((*id).to_owned(), ((*name).to_owned(), Vec::new()));
        ShortLists {
            networks: networks.iter().map(|id| ((*id).to_owned(), Network::default())).collect(),
            containers: containers.iter().map(fingerprint).collect(),
        }
    }

    #[test]
    fn short_lists_only_name_what_is_to_be_asked_for_again() {
        let named = |name: &str| Container { name: name.to_owned(), ..Container::default() };
        let model = DockerModel {
            containers: [("a", "one"), ("b", "two"), ("c", "three")]
                .map(|(id, name)| (id.to_owned(), named(name)))
                .into(),
            networks: [("n".to_owned(), Network::default())].into(),
            ..DockerModel::default()
        };
        let same = lists(&[("a", "one"), ("b", "two"), ("c", "three")], &["n"]);
        assert_eq!(same.compare(&model), Mentions::default());
        let other = lists(&[("a", "one"), ("b", "renamed"), ("d", "new")], &[]);
        let mentions = other.compare(&model);
        assert_eq!(mentions.containers, ["b", "c", "d"].map(str::to_owned).into());
        assert!(mentions.networks);
    }
}
