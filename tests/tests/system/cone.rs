//! Full cone: what a STUN client in a container learns of the NAT between it and a server outside, and what strangers reach.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::stun::{self, Behaviour, StunServer};
use tempfile::NamedTempFile;

/// The neighbour's other address, on its interface to the machine behind it.
const LAN_SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const FULL_CONE: &[&str] = &["--opt", "netpath.full_cone=true"];
/// How long a datagram takes at most that isn't lost.
const DELIVERY: Duration = Duration::from_millis(500);

pub(crate) const CASES: &[Case] = &[
    Case::new("STUN finds mapping and filtering independent of the endpoint on a full-cone network", full_cone)
        .netpath(),
    Case::new("STUN finds filtering by address and port on any other network", no_cone).netpath(),
    Case::new("two containers with one source port have a cone each", two_owners).netpath(),
    Case::new("containers reach a cone by the host's address, its own container too", hairpin).netpath(),
    Case::new("a restarted container's cone has ended", restart).netpath(),
    Case::new("a stranger reaches a cone of docker0 until it has expired", expiry).own_netpath(),
];

fn server(lab: &Lab) -> Result<StunServer> {
    StunServer::start(lab.lan(), [LAN, LAN_SECOND], [3478, 3479])
}

fn socket(place: &Place, port: u16) -> Result<UdpSocket> {
    place.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("bind UDP port {port}")))
}

/// Whether what a machine that nobody has spoken to sends to a port of the host arrives at a socket.
fn is_reached(lab: &Lab, port: u16, at: &UdpSocket) -> Result<bool> {
    let stranger = socket(lab.far(), 0)?;
    let word = format!("from a stranger at {}", stranger.local_addr()?);
    stranger.send_to(word.as_bytes(), SocketAddrV4::new(HOST, port))?;
    at.set_read_timeout(Some(DELIVERY))?;
    let mut buffer = [0; 1500];
    match at.recv_from(&mut buffer) {
        Ok((length, from)) => {
            ensure!(buffer[..length] == *word.as_bytes(), "something else arrived");
            at.send_to(b"answer", from)?;
            stranger.set_read_timeout(Some(DELIVERY))?;
            let (_, answered) = stranger.recv_from(&mut buffer).context("the stranger's answer")?;
            ensure!(answered == SocketAddrV4::new(HOST, port).into(), "the answer came from {answered}");
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error).context("wait for a stranger"),
    }
}

fn full_cone(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let network = lab.docker().network(FULL_CONE)?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    let place = container.place()?;
    let filtering = stun::filtering(&socket(&place, 0)?, &server)?;
    ensure!(filtering == Behaviour::EndpointIndependent, "filtering is {filtering:?}");
    let asking = socket(&place, 40_100)?;
    let mapping = stun::mapping(&asking, &server)?;
    ensure!(mapping == Behaviour::EndpointIndependent, "mapping is {mapping:?}");
    let mapped = stun::mapped(&asking, &server)?;
    ensure!(mapped == SocketAddrV4::new(HOST, 40_100), "the container's own port was free, it is seen as {mapped}");
    ensure!(is_reached(lab, mapped.port(), &asking)?, "a stranger doesn't reach it");
    let flows: serde_json::Value = lab.netpath()?.json(&["ct", "ls"])?;
    ensure!(flows.to_string().contains(r#""kind":"cone""#), "no flow of a cone among {flows}");
    Ok(())
}

fn no_cone(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    for options in [&[][..], &["--opt", "netpath.full_cone=false"]] {
        let network = lab.docker().network(options)?;
        let container = lab.start(lab.docker().idle().network(network.name()))?;
        let asking = socket(&*container.place()?, 40_101)?;
        let filtering = stun::filtering(&asking, &server)?;
        ensure!(filtering == Behaviour::AddressAndPortDependent, "filtering is {filtering:?} with {options:?}");
        ensure!(!is_reached(lab, stun::mapped(&asking, &server)?.port(), &asking)?, "a stranger reaches it");
    }
    Ok(())
}

fn two_owners(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let network = lab.docker().network(FULL_CONE)?;
    let containers = [(); 2].map(|()| lab.start(lab.docker().idle().network(network.name())));
    let mut seen = Vec::new();
    for container in containers {
        let container = container?;
        let asking = socket(&*container.place()?, 40_102)?;
        let mapping = stun::mapping(&asking, &server)?;
        ensure!(mapping == Behaviour::EndpointIndependent, "mapping is {mapping:?}");
        seen.push((stun::mapped(&asking, &server)?.port(), asking, container));
    }
    ensure!(seen[0].0 == 40_102 && seen[1].0 != 40_102, "the ports are {} and {}", seen[0].0, seen[1].0);
    for (port, asking, _container) in &seen {
        ensure!(is_reached(lab, *port, asking)?, "a stranger doesn't reach port {port}");
    }
    Ok(())
}

fn hairpin(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let network = lab.docker().network(FULL_CONE)?;
    let owner = lab.start(lab.docker().idle().network(network.name()))?;
    let neighbour = lab.start(lab.docker().idle().network(network.name()))?;
    let stranger = lab.start(lab.docker().idle())?;
    let asking = socket(&*owner.place()?, 40_104)?;
    asking.set_read_timeout(Some(DELIVERY))?;
    let cone = stun::mapped(&asking, &server)?;
    for container in [&neighbour, &stranger, &owner] {
        let peer = socket(&*container.place()?, 0)?;
        peer.set_read_timeout(Some(DELIVERY))?;
        let what =
            || format!("{} knocks at {cone}", container.address().map_or_else(|_| "?".to_owned(), |at| at.to_string()));
        peer.send_to(b"knock", cone).with_context(what)?;
        let mut buffer = [0; 64];
        let (length, from) = asking.recv_from(&mut buffer).with_context(what)?;
        ensure!(buffer[..length] == *b"knock", "{}: something else arrives", what());
        asking.send_to(b"answer", from).with_context(what)?;
        let (_, answered) = peer.recv_from(&mut buffer).with_context(what)?;
        ensure!(answered == cone.into(), "{}: the answer comes from {answered}", what());
    }
    Ok(())
}

fn restart(lab: &mut Lab) -> Result<()> {
    let server = server(lab)?;
    let network = lab.docker().network(FULL_CONE)?;
    let container = lab.start(lab.docker().idle().network(network.name()))?;
    let asking = socket(&*container.place()?, 40_103)?;
    let port = stun::mapped(&asking, &server)?.port();
    ensure!(is_reached(lab, port, &asking)?, "a stranger doesn't reach it before the restart");
    drop(asking);
    container.restart()?;
    let address = container.address()?;
    lab.netpath()?.wait_for_container(address)?;
    let waiting = socket(&*container.place()?, 40_103)?;
    ensure!(!is_reached(lab, port, &waiting)?, "a stranger reaches it after the restart");
    stun::mapped(&waiting, &server)?;
    ensure!(is_reached(lab, port, &waiting)?, "a new cone doesn't open");
    Ok(())
}

fn expiry(lab: &mut Lab) -> Result<()> {
    let text = "[timeouts]\nudp_unreplied = 3\nudp_replied = 3\nudp_stream = 3\n[networks.bridge]\nfull_cone = true\n";
    let mut file = NamedTempFile::new().context("make a file")?;
    file.write_all(text.as_bytes()).context("write the file")?;
    lab.start_netpath(Options::new(&["--config", &file.path().to_string_lossy()]))?;
    let server = server(lab)?;
    let container = lab.start(lab.docker().idle())?;
    let asking = socket(&*container.place()?, 40_104)?;
    let port = stun::mapped(&asking, &server)?.port();
    std::thread::sleep(Duration::from_secs(2));
    ensure!(is_reached(lab, port, &asking)?, "a stranger doesn't reach it within its time");
    // Its time, and the second by which its last packet may have been later than is written, twice over.
    std::thread::sleep(Duration::from_secs(7));
    ensure!(!is_reached(lab, port, &asking)?, "a stranger reaches it after its time");
    Ok(())
}
