//! The express way: with XDP in the uplink's driver, UDP goes from there straight into containers. Seen from both ends:
//! what arrives and in which order, and by the container's interface, which counts what its NAPI took.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::UdpClient;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;

pub(crate) const CASES: &[Case] = &[
    Case::new("express: UDP to a published port and answers from the world go from XDP into the container", both_ways)
        .own_netpath(),
    Case::new("express: datagrams of one flow arrive in the order in which they were sent", in_order).own_netpath(),
    Case::new("express: datagrams whose checksum is left to the interface arrive whole, by tc", unfinished)
        .own_netpath(),
    Case::new("express: large datagrams arrive whole, in fragments", large).own_netpath(),
    Case::new("express: after a start with --xdp off containers are served by tc, offload or not", back_to_tc)
        .own_netpath(),
    Case::new("express: without --xdp native containers' interfaces are left alone", left_alone).own_netpath(),
];

const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);

/// Datagrams of a test that counts them.
const DATAGRAMS: u64 = 200;

fn native(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::new(&["--xdp", "native"]))
}

fn both_ways(lab: &mut Lab) -> Result<()> {
    native(lab)?;
    let server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let client = UdpClient::connect(lab.lan(), PUBLISHED)?;
    let before = by_express(&*server.place()?)?;
    for _ in 0..DATAGRAMS {
        ensure!(client.ask("in")? == client.local(), "the container doesn't see the client's address");
    }
    expect_express(&*server.place()?, before)?;

    let (_udp, udp) = lab.lan_udp()?;
    let asking = lab.start(lab.docker().idle())?;
    let place = asking.place()?;
    let client = UdpClient::connect(&place, udp)?;
    let before = by_express(&place)?;
    for _ in 0..DATAGRAMS {
        ensure!(client.ask("out")?.ip() == &HOST, "the lan doesn't see the host's address");
    }
    expect_express(&place, before)
}

/// All datagrams but the first, which opens the flow, must have taken the express way.
fn expect_express(container: &Place, before: u64) -> Result<()> {
    let came = by_express(container)? - before;
    ensure!(came >= DATAGRAMS - 1, "{came} of {DATAGRAMS} datagrams came from XDP");
    Ok(())
}

/// Frames that XDP sent into a container: its interface's NAPI counts them, and nothing that tc redirects.
fn by_express(container: &Place) -> Result<u64> {
    let statistics = container.run(&["ethtool", "-S", "eth0"])?;
    let queues = statistics.lines().filter_map(|line| line.trim().strip_prefix("rx_queue_"));
    let packets =
        queues.filter_map(|line| line.split_once("_xdp_packets:")).map(|(_, count)| count.trim().parse::<u64>());
    packets.sum::<Result<u64, _>>().with_context(|| format!("read the counts in {statistics}"))
}

fn in_order(lab: &mut Lab) -> Result<()> {
    native(lab)?;
    let container = lab.start(lab.docker().idle().publish("8080:80/udp"))?;
    let socket = container.place()?.enter(|| {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 80)).context("bind in the container")?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    })?;
    let client = UdpClient::connect(lab.lan(), PUBLISHED)?;
    // The first ones find no flow, and the burst goes on while it is opened.
    let count = 5_000_u32;
    let sent = std::thread::scope(|scope| {
        let sender =
            scope.spawn(|| (0..count).try_for_each(|number| client.socket().send(&number.to_be_bytes()).map(drop)));
        let mut expected = 0;
        let mut buffer = [0; 16];
        while expected < count {
            let length = socket.recv(&mut buffer).with_context(|| format!("datagram {expected}"))?;
            let number = u32::from_be_bytes(buffer[..length].try_into().context("four bytes")?);
            ensure!(number == expected, "datagram {number} came where {expected} was due");
            expected += 1;
        }
        Ok(sender.join())
    })?;
    sent.map_err(|_| anyhow::anyhow!("the sender panicked"))?.context("send")?;
    ensure!(by_express(&*container.place()?)? >= u64::from(count) - 100, "the datagrams didn't take the express way");
    Ok(())
}

fn unfinished(lab: &mut Lab) -> Result<()> {
    native(lab)?;
    let server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    lab.lan().run(&["ethtool", "-K", "eth0", "tx", "on"])?;
    let result = (|| {
        let client = UdpClient::connect(lab.lan(), PUBLISHED)?;
        let before = by_express(&*server.place()?)?;
        for length in [0, 1, 2, 100, 1400] {
            client.ask(&"x".repeat(length)).with_context(|| format!("{length} bytes"))?;
        }
        ensure!(by_express(&*server.place()?)? == before, "datagrams without a checksum came from XDP");
        Ok(())
    })();
    lab.lan().run(&["ethtool", "-K", "eth0", "tx", "off"])?;
    result
}

fn large(lab: &mut Lab) -> Result<()> {
    native(lab)?;
    let _server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let client = UdpClient::connect(lab.lan(), PUBLISHED)?;
    for length in [1, 1400, 1472, 1473, 4000, 20_000, 1] {
        client.ask(&"x".repeat(length)).with_context(|| format!("{length} bytes"))?;
    }
    Ok(())
}

fn back_to_tc(lab: &mut Lab) -> Result<()> {
    native(lab)?;
    let server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    let client = UdpClient::connect(lab.lan(), PUBLISHED)?;
    client.ask("by XDP")?;
    lab.remove_netpath()?;
    server.place()?.run(&["ethtool", "-K", "eth0", "gro", "off"])?;
    lab.start_netpath(Options::new(&["--xdp", "off"]))?;
    let before = by_express(&*server.place()?)?;
    UdpClient::connect(lab.lan(), PUBLISHED)?.ask("by tc")?;
    ensure!(!has_gro(&*server.place()?)?, "netpath without XDP switched the container's offload on");
    ensure!(by_express(&*server.place()?)? == before, "XDP sent frames into the container");
    Ok(())
}

fn left_alone(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::new(&["--xdp", "auto"]))?;
    let server = lab.start(lab.docker().serving(&["udp:80"]).publish("8080:80/udp"))?;
    UdpClient::connect(lab.lan(), PUBLISHED)?.ask("by tc")?;
    ensure!(!has_gro(&*server.place()?)?, "the container's receive offload is on");
    ensure!(by_express(&*server.place()?)? == 0, "XDP sent frames into the container");
    Ok(())
}

fn has_gro(container: &Place) -> Result<bool> {
    Ok(container.run(&["ethtool", "-k", "eth0"])?.contains("generic-receive-offload: on"))
}
