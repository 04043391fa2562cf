//! Between the model's types and those in the maps.

use std::net::{Ipv4Addr, Ipv6Addr};

use netpath_common::{
    abi::{
        self, Address, Admitted, AdmittedKey, Hop, HopKind, Ipv6Address, PublishedBlock, PublishedKey, UplinkAddress,
    },
    tables::Published,
};

use crate::desired::{
    model::{Admission, Endpoint, Entrance, IfIndex, LinkEnd, Protocol, Uplink},
    ports::{PortBlock, PublishedPort, PublishedTarget},
};

pub(super) fn published_key(block: &PortBlock) -> PublishedKey {
    let PublishedPort { address, protocol, port } = block.first;
    let one = PublishedKey::port(address.octets(), protocol.number(), port.to_be_bytes());
    PublishedKey { prefix_len: PublishedKey::BITS - u32::from(block.bits), ..one }
}

pub(super) fn published_entry(block: &PortBlock, target: &PublishedTarget) -> (PublishedKey, PublishedBlock) {
    let shift = target.port.wrapping_sub(block.first.port);
    (published_key(block), PublishedBlock { address: target.address.octets(), shift, reserved: [0; 2] })
}

/// `None`: it isn't the daemon's.
pub(super) fn read_published(key: &PublishedKey, value: &PublishedBlock) -> Option<(PortBlock, PublishedTarget)> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == key.protocol)?;
    let bits = PublishedKey::BITS.checked_sub(key.prefix_len).filter(|bits| *bits <= u16::BITS)?;
    let first = PublishedPort { address: key.address.into(), protocol, port: u16::from_be_bytes(key.port) };
    let led = Published::of(*value, key.port);
    let target = PublishedTarget { address: led.address.into(), port: u16::from_be_bytes(led.port) };
    Some((PortBlock { first, bits: u8::try_from(bits).ok()? }, target))
}

pub(super) fn read_endpoint(endpoint: &abi::Endpoint, hop: &Hop) -> Endpoint {
    let mut bridge_mac = [0; 6];
    let bytes: &[u8] = bytemuck::bytes_of(&hop.addresses);
    bridge_mac.copy_from_slice(&bytes[6..12]);
    Endpoint {
        ifindex: endpoint.ifindex,
        bridge_ifindex: endpoint.bridge_ifindex,
        mac: endpoint.mac,
        bridge_mac,
        network: endpoint.network,
        gateway: endpoint.gateway.into(),
        masquerade: endpoint.masquerade.into(),
        terms: endpoint.terms,
        full_cone: endpoint.full_cone != 0,
        mtu: hop.mtu,
        takes_frames: hop.takes_frames != 0,
    }
}

pub(super) fn read_uplink(uplink: &abi::Uplink, hop: &Hop) -> Uplink {
    let used = uplink.addresses.iter().take(uplink.address_count as usize);
    let prefix_len = |mask: Address| u8::try_from(u32::from_be_bytes(mask).leading_ones()).unwrap_or(32);
    Uplink {
        addresses: used.map(|slot| (Ipv4Addr::from(slot.address), prefix_len(slot.mask))).collect(),
        mtu: hop.mtu,
        gateway: hop.gateway().into(),
    }
}

/// The hop of an endpoint; its generation is chosen where it is written.
pub(super) fn endpoint_hop(endpoint: &Endpoint) -> Hop {
    Hop {
        ifindex: endpoint.ifindex,
        mtu: endpoint.mtu,
        generation: 0,
        kind: HopKind::Endpoint as u8,
        takes_frames: u8::from(endpoint.takes_frames),
        addresses: Hop::addresses(endpoint.mac, endpoint.bridge_mac),
    }
}

pub(super) fn endpoint_entry(endpoint: &Endpoint, hop: u32) -> abi::Endpoint {
    abi::Endpoint {
        ifindex: endpoint.ifindex,
        bridge_ifindex: endpoint.bridge_ifindex,
        hop,
        network: endpoint.network,
        mac: endpoint.mac,
        gateway: endpoint.gateway.octets(),
        masquerade: endpoint.masquerade.octets(),
        terms: endpoint.terms,
        full_cone: u8::from(endpoint.full_cone),
        reserved: 0,
    }
}

pub(super) const fn admitted_key(entrance: Entrance) -> AdmittedKey {
    match entrance {
        Entrance::Veth(ifindex) => AdmittedKey::veth(ifindex),
        Entrance::Address(ifindex, address) => AdmittedKey::address(ifindex, address.octets()),
        Entrance::Trusted(ifindex, network) => AdmittedKey::trusted(ifindex, network),
        Entrance::Linked(ifindex, LinkEnd { neighbour, protocol, port, answers }) => AdmittedKey {
            port: port.to_be_bytes(),
            protocol: protocol.number(),
            side: if answers { AdmittedKey::ANSWERS } else { AdmittedKey::ASKS },
            ..AdmittedKey::address(ifindex, neighbour.octets())
        },
    }
}

pub(super) const fn admitted_entry(entrance: Entrance, admission: &Admission) -> Admitted {
    let admits = match entrance {
        Entrance::Veth(_) if admission.any_source => Admitted::SENDS | Admitted::ANY_SOURCE,
        Entrance::Veth(_) | Entrance::Address(..) => Admitted::SENDS,
        Entrance::Trusted(..) => Admitted::TRUSTED,
        Entrance::Linked(..) => Admitted::LINKED,
    };
    Admitted { admits, network: admission.network, terms: admission.terms }
}

pub(super) fn read_admitted(key: &AdmittedKey, value: &Admitted) -> (Entrance, Admission) {
    let entrance = if value.admits & Admitted::TRUSTED != 0 {
        let [_, _, high, low] = key.subject;
        Entrance::Trusted(key.ifindex, u16::from_be_bytes([high, low]))
    } else if let Some(protocol) = Protocol::numbered(key.protocol) {
        let (neighbour, port) = (key.subject.into(), u16::from_be_bytes(key.port));
        let answers = key.side == AdmittedKey::ANSWERS;
        Entrance::Linked(key.ifindex, LinkEnd { neighbour, protocol, port, answers })
    } else if key.subject == [0; 4] {
        Entrance::Veth(key.ifindex)
    } else {
        Entrance::Address(key.ifindex, key.subject.into())
    };
    let any_source = value.admits & Admitted::ANY_SOURCE != 0;
    (entrance, Admission { network: value.network, terms: value.terms, any_source })
}

/// The hop of an uplink; its generation is chosen where it is written.
pub(super) const fn uplink_hop(ifindex: IfIndex, uplink: &Uplink) -> Hop {
    let kind = HopKind::Uplink as u8;
    let addresses = [u32::from_ne_bytes(uplink.gateway.octets()), 0, 0];
    Hop { ifindex, mtu: uplink.mtu, generation: 0, kind, takes_frames: 0, addresses }
}

pub(super) fn uplink_entry(uplink: &Uplink, hop: u32) -> abi::Uplink {
    let mut entry = abi::Uplink {
        hop,
        address_count: 0,
        addresses: [UplinkAddress { address: [0; 4], mask: [0; 4] }; abi::Uplink::ADDRESSES_MAX],
    };
    for (slot, (address, prefix_len)) in entry.addresses.iter_mut().zip(&uplink.addresses) {
        let mask = u32::MAX.checked_shl(32 - u32::from(*prefix_len)).unwrap_or(0);
        *slot = UplinkAddress { address: address.octets(), mask: mask.to_be_bytes() };
        entry.address_count += 1;
    }
    entry
}

pub(super) fn ipv6_words(address: Ipv6Addr) -> Ipv6Address {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(address.octets().as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

pub(super) fn read_ipv6(words: Ipv6Address) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_in_survives_the_map() {
        let neighbour = Ipv4Addr::new(172, 17, 0, 3);
        let link = LinkEnd { neighbour, protocol: Protocol::Udp, port: 5432, answers: true };
        let veth = Admission { network: 7, terms: 0x1ff, any_source: true };
        for (entrance, admission) in [
            (Entrance::Veth(12), veth),
            (Entrance::Veth(12), Admission { any_source: false, ..veth }),
            (Entrance::Address(12, Ipv4Addr::new(172, 18, 0, 2)), Admission::default()),
            (Entrance::Trusted(2, 65_535), Admission::default()),
            (Entrance::Linked(12, LinkEnd { answers: false, ..link }), Admission::default()),
            (Entrance::Linked(12, link), Admission::default()),
        ] {
            let read = read_admitted(&admitted_key(entrance), &admitted_entry(entrance, &admission));
            assert_eq!(read, (entrance, admission));
        }
    }

    #[test]
    fn an_ipv6_address_survives_the_map() {
        let address: Ipv6Addr = "2001:db8::ab:1".parse().unwrap();
        assert_eq!(read_ipv6(ipv6_words(address)), address);
        assert_eq!(ipv6_words(Ipv6Addr::LOCALHOST), [0, 0, 0, 1_u32.to_be()]);
    }
}
