//! What the kernel says of an interface's name and of the network namespace.

use std::{io, os::fd::AsRawFd as _};

use nix::{
    net::if_::if_indextoname,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// The name of an interface in the caller's network namespace.
pub(super) fn name(ifindex: u32) -> io::Result<String> {
    let name = if_indextoname(ifindex)?;
    Ok(name.to_string_lossy().into_owned())
}

/// The kernel's number for the caller's network namespace, never 0 (kernel 5.14).
pub(super) fn netns_cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a number of eight bytes, for which there is room, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
