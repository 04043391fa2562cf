//! What Docker says of itself and of its networks, asked once: what `netpath migrate` wants to know beyond the model.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::LocalNodeState,
    query_parameters::{ListContainersOptions, ListNetworksOptions},
};
use netpath_common::abi::Mode;
use tokio::net::UnixStream;

use super::convert;
use crate::{
    desired::docker::{Id, Network},
    watch::dockerd,
};

/// As long as dockerd may take for one answer.
const ANSWER_SECONDS_MAX: u64 = 30;

/// What Docker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// dockerd's version.
    pub version: String,
    /// Whether containers live on while dockerd is away.
    pub live_restore: bool,
    /// Whether it is part of a swarm.
    pub swarm: bool,
    /// The mode that suits how dockerd was started; none while that can't be told.
    pub mode: Option<Mode>,
    /// How many containers run.
    pub running: usize,
    /// Words of dockerd's command line, where it can be read.
    pub arguments: Vec<String>,
    /// All networks, by id.
    pub networks: BTreeMap<Id, Surveyed>,
}

/// A network with everything that it was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// As the model has it.
    pub network: Network,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Its options, as Docker names them.
    pub options: BTreeMap<String, String>,
}

/// Asks the Docker daemon that listens on `socket`.
///
/// # Errors
///
/// When none answers.
pub async fn survey(socket: &Path) -> anyhow::Result<Survey> {
    let path = socket.to_str().context("the path of Docker's socket isn't UTF-8")?;
    drop(UnixStream::connect(socket).await.with_context(|| format!("no Docker daemon answers on {path}"))?);
    let docker = Docker::connect_with_unix(path, ANSWER_SECONDS_MAX, API_DEFAULT_VERSION)
        .with_context(|| format!("connecting to Docker at {path}"))?;
    let docker = docker.negotiate_version().await.with_context(|| format!("asking Docker at {path} its version"))?;
    let info = docker.info().await.context("asking Docker about itself")?;
    let networks = docker.list_networks(None::<ListNetworksOptions>).await.context("listing Docker's networks")?;
    let running = docker.list_containers(None::<ListContainersOptions>).await.context("listing Docker's containers")?;
    let mode = dockerd::detect(socket, convert::default_masquerades(&networks)).await.mode;
    let surveyed = networks.iter().filter_map(|api| {
        let (id, network) = convert::network(api)?;
        let options = api.options.clone().unwrap_or_default().into_iter().collect();
        Some((id, Surveyed { network, ipv6: api.enable_ipv6.unwrap_or(false), options }))
    });
    Ok(Survey {
        version: info.server_version.unwrap_or_default(),
        live_restore: info.live_restore_enabled.unwrap_or(false),
        swarm: info.swarm.and_then(|swarm| swarm.local_node_state).is_some_and(|state| state == LocalNodeState::ACTIVE),
        mode: Some(mode),
        running: running.len(),
        arguments: dockerd::arguments(socket).await,
        networks: surveyed.collect(),
    })
}
