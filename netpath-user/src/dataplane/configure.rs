//! What the programs are told of settings: the configuration, timeouts, reserved ports, and what becomes of datagrams to closed
//! ports.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::Array;
use netpath_common::{
    abi::{ClosedPorts, Config, RESERVED_PORT_WORDS, Rate, names::map},
    conntrack::PairState,
};

use super::{
    Options,
    detach::now_ns,
    kernel::{Kernel, typed},
};
use crate::settings::PortRange;

impl Kernel {
    /// Writes what doesn't change while the daemon runs.
    pub(super) fn configure(&mut self, options: &Options) -> anyhow::Result<()> {
        let old = self.pins.config()?;
        self.write_timeouts(options)?;
        self.write_reserved_ports(options)?;
        let PortRange { first: port_first, last: port_last } = options.port_range;
        let inbound_refresh = u8::from(options.timeouts.inbound_refresh);
        let timeout_profile = options.timeouts.profile as u8;
        let port_seed = if old.port_seed == 0 { random() as u32 } else { old.port_seed };
        self.write_config(Config { port_first, port_last, port_seed, inbound_refresh, timeout_profile, ..old })
    }

    fn write_timeouts(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut map: Array<_, u32> = typed(&mut self.ebpf, map::TIMEOUTS)?;
        for (state, seconds) in options.timeouts.iter() {
            map.set(state as u32, seconds, 0).context("can't write the map of timeouts")?;
        }
        Ok(())
    }

    fn write_reserved_ports(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut map: Array<_, u64> = typed(&mut self.ebpf, map::RESERVED_PORTS)?;
        let mut words = [0_u64; RESERVED_PORT_WORDS];
        for port in &options.reserved_ports {
            words[usize::from(port / 64)] |= 1 << (port % 64);
        }
        for (index, word) in (0..).zip(words) {
            map.set(index, word, 0).context("can't write the map of reserved ports")?;
        }
        Ok(())
    }

    /// Switches cones on or off; on, they may be silent as long as any flow of theirs, so that none outlives its cone.
    pub(super) fn write_cone_timeout(&mut self, has_cones: bool) -> anyhow::Result<()> {
        let config = self.pins.config()?;
        let states = [PairState::UdpUnreplied, PairState::UdpReplied, PairState::UdpStream];
        let longest = states.iter().filter_map(|state| self.timeouts.get(state)).max();
        let cone_timeout_s = if has_cones { longest.copied().unwrap_or(0) } else { 0 };
        if config.cone_timeout_s == cone_timeout_s {
            return Ok(());
        }
        self.write_config(Config { cone_timeout_s, ..config })
    }

    /// For so long from now, datagrams to closed ports are dropped, but for so many: of one sender, and of all on a CPU. `None`:
    /// all of them are the kernel's.
    ///
    /// # Errors
    ///
    /// When the map can't be written.
    pub fn write_closed_ports(&mut self, but_for: Option<(Rate, Rate)>, lease: Duration) -> anyhow::Result<()> {
        let wanted = match but_for {
            Some((sender, all)) => {
                let until_ns = now_ns()?.saturating_add(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX));
                ClosedPorts { until_ns, sender, all }
            }
            None => ClosedPorts::KERNEL,
        };
        self.closed_ports.set(0, wanted, 0).context("can't write what becomes of datagrams to closed ports")
    }

    pub(super) fn write_config(&mut self, config: Config) -> anyhow::Result<()> {
        self.config.set(0, config, 0).context("can't write the configuration map")
    }
}

/// A random number that isn't zero, nor its lower half, from the standard library's keys of the operating system's source.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}
