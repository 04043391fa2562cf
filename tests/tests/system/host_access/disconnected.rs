//! The host's own connections to a container that leaves the network which publishes its port.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpath_tests::client::TcpClient;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::wait;

use super::PORT;
use crate::system::reach::PUBLISH_DEADLINE;

/// Far more than it takes the host to be told, and less than it would wait by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// The container lives on, on another network: nobody closes the connections from there.
pub(super) fn reset(lab: &mut Lab) -> Result<()> {
    let [publishing, staying] = [lab.docker().network(&[])?, lab.docker().network(&[])?];
    let request = lab.docker().serving(&["tcp:80"]).publish("8080:80").network(publishing.name());
    let container = lab.start(request)?;
    let target = SocketAddrV4::new(HOST, PORT);
    let mut asking = wait::until("the new port", PUBLISH_DEADLINE, || {
        let mut client = TcpClient::connect(lab.host(), target)?;
        client.echo("before")?;
        client.give_up_after(PATIENCE)?;
        Ok(client)
    })?;
    let mut waiting = lab.host().enter(|| Ok(TcpStream::connect(target)?))?;
    lab.docker().run(&["network", "connect", staying.name(), container.id()])?;
    lab.docker().run(&["network", "disconnect", publishing.name(), container.id()])?;
    expect_reset(&mut asking)?;
    if lab.tests_netpath() {
        // By Docker's rules who sends nothing learns nothing.
        waiting.set_read_timeout(Some(PATIENCE))?;
        let told = waiting.read(&mut [0; 1]).map_err(|error| error.kind());
        ensure!(told == Err(ErrorKind::ConnectionAborted), "who only waits is told {told:?}");
    }
    Ok(())
}

fn expect_reset(client: &mut TcpClient) -> Result<()> {
    let Err(error) = client.echo("after") else { bail!("the container answers on a network that it has left") };
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    match kinds.last() {
        Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe) => Ok(()),
        _ => Err(error).context("the connection to the container hangs"),
    }
}
