//! Whether datagrams to closed ports of the host may be dropped before the kernel's stack refuses them.
//!
//! Only while nobody but a socket can be waiting for them, for all that can be seen: no rule that translates, nothing of IPVS,
//! no raw socket, no network that netpath leaves to Docker. It is a lease, renewed every two seconds: a daemon that is gone
//! sees no new rule, so then all is the kernel's again. What the kernel translates already when it begins is handed over.

use std::time::{Duration, Instant};

use netpath_common::abi::Rate;
use tracing::{info, warn};

use super::{core::Core, engine::Engine, handover};
use crate::{
    desired::{
        docker::{BRIDGE_DRIVER, DockerModel},
        host::HostModel,
        model::{Hook, State},
    },
    firewall::{Ruleset, translating},
    report::ClosedPortsStatus,
    settings::DropClosedPorts,
    subnet::Subnet,
    watch::waiting::{IcmpLimits, Waiting},
};

/// How long the programs go on after the daemon has died: often enough renewed for a machine that is busy.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The drivers of networks whose containers have nothing to do with the host's own addresses.
const OTHER_DRIVERS: [&str; 4] = ["host", "null", "macvlan", "ipvlan"];
/// What the kernel gets of one sender at least, in a second and at once: more than it answers, so that who looks at single
/// packets (`recent`, a port knocked at) sees those.
const SENDER: (u64, u64) = (20, 64);
/// How many times as many packets as the kernel answers it gets on each CPU: many of them it doesn't answer, since it
/// answers their sender less often.
const GENEROSITY: u64 = 8;

/// What the daemon knows of it.
#[derive(Debug, Default)]
pub(super) struct ClosedPorts {
    choice: DropClosedPorts,
    waiting: Option<Waiting>,
    because: Vec<String>,
    dropped: bool,
    renewed: Option<Instant>,
    told: Option<bool>,
}

impl ClosedPorts {
    pub(super) fn new(choice: DropClosedPorts) -> Self {
        Self { choice, ..Self::default() }
    }

    /// Takes in who waits now.
    pub(super) fn learn(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
    }

    pub(super) fn status(&self) -> ClosedPortsStatus {
        ClosedPortsStatus { dropped: self.dropped, because: self.because.clone() }
    }

    fn tell(&mut self) {
        if self.told == Some(self.dropped) {
            return;
        }
        if self.dropped {
            info!("datagrams to closed ports of the host are dropped at once, but for what the kernel may answer");
        } else if self.told.is_some() {
            info!(
                because = self.because.join("; "),
                "all datagrams to closed ports of the host are the kernel's again"
            );
        }
        self.told = Some(self.dropped);
    }
}

impl<E: Engine> Core<E> {
    /// Begins, prolongs or ends the dropping of datagrams to closed ports, by what is known now.
    pub(super) fn renew_closed_ports(&mut self) {
        // While a container comes or goes the lease that there is goes on: it ends by itself if that takes long.
        let is_fresh = self.closed_ports.renewed.is_some_and(|renewed| renewed.elapsed() < LEASE / 2);
        if self.closed_ports.dropped && is_fresh && !self.is_in_sync() {
            return;
        }
        let ClosedPorts { choice, waiting, dropped, .. } = &self.closed_ports;
        let (was_dropped, limits) = (*dropped, waiting.as_ref().map(|waiting| waiting.limits).unwrap_or_default());
        let mut because = match (choice, &self.docker.model, self.bypass.ruleset(), waiting) {
            (DropClosedPorts::Off, ..) => vec!["the configuration says so".to_owned()],
            (DropClosedPorts::Auto, Some(docker), Some(ruleset), Some(waiting)) if self.is_in_sync() => {
                let docker = self.bypass.mark(docker);
                reasons(ruleset, &docker, &self.host, self.engine.actual(), waiting)
            }
            _ => vec!["netpath isn't in step with Docker and the firewall".to_owned()],
        };
        let outcome = if because.is_empty() {
            let known = if was_dropped { Ok(()) } else { handover::leave_translated(&mut self.engine) };
            known.and_then(|()| self.engine.drop_closed_ports(Some(rates(limits))))
        } else if was_dropped {
            self.engine.drop_closed_ports(None)
        } else {
            Ok(())
        };
        if let Err(error) = outcome {
            if was_dropped || because.is_empty() && self.closed_ports.because.is_empty() {
                warn!(error = format!("{error:#}"), "what becomes of datagrams to closed ports can't be changed");
            }
            because.push(format!("{error:#}"));
        }
        self.closed_ports.dropped = because.is_empty();
        self.closed_ports.renewed = because.is_empty().then(Instant::now);
        self.closed_ports.because = because;
        self.closed_ports.tell();
    }
}

/// Why somebody but a socket may be waiting for a datagram; none: nobody is.
fn reasons(
    ruleset: &Ruleset,
    docker: &DockerModel,
    host: &HostModel,
    actual: &State,
    waiting: &Waiting,
) -> Vec<String> {
    let subnets = docker.networks.values().filter(|network| network.is_managed()).flat_map(|network| &network.subnets);
    let carried: Vec<Subnet> = subnets.map(|(address, bits)| Subnet::new(*address, *bits)).collect();
    let mut reasons = translating(ruleset, &carried);
    let others = docker.networks.values().filter(|network| !network.is_managed());
    let others = others.filter(|network| !OTHER_DRIVERS.contains(&network.driver.as_str()));
    reasons.extend(others.map(|network| match network.driver.as_str() {
        BRIDGE_DRIVER => format!("the network {} is left to Docker", network.name),
        driver => format!("the network {} is of the driver {driver}, which may translate by itself", network.name),
    }));
    let uplinks = actual.attachments.iter().filter(|attachment| attachment.hook == Hook::Uplink);
    let ports = uplinks.filter_map(|uplink| host.links.get(&uplink.ifindex)).filter(|link| link.controller.is_some());
    reasons.extend(ports.map(|link| format!("the uplink {} is a port of another interface", link.name)));
    let said = [
        (waiting.ipvs, "IPVS has virtual services"),
        (waiting.raw_udp, "somebody reads UDP from a raw socket"),
        (!waiting.limits.limited, "the kernel answers each of them (net.ipv4.icmp_ratemask)"),
    ];
    reasons.extend(said.iter().filter(|(holds, _)| *holds).map(|(_, text)| (*text).to_owned()));
    reasons
}

/// How often the kernel gets one of a sender, and one at all on a CPU: never less often than it would answer. Twice for a
/// sender, since XDP and tc both count.
fn rates(limits: IcmpLimits) -> (Rate, Rate) {
    let of_sender = match limits.interval_ms {
        0 => Rate::per_second(0, 0),
        interval_ms => Rate::per_second(SENDER.0.max(2 * 1000_u64.div_ceil(interval_ms)), SENDER.1),
    };
    let of_all = Rate::per_second(
        GENEROSITY * limits.per_second.max(IcmpLimits::default().per_second),
        GENEROSITY * limits.burst.max(IcmpLimits::default().burst),
    );
    (of_sender, of_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::sample;

    const NOBODY: Waiting = Waiting {
        ipvs: false,
        raw_udp: false,
        limits: IcmpLimits { limited: true, interval_ms: 1000, per_second: 1000, burst: 50 },
    };

    fn judge(docker: &DockerModel, waiting: &Waiting) -> Vec<String> {
        reasons(&Ruleset::default(), docker, &sample::host(), &State::default(), waiting)
    }

    #[test]
    fn whoever_may_wait_is_a_reason() {
        let docker = sample::docker();
        assert_eq!(judge(&docker, &NOBODY), [""; 0]);
        assert_eq!(judge(&docker, &Waiting { ipvs: true, ..NOBODY }).len(), 1);
        assert_eq!(judge(&docker, &Waiting { raw_udp: true, ..NOBODY }).len(), 1);
        let unlimited = IcmpLimits { limited: false, ..NOBODY.limits };
        assert_eq!(judge(&docker, &Waiting { limits: unlimited, ..NOBODY }).len(), 1);
        for (driver, refused, count) in
            [("bridge", true, 1), ("overlay", false, 1), ("weave", false, 1), ("macvlan", false, 0)]
        {
            let mut docker = docker.clone();
            for network in docker.networks.values_mut().take(1) {
                network.refused = refused;
                driver.clone_into(&mut network.driver);
            }
            assert_eq!(judge(&docker, &NOBODY).len(), count, "{driver}");
        }
    }

    #[test]
    fn the_kernel_gets_no_less_than_it_answers() {
        for (interval_ms, per_second) in [(1000, 1000), (10, 50_000), (0, 1)] {
            let (of_sender, of_all) = rates(IcmpLimits { interval_ms, per_second, ..IcmpLimits::default() });
            assert!(of_sender.interval_ns * 2 <= interval_ms * 1_000_000, "{of_sender:?}");
            assert!(of_all.interval_ns * per_second <= 1_000_000_000, "{of_all:?}");
        }
    }
}
