//! Who may reach a container by its own address from outside its network.
//!
//! Nobody, unless its network says so. In takeover Docker's rules decide for a network that says anything of the kind.

use super::published::published_on;
use crate::{
    abi::{AdmittedKey, Endpoint, Mode, Terms},
    parse::{Headers, Transport},
    tables::Tables,
};

/// What becomes of a packet to a container's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direct {
    /// It must not pass.
    Closed,
    /// The kernel's rules decide.
    Kernel,
    /// It may pass untranslated.
    Open,
}

/// Decides for a packet that came in by an interface.
#[inline(always)]
pub(super) fn direct<T: Tables>(tables: &T, headers: &Headers, endpoint: &Endpoint, ifindex: u32) -> Direct {
    if endpoint.terms & Terms::UNTRANSLATED == 0 {
        return Direct::Closed;
    }
    if tables.config().mode() == Mode::Takeover {
        return Direct::Kernel;
    }
    if is_open(tables, headers, endpoint, ifindex) { Direct::Open } else { Direct::Closed }
}

#[inline(never)]
fn is_open<T: Tables>(tables: &T, headers: &Headers, endpoint: &Endpoint, ifindex: u32) -> bool {
    if endpoint.terms & Terms::UNPROTECTED != 0 {
        return true;
    }
    if endpoint.terms & Terms::ROUTED != 0 && headers.transport == Transport::EchoRequest {
        return true;
    }
    let is_trusted = || {
        endpoint.terms & Terms::TRUSTED != 0
            && tables.admitted(&AdmittedKey::trusted(ifindex, endpoint.network)).is_some()
    };
    (endpoint.terms & (Terms::ROUTED | Terms::DIRECT) != 0 || is_trusted())
        && published_on(tables, headers, headers.key.destination).is_some()
}
