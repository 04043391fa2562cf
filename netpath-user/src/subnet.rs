//! IPv4 addresses with a common beginning, as options and firewall rules name them: `172.17.0.0/16`, `192.0.2.7`.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    address: u32,
    mask: u32,
}

impl Subnet {
    /// Every address.
    pub const ALL: Self = Self { address: 0, mask: 0 };

    /// The addresses that begin with the first `bits` of this one; more than 32 are 32.
    #[must_use]
    pub const fn new(address: Ipv4Addr, bits: u8) -> Self {
        let mask = match bits {
            0 => 0,
            1..=31 => u32::MAX << (32 - bits),
            _ => u32::MAX,
        };
        Self { address: address.to_bits() & mask, mask }
    }

    /// One address.
    #[must_use]
    pub const fn of(address: Ipv4Addr) -> Self {
        Self::new(address, 32)
    }

    /// Whether an address is in it.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.address
    }

    /// Whether some address is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        let common = self.mask & other.mask;
        self.address & common == other.address & common
    }

    /// Whether every address of the other is in this one.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.mask & other.mask == self.mask && other.address & self.mask == self.address
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from_bits(self.address), self.mask.count_ones())
    }
}

impl FromStr for Subnet {
    type Err = String;

    /// An address, with the length of the prefix or, as iptables prints odd ones, a mask behind a slash.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| format!("{address:?} isn't an IPv4 address"))?;
        if let Ok(mask) = bits.parse::<Ipv4Addr>() {
            let mask = mask.to_bits();
            return Ok(Self { address: address.to_bits() & mask, mask });
        }
        match bits.parse::<u8>() {
            Ok(bits @ 0..=32) => Ok(Self::new(address, bits)),
            _ => Err(format!("{bits:?} isn't the length of a prefix; lengths are 0 to 32")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::Subnet;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn odd_masks_are_taken_and_wrong_ones_are_not() {
        assert!(subnet("10.0.0.7/255.0.0.255").contains([10, 9, 9, 7].into()));
        assert_eq!(subnet("172.17.3.4/16").to_string(), "172.17.0.0/16");
        assert!(subnet("0.0.0.0/0").contains([1, 2, 3, 4].into()));
        for text in ["", "web", "10.0.0.0/33", "10.0.0.0/", "::1", "10.0.0/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnets_relate() {
        for (one, other, overlaps, covers) in [
            ("172.16.0.0/12", "172.17.0.0/16", true, true),
            ("172.17.0.0/16", "172.16.0.0/12", true, false),
            ("172.17.0.0/16", "172.18.0.0/16", false, false),
            ("0.0.0.0/0", "192.0.2.1", true, true),
            ("192.0.2.1", "192.0.2.1", true, true),
        ] {
            assert_eq!(subnet(one).overlaps(subnet(other)), overlaps, "{one} {other}");
            assert_eq!(subnet(one).covers(subnet(other)), covers, "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn a_subnet_contains_what_begins_like_it(address: u32, bits in 0_u8..=32, other: u32) {
            let subnet = subnet(&format!("{}/{bits}", Ipv4Addr::from(address)));
            prop_assert!(subnet.contains(address.into()));
            let common = (address ^ other).leading_zeros();
            prop_assert_eq!(subnet.contains(other.into()), common >= u32::from(bits));
        }
    }
}
