//! IPv6 from the wire to containers that have such addresses: netpath leaves it to the kernel, so what is open is what Docker
//! leaves open, which from 27.0 on keeps rules of ip6tables unless it is told not to.

use std::net::Ipv6Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::attack::{ipv6_datagram, is_marked, mark};
use netpath_tests::container::Container;
use netpath_tests::differential::tap::{Interface, Tap};
use netpath_tests::dockerd::Restart;
use netpath_tests::engine::Engine;
use netpath_tests::lab::{HOST_IPV6, Lab};
use netpath_tests::wait;

use super::SETTLED;

/// An address of a machine on the wire.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

/// How soon a container's address is usable: the kernel looks first whether somebody else has it.
const USABLE: Duration = Duration::from_secs(5);

fn address(lab: &Lab, container: &Container) -> Result<Ipv6Addr> {
    let format = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    let text = lab.docker().run(&["inspect", "--format", format, container.id()])?;
    text.parse().with_context(|| format!("read {text:?}"))
}

/// Whether a dockerd that isn't told otherwise keeps rules of ip6tables.
fn has_rules(lab: &Lab) -> bool {
    matches!(lab.engine(), Engine::Newer(newer) if newer.version.starts_with("28"))
}

/// Whether Docker itself keeps the wire from containers' IPv6 addresses. In sole mode it is told to keep no rules.
fn is_guarded(lab: &Lab) -> bool {
    lab.mode() == Mode::Takeover && has_rules(lab)
}

pub(super) fn from_wire(lab: &mut Lab) -> Result<()> {
    play(lab, !is_guarded(lab))?;
    if lab.mode() == Mode::Takeover || !has_rules(lab) {
        return Ok(());
    }
    // What netpath's documents advise where containers have IPv6.
    lab.restart_dockerd(Restart::WithIpv6Rules, |_| Ok(()))?;
    let outcome = play(lab, false).context("with Docker's rules of ip6tables");
    lab.remove_containers()?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(()))?;
    outcome
}

/// Sends to a container; `open` says whether strangers reach it.
fn play(lab: &mut Lab, open: bool) -> Result<()> {
    let network = lab.docker().network(&["--ipv6", "--subnet", "fd00:6e70::/64"])?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    let place = container.place()?;
    let own = address(lab, &container)?;
    let (host, lan) = (Interface::find(lab.host(), "eth0")?, Interface::find(lab.lan(), "eth0")?);
    let inside = Interface::find(&place, "eth0")?;
    let (wire, tap) = (Tap::open(lab.lan(), lan, [0; 6])?, Tap::open(&place, inside, [0; 6])?);
    let arrives = |number| Ok::<_, anyhow::Error>(tap.take_frames()?.iter().any(|frame| is_marked(frame, number)));

    wait::until("the host to reach the container by IPv6", USABLE, || {
        lab.host().enter(|| {
            let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.send_to(&mark(1), (own, 9)).context("send a datagram")?;
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(100));
        ensure!(arrives(1)?, "it isn't seen in the container");
        Ok(())
    })?;

    let rows = [
        ("by the host's Ethernet address", host.mac, STRANGER, open),
        ("in the name of another container", host.mac, Ipv6Addr::from(u128::from(own) + 1), open),
        ("by the container's Ethernet address", inside.mac, STRANGER, false),
        ("in the name of the host", host.mac, HOST_IPV6, open),
        ("in the name of ::1", host.mac, Ipv6Addr::LOCALHOST, false),
    ];
    let mut wrong = Vec::new();
    for (number, (name, to, source, is_open)) in (10..).zip(rows) {
        tap.take_frames()?;
        wire.send_frame(&ipv6_datagram((to, lan.mac), (source, own), 9, number))?;
        thread::sleep(SETTLED);
        if arrives(number)? != is_open {
            wrong.push(format!("{name}: {}", if is_open { "doesn't arrive" } else { "gets through" }));
        }
    }
    ensure!(wrong.is_empty(), "to the container's IPv6 address:\n    {}", wrong.join("\n    "));
    Ok(())
}
