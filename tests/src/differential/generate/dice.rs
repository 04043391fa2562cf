//! Random choices that depend on nothing but the seed.

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A source of choices. ChaCha8, whose stream is specified: another machine or version makes the same ones.
#[derive(Debug)]
pub(super) struct Dice {
    random: ChaCha8Rng,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end as u64) as usize
    }

    /// True in so many cases of a hundred.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100_u32) < percent
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.random.random()
    }

    pub(super) fn u16(&mut self) -> u16 {
        self.random.random()
    }

    pub(super) fn u32(&mut self) -> u32 {
        self.random.random()
    }

    /// A number from one to another, both included.
    pub(super) fn between(&mut self, first: u16, last: u16) -> u16 {
        self.random.random_range(first..=last)
    }

    /// Another order.
    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        things.shuffle(&mut self.random);
    }
}
