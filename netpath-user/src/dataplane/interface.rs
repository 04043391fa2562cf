//! What the kernel says of an interface, its name and the driver behind it, and of the network namespace.

use std::{ffi::CStr, io, mem::zeroed, os::fd::AsRawFd as _};

use nix::{
    net::if_::if_indextoname,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// The name of an interface in the caller's network namespace.
pub(super) fn name(ifindex: u32) -> io::Result<String> {
    let name = if_indextoname(ifindex)?;
    Ok(name.to_string_lossy().into_owned())
}

/// The name of an interface's driver (`ethtool -i`): `veth`, `virtio_net`, `ixgbe`, ...
pub(super) fn driver(name: &str) -> io::Result<String> {
    /// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    /// `ETHTOOL_GDRVINFO` (`include/uapi/linux/ethtool.h`).
    const GET_DRIVER_INFO: u32 = 3;

    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [libc::c_char; 32],
        rest: [u8; 160],
    }

    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the structure is plain old data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request names an interface and leads to a structure of the size that the command writes, which lives
    // until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    info.driver[31] = 0;
    // SAFETY: the array ends with the zero written above.
    let driver = unsafe { CStr::from_ptr(info.driver.as_ptr()) };
    Ok(driver.to_string_lossy().into_owned())
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
