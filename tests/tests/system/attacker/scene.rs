//! The host that is attacked: containers on networks of several kinds, senders of forged frames, and taps everywhere.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use netpath_tests::attack::{Forged, Shape, Trace, What};
use netpath_tests::container::{Container, Network};
use netpath_tests::differential::tap::{HostTap, Interface, Tap};
use netpath_tests::lab::{GATEWAY, HOST, Lab};
use netpath_tests::netns::Place;

use super::{Attempt, CONTAINERS, Sender, Spot};
use crate::system::reach;
use Spot::{Far, Host, Internal, Lan, Other, Quiet, Web, Wire};

/// The containers of a test, and who listens where.
pub(super) struct Scene {
    pub(super) web: Container,
    pub(super) other: Container,
    pub(super) internal: Container,
    pub(super) quiet: Container,
    pub(super) mallory: Container,
    pub(super) insider: Container,
    pub(super) silent: Container,
    pub(super) senders: BTreeMap<u8, Tap>,
    pub(super) taps: Vec<(Spot, Tap)>,
    pub(super) host: HostTap,
    pub(super) macs: Macs,
    pub(super) gateways: [Ipv4Addr; 3],
    pub(super) _networks: [Network; 3],
}

/// Ethernet addresses.
pub(super) struct Macs {
    pub(super) host: [u8; 6],
    pub(super) lan: [u8; 6],
    pub(super) web: [u8; 6],
    pub(super) quiet: [u8; 6],
    pub(super) other: [u8; 6],
    /// Of docker0, the internal bridge and that without talk.
    pub(super) bridges: [[u8; 6]; 3],
}

impl Scene {
    pub(super) fn build(lab: &mut Lab) -> Result<Self> {
        let docker = lab.docker().clone();
        let networks = [
            docker.network(&[])?,
            docker.network(&["--internal"])?,
            docker.network(&["--opt", "com.docker.network.bridge.enable_icc=false"])?,
        ];
        let published = ["8080:80", "8080:80/udp", "127.0.0.1:9090:80", "127.0.0.1:9090:80/udp"];
        let request = docker.serving(&["tcp:80", "udp:80", "tcp:81", "udp:81"]);
        let web = lab.start(published.iter().fold(request, |request, port| request.publish(port)))?;
        reach::ask(lab, SocketAddrV4::new(HOST, 8080))?;
        let mut idle = |network: Option<&Network>| {
            let request = lab.docker().idle();
            lab.start(match network {
                Some(network) => request.network(network.name()),
                None => request,
            })
        };
        let mallory = idle(None)?;
        let other = idle(Some(&networks[0]))?;
        let (internal, insider) = (idle(Some(&networks[1]))?, idle(Some(&networks[1]))?);
        let (quiet, silent) = (idle(Some(&networks[2]))?, idle(Some(&networks[2]))?);

        let eth0 = |place: &Place| Interface::find(place, "eth0");
        let mac = |container: &Container| Ok::<_, anyhow::Error>(eth0(&*container.place()?)?.mac);
        let (mut bridges, mut gateways) = ([[0; 6]; 3], [GATEWAY; 3]);
        bridges[0] = Interface::find(lab.host(), "docker0")?.mac;
        for (number, network) in [(1, &networks[1]), (2, &networks[2])] {
            let format = "{{.Id}} {{(index .IPAM.Config 0).Gateway}}";
            let answer = docker.run(&["network", "inspect", "--format", format, network.name()])?;
            let (id, gateway) = answer.split_once(' ').with_context(|| format!("read {answer:?}"))?;
            bridges[number] = Interface::find(lab.host(), &format!("br-{}", &id[..12]))?.mac;
            gateways[number] = gateway.parse().with_context(|| format!("read {answer:?}"))?;
        }
        let macs = Macs {
            host: eth0(lab.host())?.mac,
            lan: eth0(lab.lan())?.mac,
            web: mac(&web)?,
            quiet: mac(&quiet)?,
            other: mac(&other)?,
            bridges,
        };
        let tap = |place: &Place| Tap::open(place, eth0(place)?, [0; 6]);
        let mut taps = vec![(Lan, tap(lab.lan())?), (Far, tap(lab.far())?), (Wire, tap(lab.host())?)];
        for (spot, container) in [(Web, &web), (Other, &other), (Internal, &internal), (Quiet, &quiet)] {
            taps.push((spot, tap(&*container.place()?)?));
        }
        let mut senders = BTreeMap::from([(Sender::Lan as u8, tap(lab.lan())?)]);
        for (sender, container) in [(Sender::Mallory, &mallory), (Sender::Insider, &insider), (Sender::Silent, &silent)]
        {
            senders.insert(sender as u8, tap(&*container.place()?)?);
        }
        let host = HostTap::open_for(lab.host(), &[1, 2, 4, 6, 17, 47, 50, 51, 132, 136, 253])?;
        Ok(Self {
            web,
            other,
            internal,
            quiet,
            mallory,
            insider,
            silent,
            senders,
            taps,
            host,
            macs,
            gateways,
            _networks: networks,
        })
    }

    /// From the wire, by the host's Ethernet address; it must not come to any container.
    pub(super) fn wire(&self, name: &'static str, source: Ipv4Addr, destination: Ipv4Addr, what: What) -> Attempt {
        let forged = Forged { to: self.macs.host, from: self.macs.lan, source, destination, what, shape: Shape::Whole };
        Attempt::new(name, Sender::Lan, forged, CONTAINERS, self)
    }

    /// Out of a container with its own address, by the gateway's Ethernet address.
    pub(super) fn inside(
        &self,
        name: &'static str,
        from: Sender,
        destination: Ipv4Addr,
        what: What,
    ) -> Result<Attempt> {
        let (container, bridge) = self.of(from);
        let source = container.address()?;
        let from_mac = self.senders[&(from as u8)].mac();
        let forged =
            Forged { to: self.macs.bridges[bridge], from: from_mac, source, destination, what, shape: Shape::Whole };
        Ok(Attempt::new(name, from, forged, &[Other, Internal, Quiet], self))
    }

    /// Where a sender's frames leave, and what comes to it.
    pub(super) fn sender(&self, sender: Sender) -> &Tap {
        &self.senders[&(sender as u8)]
    }

    /// A container's Ethernet address.
    pub(super) fn mac_of(&self, container: &Container) -> Result<[u8; 6]> {
        Ok(Interface::find(&*container.place()?, "eth0")?.mac)
    }

    /// A sender's container, and the number of its bridge.
    pub(super) fn of(&self, sender: Sender) -> (&Container, usize) {
        match sender {
            Sender::Lan | Sender::Mallory => (&self.mallory, 0),
            Sender::Insider => (&self.insider, 1),
            Sender::Silent => (&self.silent, 2),
        }
    }

    /// What has been seen since the last time.
    pub(super) fn seen(&self) -> Result<Vec<(Spot, Trace)>> {
        let mut seen = Vec::new();
        for (spot, tap) in &self.taps {
            seen.extend(tap.take_frames()?.iter().filter_map(|frame| Some((*spot, Trace::of_frame(frame)?))));
        }
        seen.extend(self.host.take()?.iter().filter_map(|packet| Some((Host, Trace::of_packet(packet)?))));
        Ok(seen)
    }

    pub(super) fn send(&self, from: Sender, forged: &Forged, number: u64) -> Result<()> {
        for frame in forged.frames(number) {
            self.senders[&(from as u8)].send_frame(&frame)?;
        }
        // One after the other, whichever queues they go through.
        thread::sleep(Duration::from_millis(2));
        Ok(())
    }
}
