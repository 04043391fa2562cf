//! The host itself and a container use one source port to one server at the same time.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::EchoSocket;
use netpath_tests::lab::{LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::traffic::{Direction, transfer};

pub(crate) const CASES: &[Case] = &[
    Case::new("the host and a container use one source port to one TCP server at the same time", tcp),
    Case::new("the host and a container use one source port to one UDP server at the same time", udp),
    Case::new("the host and a container ping one machine with one identifier at the same time", ping),
    Case::new("the host's translated flow is shown as such, and as many as there are clashes", shown).netpath(),
    Case::new("the host's translated flows outlive a killed daemon, and new ones work meanwhile", survive)
        .own_netpath(),
    Case::new("detach gives the host's translated flows to nf_conntrack", handed_over).takeover().own_netpath(),
];

/// More than fits a packet of the lab's wires.
const LARGE: usize = 4000;

fn tcp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_tcp()?;
    let (mut inside, mut own) = tcp_clash(lab, &*container.place()?, 40_010, target)?;
    inside.echo("container, once more")?;
    own.echo("host, once more")?;
    // Merged segments and sums that are left to the interface.
    for direction in [Direction::Upload, Direction::Download] {
        let again = TcpClient::connect(&*container.place()?, target)?;
        let own = TcpClient::connect_from(lab.host(), again.local().port(), target)?;
        transfer(own, direction, 32 * 1024 * 1024).with_context(|| format!("{direction:?} of the host"))?;
        transfer(again, direction, 32 * 1024 * 1024).with_context(|| format!("{direction:?} of the container"))?;
    }
    Ok(())
}

fn udp(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_udp()?;
    let (inside, own) = udp_clash(lab, &*container.place()?, 40_011, target)?;
    // In fragments, of which only the first has the port.
    for (client, who) in [(&own, "host"), (&inside, "container"), (&own, "host again")] {
        client.ask(&who.repeat(LARGE / who.len())).with_context(|| format!("large, {who}"))?;
    }
    Ok(())
}

/// Both connect from a port, the container first; each is answered what it asked.
pub(super) fn tcp_clash(
    lab: &Lab,
    container: &Place,
    port: u16,
    target: SocketAddrV4,
) -> Result<(TcpClient, TcpClient)> {
    let mut inside = TcpClient::connect_from(container, port, target)?;
    let inside_seen = inside.who()?;
    ensure!(inside_seen.port() == port, "the container's port {port} became {}", inside_seen.port());
    let mut own = TcpClient::connect_from(lab.host(), port, target).context("the host, after the container")?;
    let own_seen = own.who()?;
    ensure!(own_seen != inside_seen, "the server can't tell them apart: {own_seen}");
    ensure!(own_seen.ip() == inside_seen.ip(), "they have one address, and are seen as {inside_seen} and {own_seen}");
    inside.echo("container")?;
    own.echo("host")?;
    Ok((inside, own))
}

/// The same by UDP.
pub(super) fn udp_clash(
    lab: &Lab,
    container: &Place,
    port: u16,
    target: SocketAddrV4,
) -> Result<(UdpClient, UdpClient)> {
    let inside = UdpClient::connect_from(container, port, target)?;
    let inside_seen = inside.ask("container")?;
    ensure!(inside_seen.port() == port, "the container's port {port} became {}", inside_seen.port());
    let own = UdpClient::connect_from(lab.host(), port, target)?;
    let own_seen = own.ask("host").context("the host, after the container")?;
    ensure!(own_seen != inside_seen, "the server can't tell them apart: {own_seen}");
    let again = (inside.ask("container again")?, own.ask("host again")?);
    ensure!(again == (inside_seen, own_seen), "they were {inside_seen} and {own_seen}, and are {again:?}");
    Ok((inside, own))
}

fn ping(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let sockets = [EchoSocket::open(&*container.place()?)?, EchoSocket::open(lab.host())?];
    let payloads: [&[u8]; 2] = [b"from the container", b"from the host"];
    for _ in 0..2 {
        for (socket, payload) in sockets.iter().zip(payloads) {
            socket.request(LAN, 79, 1, payload)?;
        }
        for (socket, payload) in sockets.iter().zip(payloads) {
            let answer = socket.answer(79)?;
            ensure!(answer.payload == payload, "got the other's answer: {answer:?}");
        }
    }
    Ok(())
}

fn shown(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, target) = lab.lan_udp()?;
    let before = lab.netpath()?.traffic("host_out")?.packets;
    let other = UdpClient::connect(lab.host(), target)?;
    other.ask("a port of its own")?;
    ensure!(lab.netpath()?.traffic("host_out")?.packets == before, "a flow without a clash was translated");
    let (_inside, own) = udp_clash(lab, &*container.place()?, 40_012, target)?;
    ensure!(lab.netpath()?.traffic("host_out")?.packets == before + 2, "not both packets of the host were counted");
    let shown = lab.netpath()?.output(&["ct", "ls", "--state", "REPLIED"])?.stdout;
    let is_own = |line: &&str| line.contains(&own.local().to_string()) && line.contains(" host ");
    ensure!(shown.lines().filter(is_own).count() == 1, "ct ls shows:\n{shown}");
    Ok(())
}

fn survive(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().idle())?;
    let ((_tcp, tcp), (_udp, udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
    let place = container.place()?;
    let (mut inside, mut own) = tcp_clash(lab, &place, 40_013, tcp)?;
    lab.netpath()?.kill()?;
    own.echo("without a daemon")?;
    inside.echo("without a daemon")?;
    udp_clash(lab, &place, 40_014, udp).context("a new one without a daemon")?;
    lab.netpath()?.start_again()?;
    own.echo("with the next daemon")?;
    inside.echo("with the next daemon")
}

fn handed_over(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().idle())?;
    let (_tcp, tcp) = lab.lan_tcp()?;
    let (mut inside, mut own) = tcp_clash(lab, &*container.place()?, 40_015, tcp)?;
    lab.netpath()?.detach()?;
    own.echo("host, by nf_conntrack")?;
    inside.echo("container, by nf_conntrack")
}
