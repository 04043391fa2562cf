//! The command line's end of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::{ApplyPolicy, ErrorBody, route};
use crate::{
    report::{EndpointStatus, PolicyApplied, PolicyStatus},
    status::{Network, Status},
};

/// How long a request may take. The answers come from memory and from a few maps.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a change of the policy may take: it goes through all flows.
const POLICY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a daemon that is ending is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why the daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no netpath daemon answers on {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("no permission to open {}; run as root", .0.display())]
    Permission(PathBuf),
    /// Somebody listens and doesn't answer.
    #[error("the netpath daemon on {} doesn't answer within {} s", path.display(), waited.as_secs_f32())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The daemon hasn't ended although it was told to.
    #[error("the netpath daemon on {} hasn't ended after {} s", path.display(), waited.as_secs())]
    StillRunning {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The connection broke, or what listens doesn't speak HTTP.
    #[error("talking to the netpath daemon on {}", path.display())]
    Http {
        /// The socket.
        path: PathBuf,
        /// What broke.
        source: hyper::Error,
    },
    /// The daemon couldn't answer, or what listens isn't a netpath daemon.
    #[error("{} answers {route} with {status}{}", path.display(), explain(reason))]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        route: &'static str,
        /// The answer.
        status: StatusCode,
        /// What the daemon says about it; empty when it isn't one.
        reason: String,
    },
    /// An answer that can't be read.
    #[error("{} answers {route} with something else than expected; is the daemon of this version?", path.display())]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        route: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A daemon's control socket, as a caller sees it.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client for the socket at `path`. Nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), timeout: REQUEST_TIMEOUT }
    }

    /// Everything that the daemon knows.
    ///
    /// # Errors
    ///
    /// When there is no daemon or no answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get(route::STATUS).await
    }

    /// The networks that the daemon manages.
    ///
    /// # Errors
    ///
    /// When there is no daemon or no answer.
    pub async fn networks(&self) -> Result<Vec<Network>, ClientError> {
        self.get(route::NETWORKS).await
    }

    /// Containers' addresses.
    ///
    /// # Errors
    ///
    /// When there is no daemon or no answer.
    pub async fn endpoints(&self) -> Result<Vec<EndpointStatus>, ClientError> {
        self.get(route::ENDPOINTS).await
    }

    /// The policy as the operator wrote it; how often its rules fitted is in the pins.
    ///
    /// # Errors
    ///
    /// When there is no daemon or no answer.
    pub async fn policy(&self) -> Result<PolicyStatus, ClientError> {
        self.get(route::POLICY).await
    }

    /// Puts another policy in force.
    ///
    /// # Errors
    ///
    /// When there is no daemon, or it can't.
    pub async fn apply_policy(&self, wish: &ApplyPolicy) -> Result<PolicyApplied, ClientError> {
        let unreadable = |source| self.unreadable(route::POLICY, source);
        let body = serde_json::to_vec(wish).map_err(unreadable)?;
        let patient = Self { timeout: POLICY_TIMEOUT, ..self.clone() };
        let answer = patient.request_with(Method::POST, route::POLICY, body.into()).await?;
        serde_json::from_slice(&answer).map_err(unreadable)
    }

    /// Tells the daemon to end and waits until it has.
    ///
    /// # Errors
    ///
    /// When there is no daemon or it hasn't ended within `wait`.
    pub async fn shut_down(&self, wait: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + wait;
        self.request(Method::POST, route::SHUTDOWN).await?;
        loop {
            match UnixStream::connect(&self.path).await {
                Err(error) if is_nobody_listening(&error) => return Ok(()),
                Err(error) => return Err(self.connect_error(error)),
                Ok(_) if Instant::now() >= deadline => {
                    return Err(ClientError::StillRunning { path: self.path.clone(), waited: wait });
                }
                Ok(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, route: &'static str) -> Result<T, ClientError> {
        let body = self.request(Method::GET, route).await?;
        serde_json::from_slice(&body).map_err(|source| self.unreadable(route, source))
    }

    async fn request(&self, method: Method, route: &'static str) -> Result<Bytes, ClientError> {
        self.request_with(method, route, Bytes::new()).await
    }

    async fn request_with(&self, method: Method, route: &'static str, body: Bytes) -> Result<Bytes, ClientError> {
        timeout(self.timeout, self.exchange(method, route, body)).await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn exchange(&self, method: Method, route: &'static str, body: Bytes) -> Result<Bytes, ClientError> {
        let http_error = |source| ClientError::Http { path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.connect_error(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http_error)?;
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(route);
        // HTTP/1.1 demands a host; a Unix socket has none.
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("netpath"));
        if has_body {
            let json = header::HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        let answer = async {
            let response = sender.send_request(request).await.map_err(http_error)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(http_error)?.to_bytes();
            // Without the sender the connection ends, and with it the future that is polled beside this one.
            drop(sender);
            Ok((status, body))
        };
        let (answer, _ended) = tokio::join!(answer, connection);
        match answer? {
            (status, body) if status.is_success() => Ok(body),
            (status, body) => {
                let reason = serde_json::from_slice::<ErrorBody>(&body).unwrap_or_default().error;
                Err(ClientError::Refused { path: self.path.clone(), route, status, reason })
            }
        }
    }

    fn unreadable(&self, route: &'static str, source: serde_json::Error) -> ClientError {
        ClientError::Unreadable { path: self.path.clone(), route, source }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::TimedOut { path: self.path.clone(), waited: self.timeout }
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission(path),
            // A full backlog: somebody listens and doesn't accept.
            io::ErrorKind::WouldBlock => self.timed_out(),
            _ => ClientError::Unreachable { path, source },
        }
    }
}

fn explain(reason: &str) -> String {
    if reason.is_empty() { "; is it a netpath daemon?".to_owned() } else { format!(": {reason}") }
}

/// Whether connecting failed because there is no socket, or because the process that made it is gone.
pub(super) fn is_nobody_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
        sync::{mpsc, watch},
        task::JoinHandle,
    };

    use super::{
        super::{Server, server::Api},
        Client, ClientError,
    };
    use crate::report::{DaemonStatus, DockerStatus, EndpointStatus, NetworkStatus};

    fn report() -> DaemonStatus {
        DaemonStatus {
            version: "0.1.0".to_owned(),
            pid: 77,
            mode: "sole".to_owned(),
            in_sync: true,
            docker: DockerStatus { connected: true, ..Default::default() },
            networks: vec![NetworkStatus { name: "bridge".to_owned(), number: 1, ..Default::default() }],
            endpoints: vec![EndpointStatus {
                endpoint_id: String::new(),
                container_id: "c".repeat(64),
                container_name: "web".to_owned(),
                network_id: String::new(),
                network_name: "bridge".to_owned(),
                address: [172, 17, 0, 2].into(),
                mac: "02:42:ac:11:00:02".to_owned(),
                veth: "veth0".to_owned(),
                ifindex: 9,
                attached: true,
            }],
            ..Default::default()
        }
    }

    /// A daemon with a report and no dataplane, which ends when it is told to.
    async fn daemon(directory: &tempfile::TempDir) -> (PathBuf, JoinHandle<anyhow::Result<()>>) {
        let path = directory.path().join("run/netpath.sock");
        let server = Server::bind(&path).await.unwrap();
        let (shutdown, mut told) = watch::channel(false);
        // The sender may go: the last report stays readable.
        let (_, report) = watch::channel(report());
        let (policies, _) = mpsc::channel(1);
        let api = Api { report, pin_dir: directory.path().join("pins"), shutdown, policies };
        let serving = server.serve(api, async move { told.wait_for(|told| *told).await.map_or((), |_| ()) });
        (path, tokio::spawn(serving))
    }

    #[tokio::test]
    async fn a_client_reads_what_the_daemon_reports() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _serving) = daemon(&directory).await;
        let client = Client::new(&path);
        let status = client.status().await.unwrap();
        assert!(status.daemon.running && status.attached && status.in_sync && status.docker.connected);
        assert_eq!((status.daemon.pid, status.mode.as_str()), (Some(77), "sole"));
        assert_eq!(client.networks().await.unwrap(), status.networks);
        assert_eq!(client.networks().await.unwrap()[0].network.name, "bridge");
        assert_eq!(client.endpoints().await.unwrap(), report().endpoints);
    }

    #[tokio::test]
    async fn shutting_down_waits_until_the_socket_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, serving) = daemon(&directory).await;
        Client::new(&path).shut_down(Duration::from_secs(10)).await.unwrap();
        serving.await.unwrap().unwrap();
        assert!(!path.exists());
        let again = Client::new(&path).shut_down(Duration::from_secs(10)).await;
        assert!(matches!(again, Err(ClientError::Unreachable { .. })), "{again:?}");
    }

    #[tokio::test]
    async fn a_socket_without_a_listener_is_unreachable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        let answer = Client::new(&path).status().await;
        assert!(matches!(answer, Err(ClientError::Unreachable { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_listener_that_stays_silent_times_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let _silent = UnixListener::bind(&path).unwrap();
        let client = Client { timeout: Duration::from_millis(50), ..Client::new(&path) };
        let answer = client.status().await;
        assert!(matches!(answer, Err(ClientError::TimedOut { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn what_the_other_end_says_instead_is_reported() {
        for (answer, expected) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "is it a netpath daemon?"),
            ("HTTP/1.1 500 X\r\nContent-Length: 16\r\n\r\n{\"error\":\"disk\"}", "Internal Server Error: disk"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"no\"", "is the daemon of this version?"),
            ("SSH-2.0-OpenSSH\r\n", "talking to the netpath daemon on"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sock");
            let listener = UnixListener::bind(&path).unwrap();
            let other_end = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let message = Client::new(&path).status().await.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            other_end.await.unwrap();
        }
    }
}
