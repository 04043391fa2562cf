//! The control socket: HTTP with JSON over a Unix socket that only root and the socket's group may open.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | [`crate::status::Status`] |
//! | `GET /v1/networks` | a list of [`crate::status::Network`] |
//! | `GET /v1/endpoints` | a list of [`crate::report::EndpointStatus`] |
//! | `POST /v1/shutdown` | 202; the daemon ends, what is attached stays |
//!
//! A request that fails is answered with `{"error": "..."}`.
//!
//! The socket stops to answer only when the daemon has let go of the dataplane: who waits for that may touch the pins.

use serde::{Deserialize, Serialize};

pub mod client;
pub mod server;

pub use self::{
    client::{Client, ClientError},
    server::Server,
};

/// Where the socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netpath/netpath.sock";

/// The paths of the interface.
mod route {
    pub(super) const STATUS: &str = "/v1/status";
    pub(super) const NETWORKS: &str = "/v1/networks";
    pub(super) const ENDPOINTS: &str = "/v1/endpoints";
    pub(super) const SHUTDOWN: &str = "/v1/shutdown";
}

/// The answer to a request that failed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ErrorBody {
    error: String,
}
