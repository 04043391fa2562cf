//! What is known of Docker's containers, and what is still open about them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bollard::errors::Error;
use tracing::debug;

use super::{
    convert::{self, Sighting},
    inspections::Answer,
};
use crate::{
    desired::docker::{DockerModel, Id, Network, Peer},
    watch::netns::{self, Wish},
};

/// The model and its gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// The model.
    pub(super) model: DockerModel,
    /// Containers to look at again soon, and why.
    pub(super) open: BTreeMap<Id, String>,
    /// What containers' interfaces are made to take.
    pub(super) wish: Wish,
}

impl Knowledge {
    /// Learns which containers are gone and which can't be described now; gives those that run. A container that can't
    /// be described stays as it was known.
    ///
    /// # Errors
    ///
    /// When an answer shows that the connection is broken.
    pub(super) fn learn_presence(&mut self, answers: Vec<(Id, Answer)>) -> anyhow::Result<Vec<(Id, Sighting)>> {
        let mut sightings = Vec::new();
        for (id, answer) in answers {
            self.open.remove(&id);
            match answer.map(|api| convert::container(&api)) {
                Ok(Some(sighting)) => sightings.push((id, sighting)),
                Ok(None) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                    self.model.containers.remove(&id);
                }
                Err(error) if is_about_one(&error) => {
                    self.open.insert(id.clone(), format!("Docker can't describe container {id}: {error}"));
                }
                Err(error) => return Err(error).with_context(|| format!("inspecting container {id}")),
            }
        }
        Ok(sightings)
    }

    /// Whether a container is on a network that isn't known.
    pub(super) fn lacks_network_of(&self, sightings: &[(Id, Sighting)]) -> bool {
        let interfaces = sightings.iter().flat_map(|(_, sighting)| &sighting.container.interfaces);
        interfaces.into_iter().any(|interface| !self.model.networks.contains_key(&interface.network))
    }

    /// Learns containers that run, and looks for their veths.
    ///
    /// # Errors
    ///
    /// When no namespace at all can be looked into.
    pub(super) async fn learn_sightings(&mut self, sightings: Vec<(Id, Sighting)>) -> anyhow::Result<()> {
        let searches = sightings.iter().map(|(_, sighting)| sighting.search.clone()).collect();
        let found = netns::search(searches, self.wish).await?;
        for ((id, sighting), found) in sightings.into_iter().zip(found) {
            self.learn_sighting(id, sighting, found);
        }
        Ok(())
    }

    /// A peer that was known and isn't found now is kept: an endpoint keeps its veth for as long as it lives.
    fn learn_sighting(&mut self, id: Id, sighting: Sighting, found: netns::Found) {
        let mut container = sighting.container;
        let mut reason = "no veth with its address in its network namespace".to_owned();
        let peers = found.unwrap_or_else(|error| {
            reason = format!("{error:#}");
            vec![None; container.interfaces.len()]
        });
        for (interface, peer) in container.interfaces.iter_mut().zip(peers) {
            interface.peer = peer.or_else(|| self.known_peer(&id, &interface.endpoint));
            let is_managed = self.model.networks.get(&interface.network).is_some_and(Network::is_managed);
            if interface.peer.is_none() && is_managed {
                debug!(container = container.name, reason, "its veth isn't found");
                self.open.insert(id.clone(), format!("container {}: {reason}", container.name));
            }
        }
        self.model.containers.insert(id, container);
    }

    fn known_peer(&self, id: &Id, endpoint: &Id) -> Option<Peer> {
        let interfaces = &self.model.containers.get(id)?.interfaces;
        interfaces.iter().find(|interface| interface.endpoint == *endpoint)?.peer
    }
}

/// Whether an error concerns one container only; any other one means that the connection is broken.
fn is_about_one(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError { .. }
            | Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
            | Error::RequestTimeoutError
    )
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::desired::{docker::Container, sample};

    const WEB: &str = "web";

    fn knowledge() -> Knowledge {
        Knowledge { model: sample::docker(), ..Knowledge::default() }
    }

    fn answer_error(status_code: u16) -> Vec<(Id, Answer)> {
        let message = "told to fail".to_owned();
        vec![(WEB.to_owned(), Err(Error::DockerResponseServerError { status_code, message }))]
    }

    fn sighting(container: Container) -> Sighting {
        Sighting { container, search: netns::Search { namespaces: vec![], interfaces: vec![] } }
    }

    #[test]
    fn a_container_that_docker_does_not_know_is_gone() {
        let mut knowledge = knowledge();
        assert_eq!(knowledge.learn_presence(answer_error(404)).unwrap(), []);
        assert_eq!((knowledge.model.containers.len(), knowledge.open.len()), (0, 0));
    }

    #[test]
    fn a_container_that_docker_cannot_describe_stays_and_is_asked_about_again() {
        let mut knowledge = knowledge();
        assert_eq!(knowledge.learn_presence(answer_error(500)).unwrap(), []);
        assert_eq!((&knowledge.model, knowledge.open.len()), (&sample::docker(), 1));
    }

    #[test]
    fn a_broken_connection_is_no_answer() {
        let broken = Error::IOError { err: std::io::ErrorKind::BrokenPipe.into() };
        assert!(knowledge().learn_presence(vec![(WEB.to_owned(), Err(broken))]).is_err());
    }

    #[test]
    fn a_veth_once_found_is_kept_for_the_same_endpoint_only() {
        let mut unseen = sample::docker().containers[WEB].clone();
        unseen.interfaces[0].peer = None;
        let mut replaced = unseen.clone();
        replaced.interfaces[0].endpoint = "another".to_owned();
        for (container, expected) in [(unseen, true), (replaced, false)] {
            let mut knowledge = knowledge();
            knowledge.learn_sighting(WEB.to_owned(), sighting(container), Err(anyhow!("told to fail")));
            let found = knowledge.model.containers[WEB].interfaces[0].peer.is_some();
            assert_eq!((found, knowledge.open.is_empty()), (expected, expected));
        }
    }

    #[test]
    fn a_network_that_is_not_known_is_noticed() {
        let mut container = sample::docker().containers[WEB].clone();
        assert!(!knowledge().lacks_network_of(&[(WEB.to_owned(), sighting(container.clone()))]));
        container.interfaces[0].network = "new".to_owned();
        assert!(knowledge().lacks_network_of(&[(WEB.to_owned(), sighting(container))]));
    }
}
