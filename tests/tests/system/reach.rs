//! Reaching a port that was published a moment ago: it works within a second, which these helpers hold every test to.

use std::io::{Error, ErrorKind};
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::lab::Lab;
use netpath_tests::netns::Place;
use netpath_tests::wait;

/// A published port's promise to its users: it works a second after `docker run` has returned.
pub(crate) const PUBLISH_DEADLINE: Duration = Duration::from_secs(1);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(100);

/// How long the refusal of a connection may take.
const REFUSAL: Duration = Duration::from_millis(500);

/// Connects from the lan.
pub(crate) fn connect(lab: &Lab, target: SocketAddrV4) -> Result<TcpClient> {
    connect_from(lab.lan(), target)
}

/// Connects from anywhere.
pub(crate) fn connect_from(place: &Place, target: SocketAddrV4) -> Result<TcpClient> {
    wait::until(&format!("the new port TCP {target}"), PUBLISH_DEADLINE, || {
        let mut client = TcpClient::connect_within(place, 0, target, ATTEMPT)?;
        client.give_up_after(ATTEMPT)?;
        client.echo("hello")?;
        client.be_patient()?;
        Ok(client)
    })
}

/// Asks from the lan.
pub(crate) fn ask(lab: &Lab, target: SocketAddrV4) -> Result<UdpClient> {
    wait::until(&format!("the new port UDP {target}"), PUBLISH_DEADLINE, || {
        let client = UdpClient::connect(lab.lan(), target)?;
        client.give_up_after(ATTEMPT)?;
        client.ask("hello")?;
        client.be_patient()?;
        Ok(client)
    })
}

/// Fails unless a connection from the lan is refused at once.
pub(crate) fn expect_refused(lab: &Lab, target: SocketAddrV4) -> Result<()> {
    match TcpClient::connect_within(lab.lan(), 0, target, REFUSAL) {
        Ok(_) => bail!("{target} took a connection"),
        Err(error) => {
            ensure!(has_kind(&error, &[ErrorKind::ConnectionRefused]), "{target} isn't refused: {error:#}");
            Ok(())
        }
    }
}

/// Fails unless a connection gets no answer at all.
pub(crate) fn expect_silence(place: &Place, target: SocketAddrV4) -> Result<()> {
    match TcpClient::connect_within(place, 0, target, REFUSAL) {
        Ok(_) => bail!("{target} took a connection from {}", place.label()),
        Err(error) => {
            let timeouts = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
            ensure!(has_kind(&error, &timeouts), "{} got an answer of {target}: {error:#}", place.label());
            Ok(())
        }
    }
}

fn has_kind(error: &anyhow::Error, kinds: &[ErrorKind]) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<Error>()).any(|cause| kinds.contains(&cause.kind()))
}
