//! What the test peer speaks: one line per command over TCP, one datagram per question over UDP.
//!
//! | sent | answered |
//! |---|---|
//! | `who` | the address that the server sees the client under |
//! | `echo TEXT` | `TEXT` |
//! | `download BYTES` | that many bytes, then a line with their SHA-256 |
//! | `upload BYTES`, then the bytes | a line with their SHA-256 |
//! | a datagram | the address that the server sees the client under, a space, the datagram |

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// How much is written or read at once.
const CHUNK: usize = 256 * 1024;

/// The content repeats with this period, a prime: no two chunks, segments or pages are alike.
const PERIOD: usize = 1_048_573;

/// How far a transfer has come, seen from another thread, which may also speed it up or end it.
#[derive(Debug)]
pub struct Progress {
    bytes: AtomicU64,
    /// MiB per second, evenly spread, so that something can be done in the middle of the transfer; 0: as fast as it goes.
    pace: AtomicU32,
    cancelled: AtomicBool,
    start: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self::paced(0)
    }
}

impl Progress {
    /// Of a transfer that goes at a pace, in MiB per second, until [`Self::lift_pace`].
    #[must_use]
    pub fn paced(mebibytes: u32) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            pace: AtomicU32::new(mebibytes),
            cancelled: AtomicBool::new(false),
            start: Instant::now(),
        }
    }

    /// Bytes that have gone by.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets the rest go as fast as it can.
    pub fn lift_pace(&self) {
        self.pace.store(0, Ordering::Relaxed);
    }

    /// Makes the transfer fail soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn add(&self, bytes: usize) -> Result<()> {
        ensure!(!self.cancelled.load(Ordering::Relaxed), "the transfer was cancelled");
        let bytes = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let pace = self.pace.load(Ordering::Relaxed);
        if pace > 0 {
            let due = Duration::from_secs_f64(bytes as f64 / (f64::from(pace) * 1_048_576.0));
            // A pace, not a wait for something: the transfer is meant to last.
            thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
        Ok(())
    }
}

/// Writes `count` bytes of the content and gives their SHA-256.
///
/// # Errors
/// When the connection breaks, or when cancelled.
pub fn send_content(sink: &mut impl Write, count: u64, progress: &Progress) -> Result<String> {
    let content = content();
    let mut digest = Sha256::new();
    let mut position = 0_u64;
    while position < count {
        let offset = (position % PERIOD as u64) as usize;
        let length = CHUNK.min(PERIOD - offset).min(usize::try_from(count - position).unwrap_or(CHUNK));
        let chunk = &content[offset..offset + length];
        sink.write_all(chunk).with_context(|| format!("send at byte {position} of {count}"))?;
        digest.update(chunk);
        position += length as u64;
        progress.add(length)?;
    }
    Ok(hexadecimal(&digest.finalize()))
}

/// Reads `count` bytes and gives their SHA-256.
///
/// # Errors
/// When the connection breaks or ends early, or when cancelled.
pub fn receive_content(source: &mut impl Read, count: u64, progress: &Progress) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut position = 0_u64;
    while position < count {
        let wanted = CHUNK.min(usize::try_from(count - position).unwrap_or(CHUNK));
        let length =
            source.read(&mut buffer[..wanted]).with_context(|| format!("receive at byte {position} of {count}"))?;
        ensure!(length > 0, "the connection ended at byte {position} of {count}");
        digest.update(&buffer[..length]);
        position += length as u64;
        progress.add(length)?;
    }
    Ok(hexadecimal(&digest.finalize()))
}

/// Bytes that look random and are the same at both ends.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(PERIOD + 8);
    while bytes.len() < PERIOD {
        // xorshift64: all that is asked of it is that no part of the content is like another.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(PERIOD);
    bytes
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Progress, receive_content, send_content};

    #[test]
    fn both_ends_agree_on_the_digest_of_what_was_sent() {
        let count = 3_000_001;
        let mut wire = Vec::new();
        let sent = send_content(&mut wire, count, &Progress::default()).unwrap();
        let progress = Progress::default();
        let received = receive_content(&mut wire.as_slice(), count, &progress).unwrap();
        assert_eq!(sent, received);
        assert_eq!(progress.bytes(), count);
    }

    #[test]
    fn a_swapped_pair_of_bytes_changes_the_digest() {
        let count = 100_000;
        let mut wire = Vec::new();
        let sent = send_content(&mut wire, count, &Progress::default()).unwrap();
        wire.swap(50_000, 50_001);
        let received = receive_content(&mut wire.as_slice(), count, &Progress::default()).unwrap();
        assert_ne!(sent, received);
    }
}
