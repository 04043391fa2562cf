//! Containers' addresses that are nobody's any more, while connections of the host's own go on to them.
//!
//! A container that ends closes its connections. One that only leaves a network doesn't: its sockets there keep an address that
//! it hasn't any more. Docker's rules are told, and the host answers with a reset what the connection sends next; a socket that
//! netpath has led to the container has nobody who would.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::desired::{
    host::HostModel,
    model::{Change, IfIndex, State},
};

/// Endpoints that were removed, with their veths.
#[derive(Debug, Default)]
pub(super) struct Departed(BTreeSet<(Ipv4Addr, IfIndex)>);

impl Departed {
    /// Takes note of a change that is about to be made.
    pub(super) fn learn(&mut self, change: &Change, actual: &State) {
        if let Change::RemoveEndpoint(address) = change
            && let Some(endpoint) = actual.endpoints.get(address)
        {
            self.0.insert((*address, endpoint.ifindex));
        }
    }

    /// The addresses whose veths are gone as well; each is given once. Until then the container may be there, as on a network
    /// that is left to Docker, and its connections live. Where the address is a container's again, that one answers.
    pub(super) fn take(&mut self, host: &HostModel, actual: &State) -> Vec<Ipv4Addr> {
        self.0.retain(|(address, _)| !actual.endpoints.contains_key(address));
        let gone = self.0.extract_if(.., |(_, veth)| !host.links.contains_key(veth));
        gone.map(|(address, _)| address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::{Dataplane as _, fake::Fake},
        desired::{
            build::{Wishes, build},
            diff::diff,
            sample::{self, VETH, WEB},
        },
    };
    use netpath_common::abi::Mode;

    fn removed() -> (Departed, Fake) {
        let wanted = build(&sample::docker(), &sample::host(), Mode::Takeover, &Wishes::default(), &State::default());
        let mut fake = Fake::default();
        diff(&State::default(), &wanted.state).iter().for_each(|change| fake.apply(change).unwrap());
        let mut departed = Departed::default();
        let change = Change::RemoveEndpoint(WEB);
        departed.learn(&change, fake.actual());
        fake.apply(&change).unwrap();
        (departed, fake)
    }

    #[test]
    fn an_address_is_nobodys_when_its_veth_is_gone_too() {
        let (mut departed, fake) = removed();
        let mut host = sample::host();
        assert_eq!(departed.take(&host, fake.actual()), Vec::<Ipv4Addr>::new());
        host.links.remove(&VETH);
        assert_eq!(departed.take(&host, fake.actual()), [WEB]);
        assert_eq!(departed.take(&host, fake.actual()), Vec::<Ipv4Addr>::new());
    }

    #[test]
    fn an_address_that_is_a_containers_again_is_forgotten() {
        let (mut departed, fake) = removed();
        let mut host = sample::host();
        host.links.remove(&VETH);
        let again = build(&sample::docker(), &sample::host(), Mode::Takeover, &Wishes::default(), &State::default());
        assert_eq!(departed.take(&host, &again.state), Vec::<Ipv4Addr>::new());
        assert_eq!(departed.take(&host, fake.actual()), Vec::<Ipv4Addr>::new());
    }
}
