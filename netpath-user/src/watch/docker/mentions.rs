//! What Docker's events have mentioned and nobody has looked at yet.
//!
//! Events are only ever merged into a set, so however many come while a list is read, none is lost and the memory is
//! bounded by the number of containers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bollard::{errors::Error, models::EventMessage};
use futures_util::{Stream, StreamExt as _};
use tokio::{sync::Notify, task::JoinHandle};

use super::convert::{self, Mention};
use crate::desired::docker::Id;

/// A set of mentions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Mentions {
    /// Containers to look at again.
    pub(super) containers: BTreeSet<Id>,
    /// Whether to list the networks again.
    pub(super) networks: bool,
    /// Why the events have ended.
    pub(super) ended: Option<String>,
}

/// The mentions of a stream of events, collected by a task that ends with this value.
pub(super) struct Collector {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    mentions: Mutex<Mentions>,
    changed: Notify,
}

impl Collector {
    /// Starts to follow `events` at once.
    pub(super) fn start(events: impl Stream<Item = Result<EventMessage, Error>> + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(follow(events, Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Waits until something has been mentioned.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Takes what has been mentioned.
    pub(super) fn take(&self) -> Mentions {
        self.shared.with(std::mem::take)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut Mentions) -> T) -> T {
        change(&mut self.mentions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn follow(events: impl Stream<Item = Result<EventMessage, Error>>, shared: Arc<Shared>) {
    let mut events = std::pin::pin!(events);
    let ended = loop {
        match events.next().await {
            Some(Ok(event)) => {
                if let Some(mention) = convert::mention(&event) {
                    shared.with(|mentions| mentions.add(mention));
                    shared.changed.notify_one();
                }
            }
            Some(Err(error)) => break format!("following Docker's events failed: {error}"),
            None => break "Docker ended its stream of events".to_owned(),
        }
    };
    shared.with(|mentions| mentions.ended = Some(ended));
    shared.changed.notify_one();
}

impl Mentions {
    fn add(&mut self, mention: Mention) {
        match mention {
            Mention::Container(id) => {
                self.containers.insert(id);
            }
            Mention::Networks => self.networks = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{EventActor, EventMessageTypeEnum};
    use futures_util::stream;

    use super::*;

    fn event(kind: EventMessageTypeEnum, id: &str) -> Result<EventMessage, Error> {
        Ok(EventMessage {
            typ: Some(kind),
            action: Some("start".to_owned()),
            actor: Some(EventActor { id: Some(id.to_owned()), attributes: None }),
            ..EventMessage::default()
        })
    }

    #[tokio::test]
    async fn events_of_one_container_are_one_mention_and_the_end_is_one_too() {
        let events = [
            event(EventMessageTypeEnum::CONTAINER, "a"),
            event(EventMessageTypeEnum::NETWORK, "n"),
            event(EventMessageTypeEnum::CONTAINER, "a"),
        ];
        let mut collector = Collector::start(stream::iter(events));
        (&mut collector.task).await.unwrap();
        collector.changed().await;
        let expected = Mentions {
            containers: ["a".to_owned()].into(),
            networks: true,
            ended: Some("Docker ended its stream of events".to_owned()),
        };
        assert_eq!((collector.take(), collector.take()), (expected, Mentions::default()));
    }
}
