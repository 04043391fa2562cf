//! Questions about single containers, asked side by side.
//!
//! dockerd keeps a container locked while it starts and answers nothing about it for that long, which may be seconds.
//! So each answer is taken as it comes, and one slow start holds up no other container.

use std::{collections::BTreeSet, mem};

use bollard::{Docker, errors::Error, models::ContainerInspectResponse, query_parameters::InspectContainerOptions};
use tokio::task::JoinSet;

use crate::desired::docker::Id;

/// Questions at the same time; each takes a connection to dockerd.
const ASKED_MAX: usize = 64;

/// An answer about a container.
pub(super) type Answer = Result<ContainerInspectResponse, Error>;

/// Questions that wait for their answer. Dropping them gives them up.
pub(super) struct Inspections {
    docker: Docker,
    asked: JoinSet<(Id, Answer)>,
    /// Which containers `asked` is about.
    about: BTreeSet<Id>,
    /// To be asked when an answer makes room, or the answer about the same container is there: that one may be older
    /// than what brought up the question.
    queued: BTreeSet<Id>,
}

impl Inspections {
    pub(super) fn new(docker: Docker) -> Self {
        Self { docker, asked: JoinSet::new(), about: BTreeSet::new(), queued: BTreeSet::new() }
    }

    /// Asks about containers.
    pub(super) fn ask(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.queued.extend(ids);
        for id in mem::take(&mut self.queued) {
            if self.asked.len() >= ASKED_MAX || self.about.contains(&id) {
                self.queued.insert(id);
                continue;
            }
            let docker = self.docker.clone();
            self.about.insert(id.clone());
            self.asked.spawn(async move {
                let answer = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
                (id, answer)
            });
        }
    }

    /// Whether no answer is to be expected.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// The answers that are there, after waiting for one; none when nothing was asked. Nothing is lost when the future
    /// is dropped.
    pub(super) async fn next(&mut self) -> Vec<(Id, Answer)> {
        let mut answers = Vec::new();
        let mut joined = self.asked.join_next().await;
        while let Some(Ok((id, answer))) = joined {
            self.about.remove(&id);
            answers.push((id, answer));
            joined = self.asked.try_join_next();
        }
        self.ask([]);
        answers
    }
}
