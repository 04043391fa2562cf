//! A run over many seeds: two labs side by side, a batch of sequences at a time, and the verdict.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use netpath_common::abi::Mode;

use super::arena::Arena;
use super::compare::{Difference, Outcome, Ports, compare, faults};
use super::generate::sequence;
use super::known::{Case, KnownDifference};
use super::names::SLOTS;
use super::packet::Sequence;
use super::tap::stay_on_cpu;
use crate::lab::Dataplane;

/// Sequences that are played at the same time.
const BATCH: usize = 200;

/// Failures that are shown in full.
const SHOWN: usize = 5;

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
    fn start(label: &'static str, cpu: usize, mode: Mode, dataplane: Dataplane, peer: &Path) -> Self {
        let (batches, incoming) = channel::<Batch>();
        let (outgoing, outcomes) = channel();
        let peer = peer.to_owned();
        let thread = thread::spawn(move || {
            // The lab's processes may run anywhere: only what this thread sends must stay in order.
            let created =
                Arena::create(label, mode, dataplane, &peer).with_context(|| format!("build the {label} lab"));
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

    fn send(&self, batch: &Batch) -> Result<()> {
        // When the other end has gone, the reason lies among the outcomes.
        drop(self.batches.as_ref().map(|batches| batches.send(Arc::clone(batch))));
        Ok(())
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

/// What a run has found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Sequences compared.
    pub sequences: usize,
    /// Packets sent.
    pub packets: usize,
    /// Packets that came out, of Docker's rules.
    pub seen: usize,
    /// Steps that a known difference explains.
    pub known: BTreeMap<KnownDifference, usize>,
    /// Seeds that failed, and their reports.
    pub failures: Vec<(u64, String)>,
}

/// Plays seeds in both labs and compares.
///
/// # Errors
/// When a lab fails; differences are among the findings.
pub fn run(mode: Mode, netpath: Dataplane, peer: &Path, seeds: &[u64]) -> Result<Findings> {
    ensure!(seeds.len() < SLOTS as usize, "there is room for {SLOTS} seeds at most");
    let reference = Player::start("reference", 0, Mode::Takeover, Dataplane::Docker, peer);
    let subject = Player::start(mode.name(), 1, mode, netpath, peer);
    let mut findings = Findings::default();
    let mut slots = 0..;
    for seeds in seeds.chunks(BATCH) {
        let batch: Batch = Arc::new(slots.by_ref().zip(seeds.iter().map(|seed| sequence(*seed))).collect());
        reference.send(&batch)?;
        subject.send(&batch)?;
        let (expected, actual) = (reference.receive()?, subject.receive()?);
        for ((_, sequence), (expected, actual)) in batch.iter().zip(expected.iter().zip(&actual)) {
            judge(mode, sequence, expected, actual, &mut findings);
        }
    }
    Ok(findings)
}

/// Compares the outcomes of a sequence.
fn judge(mode: Mode, sequence: &Sequence, reference: &[Outcome], netpath: &[Outcome], findings: &mut Findings) {
    findings.sequences += 1;
    findings.packets += sequence.steps.len();
    findings.seen += reference.iter().map(|outcome| outcome.seen.len()).sum::<usize>();
    let mut ports = Ports::default();
    for (number, step) in sequence.steps.iter().enumerate() {
        let (reference, netpath) = (&reference[number], &netpath[number]);
        let mut differences = compare(reference, netpath, &mut ports);
        differences.extend(faults(netpath, step.damage.is_some()));
        if differences.is_empty() {
            continue;
        }
        let case = Case { mode, step, reference, netpath, differences: &differences };
        if let Some(known) = KnownDifference::of(&case) {
            *findings.known.entry(known).or_insert(0) += 1;
            continue;
        }
        findings.failures.push((sequence.seed, report(mode, sequence, number, &case)));
        return;
    }
}

fn report(mode: Mode, sequence: &Sequence, number: usize, case: &Case<'_>) -> String {
    let mut text = format!(
        "seed {} in {} mode: step {number} ends otherwise than with Docker's rules\n",
        sequence.seed,
        mode.name()
    );
    text += &sequence.describe();
    let mut section = |title: &str, lines: Vec<String>| {
        text += &format!("{title}\n");
        lines.iter().for_each(|line| text += &format!("    {line}\n"));
    };
    let shown = |outcome: &Outcome| outcome.seen.iter().map(ToString::to_string).collect::<Vec<_>>();
    section("differences:", case.differences.iter().map(Difference::to_string).collect());
    let invalid = if case.reference.invalid { " (nf_conntrack: INVALID)" } else { "" };
    section(&format!("out of Docker's rules{invalid}:"), shown(case.reference));
    section("out of netpath:", shown(case.netpath));
    section("sent through Docker's rules:", case.reference.sent.iter().map(|bytes| hex(bytes)).collect());
    section("sent through netpath:", case.netpath.sent.iter().map(|bytes| hex(bytes)).collect());
    text
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(96).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > 96 { format!("{shown}... ({} bytes)", bytes.len()) } else { shown }
}

impl Findings {
    /// One line about what was done.
    #[must_use]
    pub fn summary(&self) -> String {
        let known: Vec<_> = self.known.iter().map(|(known, count)| format!("{} {count}", known.id())).collect();
        format!(
            "{} sequences, {} packets in, {} out; known differences: {}; failed: {}",
            self.sequences,
            self.packets,
            self.seen,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            self.failures.len()
        )
    }

    /// Fails when there is a difference that isn't known.
    ///
    /// # Errors
    /// With the first reports.
    pub fn check(&self) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let reports: Vec<_> = self.failures.iter().take(SHOWN).map(|(_, report)| report.as_str()).collect();
        let seeds: Vec<_> = self.failures.iter().map(|(seed, _)| *seed).collect();
        bail!("{}\n\n{}\nseeds that failed: {seeds:?}", self.summary(), reports.join("\n"))
    }
}
