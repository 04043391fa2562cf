//! Whole tables from rtnetlink, read synchronously in the calling thread's network namespace.
//!
//! Synchronous because a container's namespace may only be entered by a thread of its own, and because a table of
//! thousands of links is read within milliseconds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Context as _;
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
        route::RouteMessage,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tracing::debug;

/// A table that changed while it was read is read again, this often at most; the change itself brings an event anyway.
const READS_MAX: u32 = 4;
/// The kernel fills at most 32 KiB per message of a dump (`netlink_dump` in `net/netlink/af_netlink.c`).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A socket for reading tables.
pub struct Tables {
    socket: Socket,
}

impl Tables {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the kernel gives none.
    pub fn open() -> anyhow::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE).context("opening an rtnetlink socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("connecting an rtnetlink socket to the kernel")?;
        Ok(Self { socket })
    }

    /// Every link.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn links(&self) -> anyhow::Result<Vec<LinkMessage>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let messages = self.dump(&RouteNetlinkMessage::GetLink(request)).context("reading the table of links")?;
        let links = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Every IPv4 address.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn addresses(&self) -> anyhow::Result<Vec<AddressMessage>> {
        self.addresses_of(AddressFamily::Inet)
    }

    /// Every IPv6 address.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn ipv6_addresses(&self) -> anyhow::Result<Vec<AddressMessage>> {
        self.addresses_of(AddressFamily::Inet6)
    }

    fn addresses_of(&self, family: AddressFamily) -> anyhow::Result<Vec<AddressMessage>> {
        let mut request = AddressMessage::default();
        request.header.family = family;
        let messages =
            self.dump(&RouteNetlinkMessage::GetAddress(request)).context("reading the table of addresses")?;
        let addresses = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Every IPv4 route, of all tables.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn routes(&self) -> anyhow::Result<Vec<RouteMessage>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let messages = self.dump(&RouteNetlinkMessage::GetRoute(request)).context("reading the table of routes")?;
        let routes = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(routes.collect())
    }

    fn dump(&self, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(request.clone());
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        for _ in 1..READS_MAX {
            self.socket.send(&bytes, 0)?;
            if let (table, Read::Whole) = self.receive_table()? {
                return Ok(table);
            }
        }
        self.socket.send(&bytes, 0)?;
        Ok(self.receive_table()?.0)
    }

    fn receive_table(&self) -> io::Result<(Vec<RouteNetlinkMessage>, Read)> {
        let mut table = Vec::new();
        let mut read = Read::Whole;
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for bytes in messages(&buffer) {
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => message,
                    // A newer kernel's link that the parser doesn't know must not hide all the others.
                    Err(error) => {
                        debug!(%error, "an rtnetlink message can't be parsed; it is left out");
                        continue;
                    }
                };
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    read = Read::Interrupted;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => table.push(inner),
                    NetlinkPayload::Done(_) => return Ok((table, read)),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// How a table was read.
enum Read {
    Whole,
    Interrupted,
}

/// The messages in a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(NetlinkBuffer::new_checked(rest).ok()?.length()).ok()?;
        let message = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The address itself: on a point-to-point link `IFA_ADDRESS` is the peer's and `IFA_LOCAL` is ours.
#[must_use]
pub fn own_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })
    })
}

/// An Ethernet address in six bytes.
#[must_use]
pub fn ethernet_address(message: &LinkMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}
