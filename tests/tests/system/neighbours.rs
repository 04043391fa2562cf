//! Neighbours of the host that don't answer: containers learn of it as soon as the host does.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::queue_errors;
use netpath_tests::lab::{FAR, Lab};
use netpath_tests::netns::Place;

pub(crate) const CASES: &[Case] = &[
    Case::new("a container's connection to an address that nobody has fails soon, and works when somebody has it", tcp),
    Case::new("a container's datagram to an address that nobody has is answered by an error", udp),
    Case::new("a container's connection by a gateway that nobody is fails soon", by_gateway),
    Case::new("netpath brings containers the host's errors, and nobody else's", counted).netpath(),
];

/// An address of the wire that is free.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// The kernel asks for a neighbour three times, a second apart (`mcast_solicit`, `retrans_time_ms`).
const SOON: Duration = Duration::from_secs(5);

/// An address that somebody on the wire has for a while.
struct Somebody<'a>(&'a Place);

impl<'a> Somebody<'a> {
    fn appears(place: &'a Place) -> Result<Self> {
        place.run(&["ip", "address", "add", &format!("{NOBODY}/32"), "dev", "eth0"])?;
        Ok(Self(place))
    }
}

impl Drop for Somebody<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.run(&["ip", "address", "del", &format!("{NOBODY}/32"), "dev", "eth0"]) {
            eprintln!("an address stays: {error:#}");
        }
    }
}

/// The host forgets who has had the address: it would go on sending there for some seconds.
fn forget(lab: &Lab) -> Result<()> {
    lab.host().run(&["ip", "neighbour", "flush", "to", &NOBODY.to_string(), "dev", "eth0"]).map(drop)
}

/// What a connection that can't be opened fails with.
fn refusal(place: &Place, target: SocketAddrV4) -> Result<ErrorKind> {
    match TcpClient::connect_within(place, 0, target, SOON) {
        Ok(_) => bail!("{target} took a connection"),
        Err(error) => Ok(error.downcast_ref::<io::Error>().with_context(|| format!("{error:#}"))?.kind()),
    }
}

fn expect_unreachable(place: &Place, target: SocketAddrV4) -> Result<()> {
    let kind = refusal(place, target)?;
    ensure!(kind == ErrorKind::HostUnreachable, "the connection to {target} failed otherwise: {kind}");
    Ok(())
}

fn tcp(lab: &mut Lab) -> Result<()> {
    forget(lab)?;
    let container = lab.start(lab.docker().idle())?;
    let place = container.place()?;
    let (_server, on_lan) = lab.lan_tcp()?;
    let target = SocketAddrV4::new(NOBODY, on_lan.port());
    expect_unreachable(&place, target)?;
    expect_unreachable(&place, target).context("once more")?;
    let _somebody = Somebody::appears(lab.lan())?;
    // Without netpath the first packet may be lost, and TCP repeats it after a second.
    let within = Duration::from_millis(if lab.tests_netpath() { 500 } else { 2000 });
    TcpClient::connect_within(&place, 0, target, within).context("now that somebody has it")?.echo("at once")
}

fn udp(lab: &mut Lab) -> Result<()> {
    forget(lab)?;
    let container = lab.start(lab.docker().idle())?;
    let client = UdpClient::connect(&*container.place()?, SocketAddrV4::new(NOBODY, 9))?;
    client.give_up_after(SOON)?;
    // A socket of UDP hears of this error only if it asks for it.
    queue_errors(client.socket())?;
    let kind = client.ask_in_vain("anybody there?")?;
    ensure!(kind == ErrorKind::HostUnreachable, "the socket's error is {kind}");
    Ok(())
}

fn by_gateway(lab: &mut Lab) -> Result<()> {
    forget(lab)?;
    let container = lab.start(lab.docker().idle())?;
    let (far, gateway) = (format!("{FAR}/32"), NOBODY.to_string());
    lab.host().run(&["ip", "route", "add", &far, "via", &gateway])?;
    let outcome = expect_unreachable(&*container.place()?, SocketAddrV4::new(FAR, 9));
    lab.host().run(&["ip", "route", "del", &far])?;
    outcome
}

fn counted(lab: &mut Lab) -> Result<()> {
    forget(lab)?;
    let container = lab.start(lab.docker().idle())?;
    let target = SocketAddrV4::new(NOBODY, 9);
    let before = lab.netpath()?.traffic("icmp_error")?.packets;
    // The host's own connection ends by the same error, which is nobody else's.
    expect_unreachable(lab.host(), target)?;
    let between = lab.netpath()?.traffic("icmp_error")?.packets;
    ensure!(between == before, "netpath took the host's own error");
    expect_unreachable(&*container.place()?, target)?;
    ensure!(lab.netpath()?.traffic("icmp_error")?.packets > between, "netpath counted no ICMP error");
    Ok(())
}
