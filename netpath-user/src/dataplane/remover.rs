//! Removing flows that somebody names: the program `np_remove`, pinned so that the command line needs no daemon for it.
//!
//! A pair must go as a whole and at once. Two deletes from here would leave half of a flow for as long as a system call
//! takes, and a packet of that time could open it anew in between; the program deletes both entries within nanoseconds,
//! like the packet path itself.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt as _, path::Path};

use anyhow::Context as _;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use bytemuck::Pod;
use netpath_common::{
    abi::{FlowKey, RUN_KEYS_MAX, names::program},
    wire::ethernet,
};

use super::{
    bpf,
    layout::Layout,
    pins::{PinsError, is_absent},
};

/// What removes flows.
pub struct Remover {
    program: SchedClassifier,
}

impl Remover {
    /// Opens the program that is pinned below a directory.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub fn open(pin_dir: &Path) -> Result<Self, PinsError> {
        let path = Layout::new(pin_dir).program(program::REMOVE);
        let program = SchedClassifier::from_pin(&path).map_err(|error| match error {
            error if is_absent(&error) => PinsError::Absent(pin_dir.to_owned()),
            error => PinsError::Other(anyhow::Error::new(error).context(format!("can't open {}", path.display()))),
        })?;
        Ok(Self { program })
    }

    /// Removes the flows that hold these keys, of either direction, whatever they are doing, and gives how many there
    /// were.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't run the program; some flows may be gone then.
    pub fn remove(&self, keys: &[FlowKey]) -> anyhow::Result<u64> {
        run(&self.program, keys).context("the program that removes flows failed")
    }
}

/// Runs a program that deletes flows, or cones, on all the keys, and gives how many it deleted.
pub(super) fn run<K: Pod>(program: &SchedClassifier, keys: &[K]) -> Result<u64, ProgramError> {
    let mut deleted = 0;
    for keys in keys.chunks(RUN_KEYS_MAX) {
        let mut data = vec![0; ethernet::LEN];
        data.extend_from_slice(bytemuck::cast_slice(keys));
        let options = TestRunOptions { data_in: Some(&data), ..TestRunOptions::new() };
        deleted += u64::from(program.test_run(options)?.return_value);
    }
    Ok(deleted)
}

/// Pins the program in the place of an older one, without a moment in which there is none.
pub(super) fn pin(layout: &Layout, program: &SchedClassifier) -> anyhow::Result<()> {
    let path = layout.program(program::REMOVE);
    let new = path.with_file_name(format!("{}_new", program::REMOVE));
    let what = || format!("can't pin {}", path.display());
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    let name = CString::new(new.as_os_str().as_bytes()).with_context(what)?;
    bpf::pin_object(std::os::fd::AsFd::as_fd(program.fd()?), &name).with_context(what)?;
    fs::rename(&new, &path).with_context(what)
}
