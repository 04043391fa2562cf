//! A lab to be measured in: a dockerd with a container whose ports are published, and a second one beside it.
//!
//! Most carriers take turns on one site. The older iptables has one of its own, because its tables can't be taken out of
//! a namespace again; netpath with thousands of published ports has one whose dockerd writes no rules, because dockerd
//! takes many minutes to write them.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::PORT;
use super::rules::{EXTRA_PORT, Rules};
use crate::container::Container;
use crate::dockerd;
use crate::lab::{CONTAINERS, Dataplane, HOST, Lab};
use crate::netns::Place;

/// Which site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// dockerd with its rules, in nftables' tables. The peers take turns.
    Main,
    /// The same rules in the older tables.
    Legacy,
    /// dockerd without rules; netpath in sole mode.
    Sole,
}

/// A lab with two containers.
#[derive(Debug)]
pub struct Site {
    /// The place of the container whose ports are published.
    pub container: Rc<Place>,
    /// The place of the other one.
    pub other: Rc<Place>,
    /// The rules of the host.
    pub rules: Rules,
    // Before the lab, whose dockerd removes them.
    crowd: Vec<Container>,
    many: Option<(u32, Container)>,
    web: Container,
    _client: Container,
    /// The lab.
    pub lab: Lab,
}

impl Site {
    /// Builds one. `peer` is the program for the image, `binary` the netpath to measure.
    ///
    /// # Errors
    /// When a tool is missing or anything can't be made.
    pub fn create(kind: Kind, binary: &Path, peer: &Path) -> Result<Self> {
        let (name, rules) = match kind {
            Kind::Main => ("bench", dockerd::Rules::WithProxy),
            Kind::Legacy => ("bench-legacy", dockerd::Rules::Alone),
            Kind::Sole => ("bench-sole", dockerd::Rules::Nothing),
        };
        let lab = Lab::named(name, rules, Dataplane::Netpath(binary.to_owned()), peer)?;
        // One client opens tens of thousands of connections in a row: let it use many ports, though not
        // [`PORT`], and again after a second.
        lab.lan().sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
        lab.lan().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        // For the peers that don't translate.
        lab.lan().run(&["ip", "route", "add", CONTAINERS, "via", &HOST.to_string()])?;
        let request = lab.docker().idle();
        let web = request.publish(&format!("{PORT}:{PORT}")).publish(&format!("{PORT}:{PORT}/udp")).start()?;
        let client = lab.docker().idle().start()?;
        client.place()?.sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
        client.place()?.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let rules = Rules::keep(lab.host(), web.address()?, PORT)?;
        Ok(Self {
            container: web.place()?,
            other: client.place()?,
            rules,
            crowd: Vec::new(),
            many: None,
            web,
            _client: client,
            lab,
        })
    }

    /// The address of the container whose ports are published.
    ///
    /// # Errors
    /// When Docker doesn't answer.
    pub fn address(&self) -> Result<std::net::Ipv4Addr> {
        self.web.address()
    }

    /// The place where the packets to published ports end.
    ///
    /// # Errors
    /// When Docker doesn't answer.
    pub fn published(&self) -> Result<Rc<Place>> {
        self.many.as_ref().map_or_else(|| Ok(Rc::clone(&self.container)), |(_, container)| container.place())
    }

    /// Has Docker publish that many more UDP ports, of one more container; none removes it.
    ///
    /// # Errors
    /// When Docker can't, or netpath doesn't follow.
    pub fn publish(&mut self, count: u32) -> Result<()> {
        if self.many.as_ref().map_or(0, |(now, _)| *now) == count {
            return Ok(());
        }
        self.many = None;
        if count > 0 {
            let last = u32::from(EXTRA_PORT) + count - 1;
            let range = format!("{EXTRA_PORT}-{last}:{EXTRA_PORT}-{last}/udp");
            let container = self.lab.docker().patient().idle().publish(&range).start()?;
            self.many = Some((count, container));
        }
        if let Ok(netpath) = self.lab.netpath() {
            netpath.wait_in_step()?;
            crate::wait::until_true("netpath to publish the ports", std::time::Duration::from_secs(60), || {
                Ok(netpath.ports()?.len() > count as usize)
            })?;
        }
        Ok(())
    }

    /// Sees that there are that many containers, besides the two that are always there; new ones publish so many ports in all.
    ///
    /// # Errors
    /// When Docker can't start one.
    pub fn crowd(&mut self, count: u32, ports: u32) -> Result<()> {
        let share = ports.checked_div(count).unwrap_or(0);
        for number in u32::try_from(self.crowd.len())?..count {
            let first = u32::from(EXTRA_PORT) + number * share;
            // Against each other, so that no two of them make a range.
            let ports = (0..share).map(|port| format!("{}:{}/udp", first + port, u32::from(PORT) - port));
            let request = ports.fold(self.lab.docker().idle(), |request, port| request.publish(&port));
            let container = request.start().with_context(|| format!("start container {number} of {count}"))?;
            self.crowd.push(container);
        }
        Ok(())
    }
}
