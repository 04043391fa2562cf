//! What the daemon tells the programs.

use super::abi;

abi! {
    /// The configuration, written as a whole.
    pub struct Config[16] {
        /// [`Mode`].
        pub mode: u8,
        /// 0: every flow that isn't netpath's goes to the kernel and none is opened, while the daemon learns which flows
        /// the kernel has. 1: netpath opens flows.
        pub opens_flows: u8,
        /// First port, in host order, of the range that is searched when a source port can't be kept.
        pub port_first: u16,
        /// Last port of that range, in host order.
        pub port_last: u16,
        /// 1: also packets from the world keep a masqueraded UDP flow alive, as in nf_conntrack. 0: only those of the
        /// container do (RFC 4787, REQ-6).
        pub inbound_refresh: u8,
        /// Which profile the timeouts come from, for reports: the daemon's number.
        pub timeout_profile: u8,
        /// For how many seconds a cone may be silent; 0: no network has had cones since the daemon's start.
        pub cone_timeout_s: u32,
        /// Key of the hash that picks where the search for a free port begins.
        pub port_seed: u32,
    }
}

/// How netpath shares the host with dockerd's own rules.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// dockerd keeps its rules; what netpath doesn't carry, they do.
    Takeover = 0,
    /// netpath is the only NAT; what it doesn't carry is dropped and counted.
    Sole = 1,
}

impl Mode {
    /// The stable name that the command line takes and shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Sole => "sole",
        }
    }
}

impl Config {
    /// The mode that the programs run in.
    #[inline(always)]
    #[must_use]
    pub const fn mode(&self) -> Mode {
        if self.mode == Mode::Sole as u8 { Mode::Sole } else { Mode::Takeover }
    }
}
