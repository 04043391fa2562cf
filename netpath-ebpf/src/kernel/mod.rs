//! One safe wrapper per kernel helper that the packet path needs and that isn't about packets or maps.

pub(crate) mod atomic;
pub(crate) mod clock;
pub(crate) mod redirect;
pub(crate) mod routes;
pub(crate) mod socket_address;
pub(crate) mod sockets;
