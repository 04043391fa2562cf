//! What `ethtool` asks and sets, for interfaces of the calling thread's network namespace.

use std::{ffi::CStr, io, mem::zeroed, os::fd::AsRawFd as _};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// Commands (`include/uapi/linux/ethtool.h`).
const GET_DRIVER_INFO: u32 = 0x03;
const GET_LINK: u32 = 0x0a;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;

/// The name of an interface's driver (`ethtool -i`): `veth`, `virtio_net`, `ixgbe`, ...
///
/// # Errors
///
/// When there is no such interface, or it has no driver that answers.
pub(crate) fn driver(name: &str) -> io::Result<String> {
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [libc::c_char; 32],
        rest: [u8; 160],
    }

    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    ask(name, &mut info)?;
    info.driver[31] = 0;
    // SAFETY: the array ends with the zero written above.
    let driver = unsafe { CStr::from_ptr(info.driver.as_ptr()) };
    Ok(driver.to_string_lossy().into_owned())
}

/// Whether an interface has a carrier (`ethtool NAME`, "Link detected"). Asking has the kernel act on a carrier that came or
/// went and still waits to be looked at (`linkwatch_sync_dev`, net/core/link_watch.c).
///
/// # Errors
///
/// When there is no such interface.
pub(crate) fn has_carrier(name: &str) -> io::Result<bool> {
    let mut value = Value { command: GET_LINK, data: 0 };
    ask(name, &mut value)?;
    Ok(value.data != 0)
}

/// Switches generic receive offload on (`ethtool -K NAME gro on`). Gives whether it is on then.
///
/// # Errors
///
/// When there is no such interface, or it refuses.
pub(crate) fn switch_gro_on(name: &str) -> io::Result<bool> {
    let mut value = Value { command: GET_GRO, data: 0 };
    ask(name, &mut value)?;
    if value.data == 0 {
        ask(name, &mut Value { command: SET_GRO, data: 1 })?;
        ask(name, &mut value)?;
    }
    Ok(value.data != 0)
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Hands a structure to an interface's driver. `A` must be the kernel's structure for the command in it.
fn ask<A>(name: &str, argument: &mut A) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the structure is plain old data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut *argument).cast();
    // SAFETY: the request names an interface and leads to a structure of the size that the command writes (the callers
    // above see to that), which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
