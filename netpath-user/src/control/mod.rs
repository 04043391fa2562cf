//! The control socket: HTTP with JSON over a Unix socket that only root and the socket's group may open.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | [`crate::status::Status`] |
//! | `GET /v1/networks` | a list of [`crate::status::Network`] |
//! | `GET /v1/endpoints` | a list of [`crate::report::EndpointStatus`] |
//! | `GET /v1/policy` | [`crate::report::PolicyStatus`], without counters |
//! | `POST /v1/policy` with [`ApplyPolicy`] | [`crate::report::PolicyApplied`] |
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
    pub(super) const POLICY: &str = "/v1/policy";
    pub(super) const SHUTDOWN: &str = "/v1/shutdown";
}

/// A wish for another policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The text of a configuration file; absent: the daemon reads its own again.
    pub text: Option<String>,
    /// The file's name.
    pub file: Option<String>,
    /// Leaves connections open that the new policy denies.
    pub keep_flows: bool,
}

/// The answer to a request that failed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ErrorBody {
    error: String,
}
