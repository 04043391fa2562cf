//! The verdict over sequences: which differences are known, and what is said about the others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use netpath_common::abi::Mode;

use super::compare::{Difference, Outcome, Ports, compare, faults};
use super::known::{Case, KnownDifference};
use super::packet::{Sequence, Side};
use super::spoil::SelfCheck;

/// Kinds of failures of which one is shown in full.
const SHOWN: usize = 12;

/// Sequences whose outcomes are spoiled as well, to see that it would be noticed.
const SELF_CHECKED: usize = 500;

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
    /// What failed.
    pub failures: Vec<Failure>,
    /// Whether the comparison would have noticed.
    pub self_check: SelfCheck,
}

/// A sequence that came out otherwise than it should.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The sequence.
    pub sequence: Sequence,
    /// The first step that shows it.
    pub step: usize,
    /// What it is, in a few words: failures of one kind have the same.
    pub kind: String,
    /// The sequence and both outcomes.
    pub report: String,
    /// Whether the report is about the shortest sequence.
    pub is_shrunk: bool,
}

/// Compares the outcomes of a sequence.
pub fn judge(mode: Mode, sequence: &Sequence, reference: &[Outcome], netpath: &[Outcome], findings: &mut Findings) {
    findings.sequences += 1;
    findings.packets += sequence.steps.len();
    findings.seen += reference.iter().map(|outcome| outcome.seen.len()).sum::<usize>();
    let mut ports = Ports::default();
    // Conversations of which the two dataplanes know different things, for a known reason.
    let mut diverged = BTreeSet::new();
    for (number, step) in sequence.steps.iter().enumerate() {
        let (reference, netpath) = (&reference[number], &netpath[number]);
        let before = ports.clone();
        let mut differences = compare(reference, netpath, &mut ports);
        if differences.is_empty() {
            if findings.sequences <= SELF_CHECKED {
                findings.self_check.step(reference, netpath, &before);
            }
            continue;
        }
        let conversation = step.conversation();
        let earlier = |known: KnownDifference| diverged.contains(&(conversation, known));
        let reset =
            sequence.steps[..number].iter().any(|before| before.resets() && before.conversation() == conversation);
        // No reason excuses a fault that Docker's rules don't have.
        let theirs = faults(reference, step.damage.is_some());
        let mut own = faults(netpath, step.damage.is_some());
        own.retain(|fault| theirs.iter().all(|other| other.what != fault.what));
        let faultless = own.is_empty();
        differences.extend(own);
        let case = Case { mode, step, reference, netpath, differences: &differences, reset, earlier: &earlier };
        if let Some(known) = KnownDifference::of(&case).filter(|_| faultless) {
            diverged.insert((conversation, known));
            *findings.known.entry(known).or_insert(0) += 1;
            continue;
        }
        let (kind, report) = (kind(&case), report(mode, sequence, number, &case));
        findings.failures.push(Failure { sequence: sequence.clone(), step: number, kind, report, is_shrunk: false });
        return;
    }
}

fn kind(case: &Case<'_>) -> String {
    let what = |difference: &Difference| match difference.what {
        // Of fragments there may be any number.
        "verdict" if case.step.fragments.size == 0 => difference.to_string(),
        what => what.to_owned(),
    };
    let all: Vec<_> = case.differences.iter().map(what).collect();
    let mut words = vec![case.step.datagram.kind()];
    words.extend(case.step.damage.map(|_| "damaged"));
    words.extend((case.step.fragments.size != 0).then_some("in fragments"));
    words.extend(case.reference.invalid.then_some("invalid to nf_conntrack"));
    let from = match case.step.from {
        Side::World => "the world",
        Side::Container(_) => "a container",
    };
    let text = format!("{} from {from}: {}", words.join(" "), all.join(", "));
    text.replace("Container(0)", "Container").replace("Container(1)", "Container")
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
        let reports: Vec<_> =
            self.first_of_each_kind().iter().map(|number| self.failures[*number].report.as_str()).collect();
        let seeds = |failures: &[usize]| {
            failures.iter().map(|number| self.failures[*number].sequence.seed.to_string()).collect::<Vec<_>>().join(" ")
        };
        let kinds = self.kinds();
        let list = kinds.iter().map(|(kind, failures)| format!("{kind}\n    seeds {}", seeds(failures)));
        let list = list.collect::<Vec<_>>().join("\n");
        bail!("{}\n\n{}\n{list}", self.summary(), reports.join("\n"))
    }

    /// The failures to show: one of each kind.
    #[must_use]
    pub fn first_of_each_kind(&self) -> Vec<usize> {
        self.kinds().values().take(SHOWN).map(|failures| failures[0]).collect()
    }

    fn kinds(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, failure) in self.failures.iter().enumerate() {
            kinds.entry(&failure.kind).or_default().push(number);
        }
        kinds
    }
}
