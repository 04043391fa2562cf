//! Connections of every kind at once, for the tests that do something to netpath under them.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::Container;
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::server::Server;
use netpath_tests::traffic::{BackgroundTransfer, Direction, UdpStream};

use super::reach;

/// The port that the server container publishes, TCP and UDP.
pub(crate) const PORT: u16 = 8100;

/// Idle connections of each kind: a hundred in all.
const IDLE: usize = 50;

/// A client's question and how the server saw who asked.
struct Asked {
    client: UdpClient,
    seen: SocketAddrV4,
}

/// The traffic: idle connections, transfers and datagrams, masqueraded and published.
pub(crate) struct Live {
    idle: Vec<(TcpClient, SocketAddrV4)>,
    asked: Vec<Asked>,
    transfers: Vec<BackgroundTransfer>,
    streams: Vec<UdpStream>,
    /// Where masqueraded connections go.
    pub(crate) lan_tcp: SocketAddrV4,
    /// Where masqueraded datagrams go.
    pub(crate) lan_udp: SocketAddrV4,
    /// Containers that are clients.
    pub(crate) clients: [Container; 2],
    _server: Container,
    _lan: [Server; 2],
}

impl Live {
    /// Starts a hundred idle connections, four transfers and UDP flows, two of which clash at one source port.
    pub(crate) fn start(lab: &mut Lab) -> Result<Self> {
        let (port, udp_port) = (format!("{PORT}:80"), format!("{PORT}:80/udp"));
        let server = lab.start(lab.docker().serving(&["tcp:80", "udp:80"]).publish(&port).publish(&udp_port))?;
        let clients = [lab.start(lab.docker().idle())?, lab.start(lab.docker().idle())?];
        let ((tcp, lan_tcp), (udp, lan_udp)) = (lab.lan_tcp()?, lab.lan_udp()?);
        // From here on all that was started is in place.
        reach::connect(lab, published())?;
        let (idle, asked, transfers, streams) = Default::default();
        let lan = [tcp, udp];
        let mut live = Self { idle, asked, transfers, streams, lan_tcp, lan_udp, clients, _server: server, _lan: lan };
        live.open_idle(lab).context("open the idle connections")?;
        live.ask_first(lab).context("ask the first questions")?;
        live.start_transfers(lab).context("start the transfers")?;
        Ok(live)
    }

    /// Adds questions without a pause, of which none may get lost.
    pub(crate) fn start_streams(&mut self, lab: &Lab) -> Result<()> {
        let masqueraded = UdpClient::connect(&*self.clients[0].place()?, self.lan_udp)?;
        let published = UdpClient::connect(lab.lan(), published())?;
        self.streams = vec![UdpStream::start(masqueraded), UdpStream::start(published)];
        Ok(())
    }

    /// Fails unless every connection lives, is the same as ever, and every transfer moves on.
    pub(crate) fn expect_alive(&mut self) -> Result<()> {
        for (client, seen) in &mut self.idle {
            let now = client.who().with_context(|| format!("{} to {}", client.local(), client.remote()))?;
            ensure!(now == *seen, "the server saw {} as {seen}, and then as {now}", client.local());
        }
        for asked in &self.asked {
            let now = asked.client.ask("once more")?;
            let (local, seen) = (asked.client.local(), asked.seen);
            ensure!(now == seen, "the server saw UDP {local} as {seen}, and then as {now}");
        }
        self.streams.iter_mut().try_for_each(UdpStream::expect_alive)?;
        self.transfers.iter_mut().try_for_each(BackgroundTransfer::expect_alive)
    }

    /// Fails unless new connections of every kind work, with the addresses that they should have.
    pub(crate) fn expect_new(&self, lab: &Lab) -> Result<()> {
        let place = self.clients[1].place()?;
        let mut client = TcpClient::connect(lab.lan(), published()).context("new, published")?;
        ensure!(client.who()? == client.local(), "the container doesn't see the client's address");
        let client = UdpClient::connect(lab.lan(), published())?;
        ensure!(client.ask("new")? == client.local(), "the container doesn't see the client's address");
        let seen = TcpClient::connect(&place, self.lan_tcp).context("new, masqueraded")?.who()?;
        ensure!(seen.ip() == &HOST, "a new connection comes from {seen}");
        let seen = UdpClient::connect(&place, self.lan_udp)?.ask("new")?;
        ensure!(seen.ip() == &HOST, "new datagrams come from {seen}");
        Ok(())
    }

    /// Ends the transfers and streams and checks what they carried.
    pub(crate) fn finish(self) -> Result<()> {
        self.streams.into_iter().try_for_each(UdpStream::finish)?;
        self.transfers.into_iter().try_for_each(BackgroundTransfer::finish)
    }

    fn open_idle(&mut self, lab: &Lab) -> Result<()> {
        let place = self.clients[0].place()?;
        for _ in 0..IDLE {
            self.idle.push(idle(TcpClient::connect(&place, self.lan_tcp)?)?);
            self.idle.push(idle(TcpClient::connect(lab.lan(), published())?)?);
        }
        Ok(())
    }

    fn ask_first(&mut self, lab: &Lab) -> Result<()> {
        for client in &self.clients {
            let client = UdpClient::connect_from(&*client.place()?, 40_100, self.lan_udp)?;
            let seen = client.ask("first")?;
            self.asked.push(Asked { client, seen });
        }
        ensure!(self.asked[0].seen != self.asked[1].seen, "the lan can't tell the two containers apart");
        let client = UdpClient::connect(lab.lan(), published())?;
        let seen = client.ask("first")?;
        self.asked.push(Asked { client, seen });
        // Answered more than once: the kernel too now takes them for streams, which live for minutes.
        self.asked.iter().try_for_each(|asked| asked.client.ask("again").map(drop))
    }

    fn start_transfers(&mut self, lab: &Lab) -> Result<()> {
        let place = self.clients[0].place()?;
        for direction in [Direction::Download, Direction::Upload] {
            let masqueraded = TcpClient::connect(&place, self.lan_tcp)?;
            let published = TcpClient::connect(lab.lan(), published())?;
            self.transfers.push(BackgroundTransfer::start(masqueraded, direction)?);
            self.transfers.push(BackgroundTransfer::start(published, direction)?);
        }
        Ok(())
    }
}

/// The published port as the lan reaches it.
pub(crate) fn published() -> SocketAddrV4 {
    SocketAddrV4::new(HOST, PORT)
}

fn idle(mut client: TcpClient) -> Result<(TcpClient, SocketAddrV4)> {
    let seen = client.who()?;
    Ok((client, seen))
}
