//! A run over many seeds: two labs side by side, a batch of sequences at a time, and the verdict.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use netpath_common::abi::Mode;

use super::arena::Arena;
use super::compare::Outcome;
use super::generate::{Proxy, sequence};
use super::judge::{Failure, Findings, judge};
use super::names::SLOTS;
use super::packet::Sequence;
use super::tap::stay_on_cpu;
use crate::dockerd::Rules;
use crate::lab::Dataplane;

/// Sequences that are played at the same time.
const BATCH: usize = 200;

/// Sequences that a pair of labs plays before another takes its place: their flows stay, and a table of 262,144 must hold
/// them all.
const SEEDS_PER_LAB: usize = 40_000;

/// A batch: sequences and their slots.
type Batch = Arc<Vec<(u32, Sequence)>>;

/// A lab on a thread of its own.
#[derive(Debug)]
struct Player {
    label: &'static str,
    batches: Option<Sender<Batch>>,
    outcomes: Receiver<Result<Vec<Vec<Outcome>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    fn start(label: &'static str, cpu: usize, (rules, dataplane): (Rules, Dataplane), peer: &Path) -> Self {
        let (batches, incoming) = channel::<Batch>();
        let (outgoing, outcomes) = channel();
        let peer = peer.to_owned();
        let thread = thread::spawn(move || {
            // The lab's processes may run anywhere: only what this thread sends must stay in order.
            let created =
                Arena::create(label, rules, dataplane, &peer).with_context(|| format!("build the {label} lab"));
            let mut arena = match created.and_then(|arena| stay_on_cpu(cpu).map(|()| arena)) {
                Ok(arena) => arena,
                Err(error) => return drop(outgoing.send(Err(error))),
            };
            for batch in incoming {
                let sequences: Vec<_> = batch.iter().map(|(slot, sequence)| (*slot, sequence)).collect();
                let result = arena.play(&sequences).map_err(|error| anyhow!("{error:#}\n{}", arena.diagnosis()));
                let result = result.with_context(|| format!("in the {label} lab"));
                if outgoing.send(result).is_err() {
                    return;
                }
            }
        });
        Self { label, batches: Some(batches), outcomes, thread: Some(thread) }
    }

    fn send(&self, batch: &Batch) {
        // When the other end has gone, the reason lies among the outcomes.
        drop(self.batches.as_ref().map(|batches| batches.send(Arc::clone(batch))));
    }

    fn receive(&self) -> Result<Vec<Vec<Outcome>>> {
        self.outcomes.recv().with_context(|| format!("the {} lab has ended", self.label))?
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the {} lab panicked", self.label);
        }
    }
}

/// The two labs.
#[derive(Debug)]
struct Pair {
    mode: Mode,
    reference: Player,
    subject: Player,
    next_slot: u32,
}

impl Pair {
    /// Plays sequences in both labs and compares.
    fn play(&mut self, sequences: impl IntoIterator<Item = Sequence>, findings: &mut Findings) -> Result<()> {
        let batch: Batch = Arc::new((self.next_slot..).zip(sequences).collect());
        self.next_slot += u32::try_from(batch.len())?;
        ensure!(self.next_slot < SLOTS, "there is room for {SLOTS} sequences at most");
        self.reference.send(&batch);
        self.subject.send(&batch);
        let (expected, actual) = (self.reference.receive()?, self.subject.receive()?);
        for ((_, sequence), (expected, actual)) in batch.iter().zip(expected.iter().zip(&actual)) {
            judge(self.mode, sequence, expected, actual, findings);
        }
        Ok(())
    }

    /// Plays a sequence; gives the failure if it is of the same kind as another.
    fn happens(&mut self, sequence: &Sequence, like: &Failure) -> Result<Option<Failure>> {
        let mut findings = Findings::default();
        self.play([sequence.clone()], &mut findings)?;
        Ok(findings.failures.pop().filter(|found| found.kind == like.kind))
    }

    /// A failure of one kind with as few packets as show it: played again and again, each time without one of them.
    fn shrink(&mut self, failure: &Failure) -> Result<Failure> {
        let mut sequence = failure.sequence.clone();
        sequence.steps.truncate(failure.step + 1);
        let mut smallest = self.happens(&sequence, failure)?;
        for at in (0..failure.step).rev() {
            let mut shorter = sequence.clone();
            shorter.steps.remove(at);
            if smallest.is_some()
                && let Some(found) = self.happens(&shorter, failure)?
            {
                smallest = Some(found);
                sequence = shorter;
            }
        }
        let Some(mut smallest) = smallest else {
            let report = format!("(this did not happen again when it was played alone)\n{}", failure.report);
            return Ok(Failure { report, is_shrunk: true, ..failure.clone() });
        };
        smallest.report = format!("{}\nthe whole sequence:\n{}", smallest.report, failure.sequence.describe());
        smallest.is_shrunk = true;
        Ok(smallest)
    }
}

/// Plays seeds in both labs and compares.
///
/// # Errors
/// When a lab fails; differences are among the findings.
pub fn run(mode: Mode, netpath: &Dataplane, peer: &Path, seeds: &[u64]) -> Result<Findings> {
    // Alone, netpath has no docker-proxy beside it: then the reference has none either.
    let (proxy, docker) = match mode {
        Mode::Takeover => (Proxy::On, Rules::WithProxy),
        Mode::Sole => (Proxy::Off, Rules::Alone),
    };
    let mut findings = Findings::default();
    for seeds in seeds.chunks(SEEDS_PER_LAB) {
        let reference = Player::start("reference", 0, (docker, Dataplane::Docker), peer);
        let subject = Player::start(mode.name(), 1, (Rules::of(mode), netpath.clone()), peer);
        let mut pair = Pair { mode, reference, subject, next_slot: 0 };
        for seeds in seeds.chunks(BATCH) {
            pair.play(seeds.iter().map(|seed| sequence(*seed, proxy)), &mut findings)?;
        }
        for number in findings.first_of_each_kind() {
            let failure = &findings.failures[number];
            if !failure.is_shrunk {
                findings.failures[number] = pair.shrink(failure)?;
            }
        }
    }
    Ok(findings)
}
