//! The dataplane as userspace sees it: the eBPF object, its maps, its links and their pins.
//!
//! The only module that imports aya. [`Dataplane`] is what the daemon drives; [`Kernel`] is the real one, [`fake`] one
//! for tests. [`Pins`] is the read-only view that the command line uses, with or without a daemon; with [`Remover`] it ends
//! flows and with [`Listener`] it hears of them. Everything in the
//! kernel hangs on pins below one directory, so it outlives the daemon, and [`detach`] finds all of it.

use std::{collections::BTreeSet, path::PathBuf};

pub use self::{
    collector::Collected,
    detach::{Detached, detach},
    grace::Expedited,
    handover::HandoverFlow,
    kernel::Kernel,
    listener::{ListenError, Listener},
    load::object,
    pins::{Pins, PinsError},
    policy::PolicyPins,
    remover::Remover,
    trial::{ProgramCost, TestRun},
};
use crate::{
    desired::model::{Change, Hook, State},
    settings::{PortRange, TimeoutTable},
};

mod attach;
mod bpf;
mod cgroup;
mod collector;
mod configure;
mod convert;
pub mod detach;
pub mod fake;
mod flows;
mod grace;
mod handover;
mod hops;
mod host_access;
mod interface;
mod kernel;
mod layout;
mod listener;
mod load;
pub mod pins;
mod policy;
mod programs;
mod remover;
mod socket_diag;
mod succession;
mod trial;

/// What the daemon drives: the state that is there, and the one way to change it.
pub trait Dataplane {
    /// The state as it is now, adopted pins included.
    fn actual(&self) -> &State;

    /// Makes one change and, when it succeeds, reflects it in [`Self::actual`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses; says which object it refused. The change may be tried again.
    fn apply(&mut self, change: &Change) -> anyhow::Result<()>;
}

/// How the XDP program is attached to uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpChoice {
    /// In the driver where it takes the program and nothing is lost by it, else not at all.
    Auto,
    /// In the driver.
    Native,
    /// Behind the driver, on finished socket buffers.
    Generic,
    /// Not at all.
    Off,
}

/// How the tc programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TcChoice {
    /// tcx on kernels from 6.6 on, else clsact.
    Auto,
    /// tcx links.
    Tcx,
    /// A clsact qdisc with filters.
    Clsact,
}

/// How the dataplane is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where maps and links are pinned; on a BPF file system, which is mounted if there is none.
    pub pin_dir: PathBuf,
    /// XDP mode on uplinks.
    pub xdp: XdpChoice,
    /// tc mechanism.
    pub tc: TcChoice,
    /// How many flows the table holds. Adopted maps keep their size.
    pub flows_max: u32,
    /// First and last port of the range that is searched when a flow's own port is taken.
    pub port_range: PortRange,
    /// Ports that no flow is translated to.
    pub reserved_ports: BTreeSet<u16>,
    /// How long flows may be silent.
    pub timeouts: TimeoutTable,
}

/// One program that is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachmentReport {
    /// The interface.
    pub ifindex: u32,
    /// The program.
    pub hook: Hook,
    /// `tcx`, `clsact` or `xdp`.
    pub mechanism: &'static str,
    /// `native` or `generic`, for XDP.
    pub xdp_mode: Option<&'static str>,
}
