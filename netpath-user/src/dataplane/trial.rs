//! Programs on trial: on single frames without a network (`BPF_PROG_TEST_RUN`), and what they cost. For tests and
//! measurements; the daemon needs none of it. The maps are the real ones.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use aya::programs::{Program, SchedClassifier, TestRun as _, TestRunOptions};
use netpath_common::abi::names::program;

use super::{Kernel, attach};
use crate::desired::model::IfIndex;

/// What a program made of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// The program's return value: `TC_ACT_*` or `XDP_*`.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// What a program costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramCost {
    /// The program.
    pub name: String,
    /// The kernel's number for it: another one when it was loaded again.
    pub id: u32,
    /// Instructions that the verifier went through; kernels before 5.16 don't tell.
    pub verified_instructions: Option<u32>,
    /// How often it ran while the kernel counted run times.
    pub runs: u64,
    /// How long these runs took together.
    pub run_time: Duration,
}

impl Kernel {
    /// Runs a tc program on one frame that came in by an interface. Several CPUs may run it at once.
    ///
    /// # Errors
    ///
    /// When there is no such program, or the kernel refuses the frame: it takes one page at most.
    pub fn test_tc(&self, program: &str, ifindex: IfIndex, frame: &[u8]) -> anyhow::Result<TestRun> {
        self.repeat_tc(program, ifindex, frame, 1)
    }

    /// Runs a tc program again and again on one frame, as the run before has left it, without a system call in between.
    ///
    /// # Errors
    ///
    /// See [`Self::test_tc`].
    pub fn repeat_tc(&self, program: &str, ifindex: IfIndex, frame: &[u8], times: u32) -> anyhow::Result<TestRun> {
        /// Size of `struct __sk_buff` and the place of its member `ifindex` (`include/uapi/linux/bpf.h`).
        const CONTEXT_LEN: usize = 192;
        const IFINDEX_AT: usize = 40;
        /// An answer may be longer than what it answers.
        const ANSWER_LEN_MAX: usize = 128;

        let mut context = [0; CONTEXT_LEN];
        context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len().max(ANSWER_LEN_MAX)];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: times,
            ..TestRunOptions::new()
        };
        let found = self.ebpf.program(program).ok_or_else(|| anyhow!("the eBPF object lacks the program {program}"))?;
        let classifier: &SchedClassifier = found.try_into().with_context(|| format!("{program} isn't for tc"))?;
        let result = classifier.test_run(options);
        let result = result.with_context(|| format!("can't run {program}"))?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRun { action: result.return_value, frame: out })
    }

    /// Runs the XDP program on one frame, as [`Self::test_tc`] does for tc.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the frame.
    pub fn test_xdp(&mut self, frame: &[u8]) -> anyhow::Result<TestRun> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = attach::xdp_program(&mut self.ebpf, program::XDP_UPLINK)?
            .test_run(options)
            .context("can't run the XDP program")?;
        Ok(TestRun { action: result.return_value, frame: out })
    }

    /// What each loaded program costs.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't tell.
    pub fn program_costs(&self) -> anyhow::Result<Vec<ProgramCost>> {
        let cost = |(name, program): (&str, &Program)| {
            let info = program.info().with_context(|| format!("can't ask for the program {name}"))?;
            let verified_instructions = info.verified_instruction_count();
            Ok(ProgramCost {
                name: name.to_owned(),
                id: info.id(),
                verified_instructions,
                runs: info.run_count(),
                run_time: info.run_time(),
            })
        };
        self.ebpf.programs().filter(|(_, program)| program.fd().is_ok()).map(cost).collect()
    }
}
