//! Docker, watched through its API: list everything, then follow events, for as long as it is there.
//!
//! An event only says which container to look at again; what is true is asked afterwards. So neither the order of events
//! matters nor whether one comes twice. A missed one is made good by comparing the short list every so often. Docker
//! being away is a state, not an error: the last model stays, and on its return the full list is the authority.

use std::{convert::Infallible, env, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use self::{knowledge::Knowledge, mentions::Mentions, session::Session};
use super::{DockerNews, Listed, News, netns::Wish};

mod convert;
mod inspections;
mod knowledge;
mod mentions;
mod session;
pub mod survey;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Between attempts to reach Docker: at first, and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Between looks at a container that couldn't be read or whose veth wasn't found: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// Between comparisons of Docker's short list with the model.
const COMPARE: Duration = Duration::from_secs(30);

/// Docker's socket: `DOCKER_HOST`, else the default.
///
/// # Errors
///
/// When `DOCKER_HOST` names anything but a Unix socket: netpath must be on dockerd's host.
pub fn socket_from_environment() -> anyhow::Result<PathBuf> {
    match env::var("DOCKER_HOST") {
        Ok(host) if !host.is_empty() => socket_of(&host),
        _ => Ok(PathBuf::from(DEFAULT_SOCKET)),
    }
}

fn socket_of(host: &str) -> anyhow::Result<PathBuf> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => bail!("DOCKER_HOST is {host}; netpath works on dockerd's own host and needs unix:///path/to/socket"),
    }
}

/// Watches Docker.
#[derive(Debug)]
pub struct Watcher {
    socket: PathBuf,
    news: mpsc::Sender<News>,
    knowledge: Knowledge,
}

/// Nobody listens any more.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is stopping")]
struct Stopping;

impl Watcher {
    /// A watcher of the dockerd behind `socket`.
    #[must_use]
    pub fn new(socket: PathBuf, news: mpsc::Sender<News>, wish: Wish) -> Self {
        Self { socket, news, knowledge: Knowledge { wish, ..Knowledge::default() } }
    }

    /// Watches until nobody listens to the news any more.
    pub async fn run(mut self) {
        let mut wait = RECONNECT.0;
        let mut away = Away::No;
        loop {
            let begun = Instant::now();
            let Err(error) = self.session(&mut away).await;
            if error.is::<Stopping>() {
                return;
            }
            if begun.elapsed() > RECONNECT.1 {
                wait = RECONNECT.0;
            }
            let error = format!("{error:#}");
            if away == Away::No {
                away = Away::Told;
                warn!(error, "Docker is away; its containers' traffic goes on and netpath waits for it");
            }
            if self.tell(DockerNews::Lost { error }).await.is_err() {
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(RECONNECT.1);
        }
    }

    async fn session(&mut self, away: &mut Away) -> anyhow::Result<Infallible> {
        let mut session = Session::connect(&self.socket).await?;
        let api_version = session.api_version();
        self.tell(DockerNews::Connected { api_version: api_version.clone() }).await?;
        session.list(&mut self.knowledge, &self.socket).await?;
        info!(api_version, containers = self.knowledge.model.containers.len(), "Docker is connected");
        *away = Away::No;
        self.send(&session).await?;
        self.follow(&mut session).await
    }

    async fn follow(&mut self, session: &mut Session) -> anyhow::Result<Infallible> {
        let mut again = LOOK_AGAIN.0;
        let mut look_again = Instant::now() + again;
        let mut compare = Instant::now() + COMPARE;
        let mut lists = JoinSet::new();
        loop {
            let before = self.knowledge.clone();
            tokio::select! {
                () = session.mentions.changed() => {
                    let mentions = session.mentions.take();
                    self.look(session, mentions).await?;
                    again = LOOK_AGAIN.0;
                    look_again = Instant::now() + again;
                }
                answers = session.inspections.next(), if !session.inspections.is_empty() => {
                    session.learn(answers, &mut self.knowledge).await?;
                }
                () = sleep_until(look_again), if !self.knowledge.open.is_empty() => {
                    session.inspections.ask(self.knowledge.open.keys().cloned());
                    again = (again * 2).min(LOOK_AGAIN.1);
                    look_again = Instant::now() + again;
                }
                () = sleep_until(compare), if lists.is_empty() => {
                    lists.spawn(session.short_lists());
                }
                Some(listed) = lists.join_next() => {
                    let mentions = listed.context("the task that asks for short lists")??.compare(&self.knowledge.model);
                    self.look(session, mentions).await?;
                    compare = Instant::now() + COMPARE;
                }
                () = self.news.closed() => return Err(Stopping.into()),
            }
            if self.knowledge != before {
                self.send(session).await?;
            }
        }
    }

    /// Looks at what was mentioned; answers about containers come later.
    async fn look(&mut self, session: &mut Session, mentions: Mentions) -> anyhow::Result<()> {
        if let Some(reason) = mentions.ended {
            return Err(anyhow!(reason));
        }
        debug!(containers = mentions.containers.len(), networks = mentions.networks, "looking again");
        session.inspections.ask(mentions.containers);
        if mentions.networks {
            session.list_networks(&mut self.knowledge).await?;
        }
        Ok(())
    }

    async fn send(&self, session: &Session) -> anyhow::Result<()> {
        let Knowledge { model, open, .. } = self.knowledge.clone();
        let listed = Listed { model: Arc::new(model), mode: session.mode, troubles: open.into_values().collect() };
        self.tell(DockerNews::Listed(listed)).await
    }

    async fn tell(&self, news: DockerNews) -> anyhow::Result<()> {
        self.news.send(News::Docker(news)).await.map_err(|_| Stopping.into())
    }
}

/// Whether it has been said that Docker is away.
#[derive(Debug, PartialEq, Eq)]
enum Away {
    No,
    Told,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_a_unix_socket_is_dockers() {
        assert_eq!(socket_of("unix:///run/d.sock").unwrap(), Path::new("/run/d.sock"));
        for host in ["tcp://127.0.0.1:2375", "unix://relative", "/run/d.sock", "ssh://host"] {
            assert!(socket_of(host).unwrap_err().to_string().contains(host), "{host}");
        }
    }

    #[tokio::test]
    async fn without_docker_the_watcher_says_so_and_goes_on() {
        let (send, mut receive) = mpsc::channel(8);
        let task = tokio::spawn(Watcher::new("/nonexistent/docker.sock".into(), send, Wish::Nothing).run());
        for _ in 0..2 {
            let Some(News::Docker(DockerNews::Lost { error })) = receive.recv().await else { panic!("no news") };
            assert!(error.contains("/nonexistent/docker.sock"), "{error}");
        }
        drop(receive);
        task.await.unwrap();
    }
}
