//! Docker itself goes away and comes back.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::dockerd::Restart;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::wait;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("netpath outlives a dockerd that ends with its containers, and follows the next one", containers_end)
        .netpath()
        .every_engine(),
    Case::new("connections and new connections outlive a dockerd that keeps its containers", containers_live)
        .netpath()
        .every_engine(),
    Case::new("netpath starts while Docker is away, and follows it when it comes", docker_comes_later)
        .own_netpath()
        .every_engine(),
];

/// How soon status must show that Docker has gone.
const NOTICE_DEADLINE: Duration = Duration::from_secs(5);

fn containers_end(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let target = SocketAddrV4::new(HOST, 8080);
    connect(lab, target)?;
    lab.restart_dockerd(Restart::StopsContainers, |lab| {
        ensure!(lab.netpath()?.is_running()?, "the daemon ended with dockerd");
        expect_degraded(lab)
    })?;
    lab.netpath()?.wait_in_step().context("after dockerd's restart")?;
    container.start()?;
    connect(lab, target)?.echo("followed")?;
    lab.netpath()?.wait_in_step()
}

fn containers_live(lab: &mut Lab) -> Result<()> {
    lab.restart_dockerd(Restart::KeepsContainers, |_| Ok(())).context("give dockerd --live-restore")?;
    let result = live_restore(lab);
    lab.remove_containers()?;
    lab.restart_dockerd(Restart::StopsContainers, |_| Ok(())).context("take --live-restore from dockerd")?;
    result
}

fn live_restore(lab: &mut Lab) -> Result<()> {
    lab.netpath()?.wait_in_step()?;
    let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let client = lab.start(lab.docker().idle())?;
    let place = client.place()?;
    let (_server, lan) = lab.lan_tcp()?;
    let target = SocketAddrV4::new(HOST, 8080);
    let mut open = vec![connect(lab, target)?, TcpClient::connect(&place, lan)?];
    lab.restart_dockerd(Restart::KeepsContainers, |lab| {
        expect_degraded(lab)?;
        open.iter_mut().try_for_each(|connection| connection.echo("without dockerd"))?;
        open.push(TcpClient::connect(lab.lan(), target).context("new, published, without dockerd")?);
        open.push(TcpClient::connect(&place, lan).context("new, masqueraded, without dockerd")?);
        open.iter_mut().try_for_each(|connection| connection.echo("without dockerd"))
    })?;
    lab.netpath()?.wait_in_step()?;
    open.iter_mut().try_for_each(|connection| connection.echo("with dockerd again"))?;
    server.forget();
    connect(lab, target)?.echo("with dockerd again")
}

fn docker_comes_later(lab: &mut Lab) -> Result<()> {
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let options = netpath_tests::netpath::Options::new(&["--mode", lab.mode().name()]);
    lab.restart_dockerd(Restart::StopsContainers, |lab| {
        lab.start_netpath_unready(options)?;
        expect_degraded(lab)
    })?;
    lab.netpath()?.wait_in_step()?;
    container.start()?;
    connect(lab, SocketAddrV4::new(HOST, 8080))?.echo("followed")
}

/// Without Docker, status ends with 6: attached, but not in step.
fn expect_degraded(lab: &mut Lab) -> Result<()> {
    wait::until("status to show that Docker is away", NOTICE_DEADLINE, || {
        let status = lab.netpath()?.output(&["status"])?;
        ensure!(status.code == 6, "status ended with {}: {}{}", status.code, status.stdout, status.stderr);
        Ok(())
    })
}
