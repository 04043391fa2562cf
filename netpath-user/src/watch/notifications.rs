//! Notifications of the kernel over netlink multicast, of which only matters that there was one.

use std::{io, time::Duration};

use anyhow::Context as _;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use super::rtnl;

const RECEIVE_BYTES: usize = 64 * 1024;

/// A subscription.
pub(super) struct Notifications {
    socket: AsyncFd<Socket>,
    is_relevant: fn(&[u8]) -> bool,
}

impl Notifications {
    /// Subscribes to groups of a netlink protocol. Changes from now on are not missed, so subscribe before what changes is
    /// read for the first time.
    ///
    /// # Errors
    ///
    /// When the kernel gives no socket.
    pub(super) fn subscribe(protocol: isize, groups: &[u32], is_relevant: fn(&[u8]) -> bool) -> anyhow::Result<Self> {
        let mut socket = Socket::new(protocol).context("opening a netlink socket")?;
        socket.bind(&SocketAddr::new(0, 0)).context("binding a netlink socket")?;
        socket.set_non_blocking(true).context("making a netlink socket non-blocking")?;
        for group in groups {
            socket.add_membership(*group).with_context(|| format!("joining netlink group {group}"))?;
        }
        // SAFETY: `Socket` owns its descriptor, closes it only when dropped and always gives the same one; it is dropped
        // together with the registration, which takes it by value.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = registered.map_err(io::Error::from).context("watching a netlink socket")?;
        Ok(Self { socket, is_relevant })
    }

    /// Returns after a burst of relevant notifications: `settle` after the first of them.
    pub(super) async fn next(&self, settle: Duration) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            ready.clear_ready();
            if self.drain()? == Seen::Change {
                sleep(settle).await;
                self.drain()?;
                return Ok(());
            }
        }
    }

    /// Takes all that the socket holds.
    fn drain(&self) -> io::Result<Seen> {
        let mut seen = Seen::Nothing;
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.socket.get_ref().recv(&mut buffer, 0) {
                Ok(_) if rtnl::messages(&buffer).any(self.is_relevant) => seen = Seen::Change,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An overrun: something was missed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => seen = Seen::Change,
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Seen {
    Nothing,
    Change,
}
