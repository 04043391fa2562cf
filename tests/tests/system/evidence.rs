//! Proof that netpath carried the packets: netfilter hasn't seen them, and netpath's own counters have.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::proof::{NatCounters, expect_tracked, expect_untracked};
use netpath_tests::report::Status;

use super::reach::{ask, connect};

pub(crate) const CASES: &[Case] = &[
    Case::new("masqueraded flows are netpath's, not nf_conntrack's", masqueraded).netpath().takeover().every_engine(),
    Case::new("published flows are netpath's, not nf_conntrack's", published).netpath().takeover().every_engine(),
    Case::new("container to container is netpath's, not the bridge's", local).netpath(),
    Case::new("without netpath the same flows are nf_conntrack's", without).own_netpath().takeover(),
    Case::new("status counts what was carried, by its way", counted).netpath(),
    Case::new("a bulk transfer passes in packets far larger than the MTU", unsplit).netpath(),
];

fn masqueraded(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let ((_tcp, tcp), (_udp, udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
    let counters = NatCounters::read(lab.host())?;
    let place = container.place()?;
    let mut connection = TcpClient::connect(&place, tcp)?;
    connection.echo("by netpath")?;
    let questions = UdpClient::connect(&place, udp)?;
    questions.ask("by netpath")?;
    ping(&place, LAN)?;
    counters.expect_unmoved(lab.host())?;
    let address = container.address()?;
    for (local, remote) in [(connection.local(), tcp), (questions.local(), udp)] {
        // A UDP socket knows its own address only once it is connected: both do.
        ensure!(local.ip() == &address, "the client's own address is {local}");
        expect_untracked(lab.host(), local, remote)?;
    }
    Ok(())
}

fn published(lab: &mut Lab) -> Result<()> {
    let _container =
        lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp"))?;
    let counters = NatCounters::read(lab.host())?;
    let target = SocketAddrV4::new(HOST, 8080);
    let mut connection = connect(lab, target)?;
    connection.echo("by netpath")?;
    let questions = ask(lab, target)?;
    questions.ask("by netpath")?;
    counters.expect_unmoved(lab.host())?;
    expect_untracked(lab.host(), connection.local(), target)?;
    expect_untracked(lab.host(), questions.local(), target)
}

fn local(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]))?;
    let client = lab.start(lab.docker().idle())?;
    let before = lab.netpath()?.traffic("local")?;
    let target = SocketAddrV4::new(server.address()?, 80);
    TcpClient::connect(&*client.place()?, target)?.echo("by netpath")?;
    let carried = lab.netpath()?.traffic("local")?.packets - before.packets;
    // Handshake, question and answer, each acknowledged by another packet at most.
    ensure!(carried >= 5, "only {carried} packets from container to container were netpath's");
    Ok(())
}

fn without(lab: &mut Lab) -> Result<()> {
    // The counterpart of the proof: the same questions show netfilter at work when it is.
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let (_server, lan) = lab.lan_tcp()?;
    let counters = NatCounters::read(lab.host())?;
    let masqueraded = TcpClient::connect(&*container.place()?, lan)?;
    let published = connect(lab, SocketAddrV4::new(HOST, 8080))?;
    counters.expect_moved(lab.host())?;
    expect_tracked(lab.host(), masqueraded.local(), masqueraded.remote())?;
    expect_tracked(lab.host(), published.local(), published.remote())
}

fn counted(lab: &mut Lab) -> Result<()> {
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let client = lab.start(lab.docker().idle())?;
    let (_server, lan) = lab.lan_tcp()?;
    let before = lab.netpath()?.status()?;
    let mut open = [
        TcpClient::connect(&*client.place()?, lan)?,
        connect(lab, SocketAddrV4::new(HOST, 8080))?,
        TcpClient::connect(&*client.place()?, SocketAddrV4::new(server.address()?, 80))?,
        TcpClient::connect(lab.host(), SocketAddrV4::new(server.address()?, 80))?,
    ];
    open.iter_mut().try_for_each(|connection| connection.echo("count me"))?;
    let after = lab.netpath()?.status()?;
    let packets = |status: &Status, way: &str| status.traffic.get(way).map_or(0, |traffic| traffic.packets);
    let ways = ["masquerade_out", "masquerade_in", "published_in", "published_out", "local", "host_to_container"];
    for way in ways {
        ensure!(packets(&after, way) > packets(&before, way), "no packet was counted as {way}");
    }
    ensure!(packets(&after, "flows_opened") >= packets(&before, "flows_opened") + 2, "the flows weren't counted");
    ensure!(after.flows.used >= 2 && after.flows.capacity >= after.flows.used, "flows: {:?}", after.flows);
    Ok(())
}

fn unsplit(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().idle())?;
    let (_server, lan) = lab.lan_tcp()?;
    let before = lab.netpath()?.traffic("masquerade_out")?;
    let connection = TcpClient::connect(&*container.place()?, lan)?;
    netpath_tests::traffic::transfer(connection, netpath_tests::traffic::Direction::Upload, 64 * 1024 * 1024)?;
    let after = lab.netpath()?.traffic("masquerade_out")?;
    let mean = (after.bytes - before.bytes) / (after.packets - before.packets).max(1);
    ensure!(mean > 6000, "a packet carried {mean} bytes on average");
    Ok(())
}
