//! Incremental update of the Internet checksum (RFC 1624, equation 3).
//!
//! Three facts carry all of it. The checksum is the complement of the one's complement sum of 16-bit words. That sum
//! doesn't mind byte order: words are added as they lie in memory, and the result lies in memory as it should. And
//! replacing a word `m` by `m'` changes the sum by `m' + ~m`, so a difference can be collected over many words, kept
//! with a flow, and applied once per packet.

/// The difference that a rewrite makes to a one's complement sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(u32);

impl Checksum {
    /// No difference.
    pub const NONE: Self = Self(0);

    /// A difference as [`Self::folded`] gave it.
    #[inline(always)]
    #[must_use]
    pub const fn from_folded(folded: u16) -> Self {
        Self(folded as u32)
    }

    /// Adds the replacement of one 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn replace_u16(self, old: [u8; 2], new: [u8; 2]) -> Self {
        let old = !u16::from_ne_bytes(old);
        let new = u16::from_ne_bytes(new);
        Self(self.0 + old as u32 + new as u32)
    }

    /// Adds the replacement of two neighbouring 16-bit words.
    #[inline(always)]
    #[must_use]
    pub const fn replace_u32(self, old: [u8; 4], new: [u8; 4]) -> Self {
        self.replace_u16([old[0], old[1]], [new[0], new[1]]).replace_u16([old[2], old[3]], [new[2], new[3]])
    }

    /// Adds a 16-bit word that is there from the start: for a sum from scratch.
    #[inline(always)]
    #[must_use]
    pub const fn with_u16(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u32)
    }

    /// Adds two neighbouring 16-bit words that are there from the start.
    #[inline(always)]
    #[must_use]
    pub const fn with_u32(self, words: [u8; 4]) -> Self {
        self.with_u16([words[0], words[1]]).with_u16([words[2], words[3]])
    }

    /// Both differences together.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.folded() as u32 + other.folded() as u32)
    }

    /// The difference as one 16-bit word, to be kept in a map or given to `bpf_l4_csum_replace`.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// The checksum field after the rewrite.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = !u16::from_ne_bytes(checksum);
        let new = Self(sum as u32 + self.folded() as u32).folded();
        (!new).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Checksum;

    /// The Internet checksum over whole words, the slow way (RFC 1071).
    fn full(words: &[[u8; 2]]) -> [u8; 2] {
        let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1624_holds() {
        let new = Checksum::NONE.replace_u16([0x55, 0x55], [0x32, 0x85]).apply([0xdd, 0x2f]);
        assert_eq!(new, [0x00, 0x00]);
    }

    proptest! {
        #[test]
        fn incremental_equals_full(
            mut words in proptest::collection::vec(any::<[u8; 2]>(), 2..40),
            at in any::<prop::sample::Index>(),
            new in any::<[u8; 2]>(),
        ) {
            let at = at.index(words.len());
            let before = full(&words);
            let delta = Checksum::NONE.replace_u16(words[at], new);
            words[at] = new;
            let incremental = Checksum::from_folded(delta.folded()).apply(before);
            // 0x0000 and 0xFFFF are the same sum; a packet that isn't all zero has only one of them.
            prop_assume!(words.iter().any(|word| *word != [0, 0]));
            prop_assert_eq!(incremental, full(&words));
        }
    }
}
