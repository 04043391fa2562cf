//! Who sent what came out of a container's veth: by whose address, and what that container's network allows.

use crate::{
    abi::{Admitted, AdmittedKey, Mode, PathCount, Terms},
    drop::DropReason,
    forward::Verdict,
    parse::Headers,
    tables::{Arrival, Tables},
};

/// What is known of a sender, in one register, for the reason that [`crate::forward::Fate`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sender(u64);

impl Sender {
    /// The source is the container's own address on this veth.
    const OWN: u64 = 1;
    /// The source is the container's own address on another network.
    const SIBLING: u64 = 2;
    /// The container may send with any address, and this one is nobody's.
    const ROUTER: u64 = 4;
    /// The veth is known and the source isn't its container's.
    const FOREIGN: u64 = 8;
    /// It isn't known whose the veth is.
    const UNKNOWN: u64 = 16;

    /// The network of the veth.
    #[inline(always)]
    pub(super) const fn network(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// What that network allows.
    #[inline(always)]
    pub(super) const fn terms(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether the address is the container's own on this veth.
    #[inline(always)]
    pub(super) const fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    /// Whether what is sent to others than neighbours is the kernel's to route: the container is a router for this address.
    #[inline(always)]
    pub(super) const fn is_router(self) -> bool {
        self.0 & Self::ROUTER != 0
    }

    /// Whether the container must not send with this address.
    #[inline(always)]
    pub(super) const fn is_foreign(self) -> bool {
        self.0 & Self::FOREIGN != 0
    }

    /// Whether netpath doesn't know the veth's container, or not yet.
    #[inline(always)]
    pub(super) const fn is_unknown(self) -> bool {
        self.0 & Self::UNKNOWN != 0
    }

    /// What becomes of a packet to a neighbour that mustn't be reached: Docker's rules drop it, where the bridge asks them.
    ///
    /// # Errors
    ///
    /// [`DropReason::IccOff`] where nobody else drops it.
    #[inline(always)]
    pub(super) const fn icc_off(self, mode: Mode) -> Result<Verdict, DropReason> {
        match mode {
            Mode::Takeover if self.terms() & Terms::ICC_UNGUARDED == 0 => Ok(Verdict::kernel(PathCount::ToKernel)),
            _ => Err(DropReason::IccOff),
        }
    }

    #[inline(always)]
    const fn new(standing: u64, network: u16, terms: u16) -> Self {
        Self(standing | (terms as u64) << 16 | (network as u64) << 32)
    }
}

/// The sender of a packet.
#[inline(always)]
pub(super) fn sender<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> Sender {
    Sender(find(tables, headers, arrival))
}

#[inline(never)]
fn find<T: Tables>(tables: &T, headers: &Headers, arrival: &Arrival) -> u64 {
    let source = headers.key.source;
    let owner = tables.endpoint(source);
    if let Some(own) = &owner
        && own.ifindex == arrival.ifindex
    {
        return Sender::new(Sender::OWN, own.network, own.terms).0;
    }
    let Some(veth) = tables.admitted(&AdmittedKey::veth(arrival.ifindex)) else { return Sender::UNKNOWN };
    let standing = if owner.is_some() {
        match tables.admitted(&AdmittedKey::address(arrival.ifindex, source)) {
            Some(_) => Sender::SIBLING,
            None => Sender::FOREIGN,
        }
    } else if veth.admits & Admitted::ANY_SOURCE != 0 && !tables.is_host_address(source) {
        Sender::ROUTER
    } else {
        Sender::FOREIGN
    };
    Sender::new(standing, veth.network, veth.terms).0
}
