//! An uplink that is without an address for a moment, as when DHCP renews it or the interface is set up anew.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::client::TcpClient;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::traffic::{BackgroundTransfer, Direction};

use super::{HOST_THERE, MACHINE, Second};
use crate::system::reach::connect_from;

/// Long enough for a daemon to act on it, and no longer than a client's patience.
const MOMENT: Duration = Duration::from_millis(100);

pub(super) fn address_returns(lab: &mut Lab, options: Options) -> Result<()> {
    lab.start_netpath(options)?;
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8074:80"))?;
    let (_server, target) = lab.lan_tcp()?;
    let mut running = transfers(lab.lan(), HOST)?;
    // Its flow ends with the address, as the kernel's masquerade has it, and is taken up again where it was.
    let mut out = TcpClient::connect(&*container.place()?, target)?;
    out.echo("before")?;
    // The host's own connection has the container's port, so it leaves with another.
    let holder = TcpClient::connect(&*container.place()?, target)?;
    let mut own = TcpClient::connect_from(lab.host(), holder.local().port(), target)?;
    let seen = own.who()?;
    ensure!(seen != own.local(), "the host's connection leaves as {seen}");
    // The second address hangs on the first.
    let addresses = lab.host().run(&["ip", "-4", "-oneline", "address", "show", "dev", "eth0"])?;
    let add = |line: &str| Some(format!("ip address add {} dev eth0", line.split_whitespace().nth(3)?));
    let addresses: Vec<_> = addresses.lines().filter_map(add).collect();
    on_host(lab, &format!("ip address del {HOST}/24 dev eth0"))?;
    thread::sleep(MOMENT);
    addresses.iter().try_for_each(|words| on_host(lab, words))?;
    on_host(lab, &format!("ip route replace default via {LAN}"))?;
    expect_alive(&mut running)?;
    own.echo("after").context("from the host itself, after the address's return")?;
    out.echo("after").context("from the container, after the address's return")?;
    connect_from(lab.lan(), SocketAddrV4::new(HOST, 8074))?.echo("new")?;
    TcpClient::connect(&*container.place()?, target)?.echo("new, to the neighbour")
}

pub(super) fn beside_another(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::without_uplink())?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8074:80"))?;
    let second = Second::create(lab)?;
    on_host(lab, &format!("ip route add default via {MACHINE} metric 100"))?;
    let mut running = transfers(&second.machine, HOST_THERE)?;
    on_host(lab, &format!("ip address del {HOST_THERE}/24 dev eth1"))?;
    thread::sleep(MOMENT);
    on_host(lab, &format!("ip address add {HOST_THERE}/24 dev eth1"))?;
    on_host(lab, &format!("ip route add default via {MACHINE} metric 100"))?;
    expect_alive(&mut running)
}

/// Running transfers by a published port, one of which the container sends and the other the client.
fn transfers(client: &Place, host: Ipv4Addr) -> Result<Vec<BackgroundTransfer>> {
    let transfer = |direction| {
        let client = connect_from(client, SocketAddrV4::new(host, 8074))?;
        BackgroundTransfer::start(client, direction)
    };
    let mut running = vec![transfer(Direction::Download)?, transfer(Direction::Upload)?];
    running.iter_mut().try_for_each(BackgroundTransfer::expect_alive).context("before anything happens")?;
    Ok(running)
}

fn expect_alive(running: &mut [BackgroundTransfer]) -> Result<()> {
    running.iter_mut().try_for_each(BackgroundTransfer::expect_alive).context("after the address's return")
}

fn on_host(lab: &Lab, words: &str) -> Result<()> {
    lab.host().run(&words.split(' ').collect::<Vec<_>>()).map(drop)
}
