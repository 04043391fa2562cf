//! Docker and the kernel, watched. These modules say what is there; they decide nothing.
//!
//! Each watcher sends whole models, never differences: the latest one is all that the daemon needs.

use std::sync::Arc;

use netpath_common::abi::Mode;

use crate::{
    desired::{docker::DockerModel, host::HostModel},
    firewall::Ruleset,
};

pub mod docker;
pub mod dockerd;
pub mod firewall;
pub mod netlink;
pub mod netns;
mod notifications;
pub mod rtnl;
pub mod waiting;

/// What a watcher saw.
#[derive(Debug, Clone)]
pub enum News {
    /// From Docker.
    Docker(DockerNews),
    /// The host's network changed.
    Host(Arc<HostModel>),
    /// The firewall's rules changed.
    Firewall(Arc<Ruleset>),
}

/// What happened between netpath and Docker.
#[derive(Debug, Clone)]
pub enum DockerNews {
    /// Docker is there; its list follows.
    Connected {
        /// The negotiated API version.
        api_version: String,
    },
    /// All of Docker's networks and running containers.
    Listed(Listed),
    /// Docker is away. What was listed last is still what is known of it.
    Lost {
        /// Why.
        error: String,
    },
}

/// All of Docker's networks and running containers.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The list.
    pub model: Arc<DockerModel>,
    /// The mode that suits how dockerd was started.
    pub mode: Mode,
    /// What Docker couldn't say, one sentence each; it is asked again soon.
    pub troubles: Vec<String>,
}
