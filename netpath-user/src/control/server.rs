//! The daemon's end of the control socket.
//!
//! It answers from the daemon's last report and from the pins; it never touches the dataplane.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    task,
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{ApplyPolicy, ErrorBody, client::is_nobody_listening, route};
use crate::{
    daemon::PolicyRequest,
    dataplane::{Pins, PinsError},
    report::{DaemonStatus, EndpointStatus, PolicyApplied, PolicyStatus},
    status::{Network, Status},
};

/// Read and write for the owner and the group: whoever may connect may stop the daemon.
const SOCKET_MODE: u32 = 0o660;

/// How long a daemon that ends waits for callers who don't read their answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A socket that listens. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: SocketFile,
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Api {
    /// The daemon's last report.
    pub report: watch::Receiver<DaemonStatus>,
    /// Where flows and counters are read.
    pub pin_dir: PathBuf,
    /// Tells the daemon to end.
    pub shutdown: watch::Sender<bool>,
    /// Asks the daemon for another policy.
    pub policies: mpsc::Sender<PolicyRequest>,
}

impl Server {
    /// Listens on `path`. A socket that a killed daemon left is replaced.
    ///
    /// # Errors
    ///
    /// When a daemon answers on `path`, when something else than a socket is there, or when the directory isn't
    /// writable.
    pub async fn bind(path: &Path) -> anyhow::Result<Self> {
        make_room(path).await?;
        let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        let file = SocketFile::of(path).with_context(|| format!("looking at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .with_context(|| format!("setting the permissions of {}", path.display()))?;
        Ok(Self { listener, file })
    }

    /// Answers requests until `ended` is; then finishes the answers that were begun and removes the socket.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub async fn serve(self, api: Api, ended: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { listener, file } = self;
        let (ending, mut ending_seen) = watch::channel(false);
        let serving = axum::serve(listener, router(api)).with_graceful_shutdown(async move {
            ended.await;
            ending.send_replace(true);
        });
        let last_answers_late = async {
            // Fails only when `serving` is over, and then this branch no longer counts.
            if ending_seen.wait_for(|ending| *ending).await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            outcome = serving => outcome.with_context(|| format!("serving {}", file.path.display())),
            () = last_answers_late => Ok(()),
        }
    }
}

/// Clears the way for a socket at `path`.
async fn make_room(path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("{} exists and isn't a socket; remove it or choose another one with --socket", path.display())
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if is_nobody_listening(&error) => {
            debug!(path = %path.display(), "replacing the socket of a daemon that is gone");
            fs::remove_file(path).with_context(|| format!("removing the old socket {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("asking who listens on {}", path.display()))
        }
        Ok(_) | Err(_) => bail!("another netpath daemon answers on {}", path.display()),
    }
}

/// The socket's name in the file system, removed when dropped, unless another daemon has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route(route::STATUS, routing::get(status))
        .route(route::NETWORKS, routing::get(networks))
        .route(route::ENDPOINTS, routing::get(endpoints))
        .route(route::POLICY, routing::get(policy).post(apply_policy))
        .route(route::SHUTDOWN, routing::post(shutdown))
        .with_state(Arc::new(api))
}

type Shared = State<Arc<Api>>;

async fn status(State(api): Shared) -> Result<Json<Status>, Failure> {
    Ok(Json(report(&api, Status::add_pins).await?))
}

async fn networks(State(api): Shared) -> Result<Json<Vec<Network>>, Failure> {
    Ok(Json(report(&api, Status::add_attachments).await?.networks))
}

async fn endpoints(State(api): Shared) -> Json<Vec<EndpointStatus>> {
    Json(api.report.borrow().endpoints.clone())
}

async fn policy(State(api): Shared) -> Json<PolicyStatus> {
    Json(api.report.borrow().policy.clone())
}

async fn apply_policy(State(api): Shared, Json(wish): Json<ApplyPolicy>) -> Result<Json<PolicyApplied>, Failure> {
    let (answer, outcome) = oneshot::channel();
    api.policies.send(PolicyRequest { wish, answer }).await.context("the daemon ends")?;
    Ok(Json(outcome.await.context("the daemon ends")??))
}

async fn shutdown(State(api): Shared) -> StatusCode {
    info!("asked to end through the control socket");
    api.shutdown.send_replace(true);
    StatusCode::ACCEPTED
}

/// The daemon's report, completed from the pins.
async fn report(api: &Api, complete: fn(&mut Status, &Pins) -> anyhow::Result<()>) -> anyhow::Result<Status> {
    let mut status = Status::of_daemon(api.report.borrow().clone(), &api.pin_dir);
    let pin_dir = api.pin_dir.clone();
    // Counting the flows of a full table takes longer than a task may hold its thread.
    let completed = task::spawn_blocking(move || {
        match Pins::open(&pin_dir) {
            Ok(pins) => complete(&mut status, &pins)?,
            Err(PinsError::Absent(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(status)
    });
    completed.await.context("reading the pins")?
}

/// An answer that says what failed.
struct Failure(anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = format!("{:#}", self.0);
        warn!(error, "a request on the control socket failed");
        (StatusCode::INTERNAL_SERVER_ERROR, Json(ErrorBody { error })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::Server;

    #[tokio::test]
    async fn the_socket_is_for_the_owner_and_the_group_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/for/it/netpath.sock");
        let server = Server::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(server);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpath.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Server::bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpath.sock");
        let first = Server::bind(&path).await.unwrap();
        let error = Server::bind(&path).await.unwrap_err().to_string();
        assert_eq!(error, format!("another netpath daemon answers on {}", path.display()));
        assert!(path.exists());
        drop(first);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpath.sock");
        fs::write(&path, "precious").unwrap();
        let error = Server::bind(&path).await.unwrap_err().to_string();
        assert!(error.contains("isn't a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_that_another_daemon_put_there_survives_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpath.sock");
        let first = Server::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = Server::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
