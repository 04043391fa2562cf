//! The system tier: real containers of a real dockerd, with netpath on their host, in network namespaces.
//!
//! Needs root and Docker; `cargo xtask test` sees to both. Words after `--` choose tests by their names, which begin with
//! the mode that they run in, and with the engine where it isn't the machine's own:
//!
//!     cargo test --package netpath-tests --test system -- takeover
//!     cargo test --package netpath-tests --test system -- "engine 28.5"
//!
//! With NETPATH_DATAPLANE=docker the same tests run against Docker's own rules, to show that what they expect is what
//! Docker's users have; those about netpath itself are then listed as ignored.

use std::path::Path;
use std::process::ExitCode;

use netpath_tests::case::Case;
use netpath_tests::runner;

mod system {
    pub(crate) mod addresses;
    pub(crate) mod attacker;
    pub(crate) mod bulk;
    pub(crate) mod bypass;
    pub(crate) mod churn;
    pub(crate) mod closed_ports;
    pub(crate) mod commands;
    pub(crate) mod compose;
    pub(crate) mod cone;
    pub(crate) mod crowd;
    pub(crate) mod ct;
    pub(crate) mod ct_events;
    pub(crate) mod docker;
    pub(crate) mod drivers;
    pub(crate) mod engines;
    pub(crate) mod errors;
    pub(crate) mod evidence;
    pub(crate) mod express;
    pub(crate) mod flood;
    pub(crate) mod gateways;
    pub(crate) mod guard;
    pub(crate) mod handover;
    pub(crate) mod host_access;
    pub(crate) mod lifetime;
    pub(crate) mod links;
    pub(crate) mod live;
    pub(crate) mod local;
    pub(crate) mod macvlan;
    pub(crate) mod masquerade;
    pub(crate) mod migrate;
    pub(crate) mod modes;
    pub(crate) mod mtu;
    pub(crate) mod nat;
    pub(crate) mod neighbours;
    pub(crate) mod networks;
    pub(crate) mod options;
    pub(crate) mod own;
    pub(crate) mod policy;
    pub(crate) mod programs;
    pub(crate) mod protocols;
    pub(crate) mod published;
    pub(crate) mod ranges;
    pub(crate) mod reach;
    pub(crate) mod schemas;
    pub(crate) mod stale;
    pub(crate) mod start;
    pub(crate) mod uplinks;
}

/// By theme. Tests that share a running netpath come first; those that start their own follow.
const THEMES: &[&[Case]] = &[
    system::masquerade::CASES,
    system::published::CASES,
    system::addresses::CASES,
    system::ranges::CASES,
    system::uplinks::CASES,
    system::host_access::CASES,
    system::local::CASES,
    system::networks::CASES,
    system::gateways::CASES,
    system::modes::CASES,
    system::bulk::CASES,
    system::errors::CASES,
    system::mtu::CASES,
    system::neighbours::CASES,
    system::nat::CASES,
    system::programs::CASES,
    system::stale::CASES,
    system::protocols::CASES,
    system::own::CASES,
    system::cone::CASES,
    system::evidence::CASES,
    system::commands::CASES,
    system::schemas::CASES,
    system::guard::CASES,
    system::attacker::CASES,
    system::options::CASES,
    system::links::CASES,
    system::policy::CASES,
    system::express::CASES,
    system::ct::CASES,
    system::flood::CASES,
    system::closed_ports::CASES,
    system::ct_events::CASES,
    system::lifetime::CASES,
    system::start::CASES,
    system::handover::CASES,
    system::bypass::CASES,
    system::migrate::CASES,
    system::docker::CASES,
    system::engines::CASES,
    system::drivers::CASES,
    system::macvlan::CASES,
    system::compose::CASES,
    system::crowd::CASES,
    system::churn::CASES,
];

fn main() -> ExitCode {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let peer = Path::new(env!("CARGO_BIN_EXE_netpath-peer"));
    runner::main(&THEMES.concat(), peer, &workspace)
}
