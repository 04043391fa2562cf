//! A host with more than one way out: a second network's interface without a default route, rules that choose among routes, and
//! a default route that moves from one interface to the other.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::lab::{FAR, HOST, Lab};
use netpath_tests::netns::Namespace;
use netpath_tests::netpath::Options;
use netpath_tests::server::{Server, any};
use netpath_tests::traffic::{BackgroundTransfer, Direction};
use netpath_tests::{run, wait};
use serde_json::Value;

use super::reach::{PUBLISH_DEADLINE, connect_from};

mod returning;

pub(crate) const CASES: &[Case] = &[
    Case::new("a second network of the host's reaches published ports, and containers reach it", both_ways)
        .own_netpath(),
    Case::new("status names interfaces with an address that can't be uplinks, in sole mode", uncovered).own_netpath(),
    Case::new("containers' packets go where rules about their network, bridge, ports and protocol say", rules)
        .own_netpath(),
    Case::new("flows with an address that the host loses end, and begin anew with the next one", loses_address)
        .own_netpath(),
    Case::new("published ports are reached by an uplink that is a bridge", bridged).own_netpath(),
    Case::new(
        "a default route that moves to another interface cuts no connection of the first one's neighbours",
        moves,
    ),
    Case::new("an uplink's address that goes for a moment ends no connection", |lab| {
        returning::address_returns(lab, Options::default())
    }),
    Case::new("an uplink's address that goes for a moment ends no connection where no uplink is named", |lab| {
        returning::address_returns(lab, Options::without_uplink())
    }),
    Case::new(
        "an address that goes for a moment ends no connection beside another uplink's default route",
        returning::beside_another,
    ),
];

/// The host's address on the second network, and a machine's there.
const HOST_THERE: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 2);
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);

/// A second network beside the lab's; dropping it takes its interface away, and the routes and rules with it.
struct Second<'a> {
    lab: &'a Lab,
    machine: Namespace,
}

impl<'a> Second<'a> {
    /// The machine has the address of the machine behind the neighbour too, which shows by whom a packet goes there. It
    /// answers ARP for its own address only, as a router would.
    fn create(lab: &'a Lab) -> Result<Self> {
        let machine = Namespace::create(&format!("{}-{}-second", run::name(), lab.mode().name()), "second")?;
        let second = Self { lab, machine };
        let pair = format!("ip link add eth1 type veth peer name eth0 netns {}", second.machine.name());
        lab.host().run(&pair.split(' ').collect::<Vec<_>>())?;
        second.machine.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
        for (place, words) in [
            (&*second.machine, format!("ip address add {MACHINE}/24 dev eth0")),
            (&*second.machine, format!("ip address add {FAR}/32 dev lo")),
            (&*second.machine, "ip link set eth0 up".to_owned()),
            (&*second.machine, format!("ip route add default via {HOST_THERE}")),
            (&*second.machine, "ethtool -K eth0 tx off tso off gso off".to_owned()),
            (lab.host(), format!("ip address add {HOST_THERE}/24 dev eth1")),
            (lab.host(), "ip link set eth1 up".to_owned()),
            (lab.host(), format!("ip route add default via {MACHINE} table 100")),
        ] {
            place.run(&words.split(' ').collect::<Vec<_>>())?;
        }
        Ok(second)
    }

    /// A server on port 9005 of every address of the machine.
    fn server(&self) -> Result<Server> {
        self.machine.enter(|| Server::tcp(any(PORT)))
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.lab.host().run(&["ip", "link", "del", "eth1"]) {
            eprintln!("the second network is left until the lab ends: {error:#}");
        }
    }
}

const PORT: u16 = 9005;

fn uncovered(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    for words in ["ip tuntap add tun9 mode tun", "ip address add 10.9.0.1/32 dev tun9", "ip link set tun9 up"] {
        lab.host().run(&words.split(' ').collect::<Vec<_>>())?;
    }
    let outcome = expect_uncovered(lab);
    lab.host().run(&["ip", "link", "del", "tun9"])?;
    outcome?;
    wait::until("status to forget the interface", PUBLISH_DEADLINE, || {
        let found: Value = lab.netpath()?.json(&["status"])?;
        ensure!(found["uncovered"].as_array().is_some_and(Vec::is_empty), "{found}");
        Ok(())
    })
}

fn expect_uncovered(lab: &mut Lab) -> Result<()> {
    let is_sole = lab.mode() == Mode::Sole;
    wait::until("status to name the interface, or not", PUBLISH_DEADLINE, || {
        let found: Value = lab.netpath()?.json(&["status"])?;
        let found = found["uncovered"].as_array().context("read what isn't covered")?;
        let names: Vec<_> = found.iter().map(|one| (one["name"].as_str(), one["addresses"][0].as_str())).collect();
        let expected = [(Some("tun9"), Some("10.9.0.1/32"))];
        ensure!(names == expected[..usize::from(is_sole)], "status names {names:?}");
        Ok(())
    })?;
    let text = lab.netpath()?.expect_code(&["status"], 0)?.stdout;
    ensure!(text.contains("tun9") == is_sole, "{text}");
    ensure!(text.contains("isn't an Ethernet interface") == is_sole, "{text}");
    Ok(())
}

fn both_ways(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::without_uplink())?;
    let request = lab.docker().serving(&["tcp:80", "udp:80"]).publish("8078:80").publish("8078:80/udp");
    let container = lab.start(request)?;
    let second = Second::create(lab)?;
    let _server = second.server()?;
    let target = SocketAddrV4::new(MACHINE, PORT);
    let mut client = connect_from(&*container.place()?, target).context("from the container to the second network")?;
    ensure!(*client.who()?.ip() == HOST_THERE, "the container is seen as {}", client.who()?);
    for address in [HOST_THERE, HOST] {
        let target = SocketAddrV4::new(address, 8078);
        let mut client = connect_from(&second.machine, target).with_context(|| format!("from there to {target}"))?;
        ensure!(client.who()? == client.local(), "the client is seen as {}", client.who()?);
        UdpClient::connect(&second.machine, target)?.ask("by UDP")?;
    }
    Ok(())
}

fn rules(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::without_uplink())?;
    let container = lab.start(lab.docker().idle())?;
    let second = Second::create(lab)?;
    let _server = second.server()?;
    let _other = lab.far().enter(|| Server::tcp(any(PORT)))?;
    let place = container.place()?;
    let seen = || -> Result<Ipv4Addr> { Ok(*connect_from(&place, SocketAddrV4::new(FAR, PORT))?.who()?.ip()) };
    for rule in ["from 172.17.0.0/16", "iif docker0", "to 198.51.100.0/24", "ipproto tcp dport 9005"] {
        let change = |what: &str| {
            let words = format!("ip rule {what} {rule} lookup 100 pref 100");
            lab.host().run(&words.split(' ').collect::<Vec<_>>())
        };
        change("add")?;
        let outcome = wait::until("the rule to count", PUBLISH_DEADLINE, || {
            let address = seen()?;
            ensure!(address == HOST_THERE, "the container came from {address}");
            Ok(())
        });
        change("del")?;
        outcome.with_context(|| format!("with the rule {rule:?}"))?;
    }
    let address = seen().context("without a rule")?;
    ensure!(address == HOST, "without a rule the container came from {address}");
    Ok(())
}

/// The host's next address on the second network.
const HOST_LATER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 3);

fn loses_address(lab: &mut Lab) -> Result<()> {
    // It must be there at the start; later another one may take its place.
    lab.host().run(&["ip", "link", "add", "eth1", "type", "bridge"])?;
    lab.start_netpath(Options::new(&["--uplink", "eth1"]))?;
    lab.host().run(&["ip", "link", "del", "eth1"])?;
    let container = lab.start(lab.docker().idle())?;
    let second = Second::create(lab)?;
    let _server = second.server()?;
    let _datagrams = second.machine.enter(|| Server::udp(any(PORT)))?;
    let (place, target) = (container.place()?, SocketAddrV4::new(MACHINE, PORT));
    let mut connection = connect_from(&place, target)?;
    let asking = UdpClient::connect(&place, target)?;
    ensure!(*connection.who()?.ip() == HOST_THERE, "the container is seen as {}", connection.who()?);
    let seen = asking.ask("before")?;
    ensure!(*seen.ip() == HOST_THERE, "by UDP the container is seen as {seen}");
    // A datagram in the middle of the change may get lost.
    asking.give_up_after(PUBLISH_DEADLINE / 5)?;
    lab.host().sysctl("net/ipv4/conf/eth1/promote_secondaries", "1")?;
    for words in [format!("add {HOST_LATER}/24 dev eth1"), format!("del {HOST_THERE}/24 dev eth1")] {
        lab.host().run(&format!("ip address {words}").split(' ').collect::<Vec<_>>())?;
    }
    // The neighbour believes for some time yet that the old address is the host's.
    second.machine.run(&["ip", "neighbour", "flush", "dev", "eth0"])?;
    wait::until("the UDP socket to be seen under the host's next address", PUBLISH_DEADLINE, || {
        let seen = asking.ask("after")?;
        ensure!(*seen.ip() == HOST_LATER, "it is seen as {seen}");
        Ok(())
    })?;
    ensure!(connection.echo("after").is_err(), "a connection went on with an address that the host hasn't any more");
    let seen = connect_from(&place, target)?.who()?;
    ensure!(*seen.ip() == HOST_LATER, "a new connection is seen as {seen}");
    Ok(())
}

fn bridged(lab: &mut Lab) -> Result<()> {
    lab.host().run(&["ip", "link", "add", "br9", "type", "bridge"])?;
    lab.start_netpath(Options::new(&["--uplink", "br9"]))?;
    let container = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish("8077:80").publish("8077:80/udp"))?;
    let second = Second::create(lab)?;
    let words = [
        "ip link set eth1 master br9".to_owned(),
        format!("ip address del {HOST_THERE}/24 dev eth1"),
        format!("ip address add {HOST_THERE}/24 dev br9"),
        "ip link set br9 up".to_owned(),
    ];
    let outcome = (|| {
        for words in words {
            lab.host().run(&words.split(' ').collect::<Vec<_>>())?;
        }
        expect_bridged(lab, &second, &container)
    })();
    lab.host().run(&["ip", "link", "del", "br9"])?;
    outcome
}

fn expect_bridged(lab: &Lab, second: &Second<'_>, container: &Container) -> Result<()> {
    let target = SocketAddrV4::new(HOST_THERE, 8077);
    let mut client = connect_from(&second.machine, target).context("from the wire by the bridge")?;
    ensure!(client.who()? == client.local(), "the client is seen as {}", client.who()?);
    UdpClient::connect(&second.machine, target)?.ask("by UDP")?;
    let _server = second.server()?;
    connect_from(&*container.place()?, SocketAddrV4::new(MACHINE, PORT)).context("from the container")?.echo("out")?;
    // In takeover Docker's rules have these packets before any program has.
    let asks =
        lab.host().run(&["cat", "/proc/sys/net/bridge/bridge-nf-call-iptables"]).is_ok_and(|text| text.trim() == "1");
    let left = lab.mode() == Mode::Takeover;
    ensure!(asks || !left, "dockerd has bridges ask no rules, so nothing is to be seen here");
    wait::until("status to say who carries what goes by the bridge", PUBLISH_DEADLINE, || {
        let text = lab.netpath_ref()?.output(&["status"])?.stdout;
        ensure!(text.contains("it is a bridge, and Docker") == left, "{text}");
        Ok(())
    })
}

fn moves(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::without_uplink())?;
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8079:80"))?;
    let (_server, target) = lab.lan_tcp()?;
    let published = SocketAddrV4::new(HOST, 8079);
    // Who sends meets the change first, so each side must be seen sending.
    let mut running = Vec::new();
    for direction in [Direction::Download, Direction::Upload] {
        for client in [TcpClient::connect(&*container.place()?, target)?, connect_from(lab.lan(), published)?] {
            running.push(BackgroundTransfer::start(client, direction)?);
        }
    }
    running.iter_mut().try_for_each(BackgroundTransfer::expect_alive)?;
    let second = Second::create(lab)?;
    let _there = second.server()?;
    let gateway = lab.host().run(&["ip", "route", "show", "default"])?;
    lab.host().run(&["ip", "route", "replace", "default", "via", &MACHINE.to_string()])?;
    let outcome = (|| {
        let mut moved =
            connect_from(&*container.place()?, SocketAddrV4::new(FAR, PORT)).context("by the new default route")?;
        ensure!(*moved.who()?.ip() == HOST_THERE, "by the new default route as {}", moved.who()?);
        running.iter_mut().try_for_each(BackgroundTransfer::expect_alive).context("after the move")?;
        connect_from(lab.lan(), published).context("the neighbour, after the move")?.echo("new")?;
        TcpClient::connect(&*container.place()?, target)?.echo("new, to the neighbour")
    })();
    let words = format!("ip route replace {}", gateway.trim());
    lab.host().run(&words.split(' ').collect::<Vec<_>>())?;
    outcome
}
