//! Exit codes: one meaning per number, and how an error finds its own.

use std::{io, path::PathBuf, process::ExitCode};

use nix::errno::Errno;

use super::preflight::PreflightError;
use crate::{control::ClientError, dataplane::PinsError};

/// There is nothing to look at.
#[derive(Debug, thiserror::Error)]
#[error("nothing is attached under {}; start it with `netpath run`", .0.display())]
pub(super) struct NothingAttached(pub(super) PathBuf);

/// A command line that clap can't know to be wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// How netpath ends. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done, and for `status`: attached and in step with Docker.
    Ok = 0,
    /// Anything that has no number of its own.
    Failure = 1,
    /// A wrong command line; clap's number.
    Usage = 2,
    /// No daemon answers, or nothing is attached.
    Unreachable = 3,
    /// A permission or capability is missing.
    Permission = 4,
    /// The kernel lacks something.
    UnsupportedKernel = 5,
    /// Attached, but not in step with Docker.
    Degraded = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code that an error asks for: that of the outermost cause that has one.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_cause).unwrap_or(Self::Failure)
    }
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<PreflightError>() {
        return Some(match error {
            PreflightError::Interface(_) | PreflightError::LogFilter(_) => Exit::Usage,
            PreflightError::Capabilities(_) => Exit::Permission,
            PreflightError::Kernel { .. } => Exit::UnsupportedKernel,
        });
    }
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return match error {
            ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => Some(Exit::Unreachable),
            ClientError::Permission(_) => Some(Exit::Permission),
            ClientError::StillRunning { .. }
            | ClientError::Http { .. }
            | ClientError::Refused { .. }
            | ClientError::Unreadable { .. } => Some(Exit::Failure),
        };
    }
    if cause.is::<UsageError>() {
        return Some(Exit::Usage);
    }
    if cause.is::<NothingAttached>() {
        return Some(Exit::Unreachable);
    }
    if let Some(error) = cause.downcast_ref::<PinsError>() {
        return match error {
            PinsError::Absent(_) => Some(Exit::Unreachable),
            PinsError::Permission(_) => Some(Exit::Permission),
            PinsError::Other(_) => None,
        };
    }
    let permission =
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            || cause.downcast_ref::<Errno>().is_some_and(|errno| matches!(errno, Errno::EPERM | Errno::EACCES));
    permission.then_some(Exit::Permission)
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf, time::Duration};

    use anyhow::Context as _;
    use nix::errno::Errno;

    use super::{Exit, NothingAttached, UsageError};
    use crate::{cli::preflight::PreflightError, control::ClientError, dataplane::PinsError};

    fn path() -> PathBuf {
        PathBuf::from("/somewhere")
    }

    #[test]
    fn each_error_has_its_exit_code_whatever_it_is_wrapped_in() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let cases: [(anyhow::Error, Exit); 14] = [
            (anyhow::anyhow!("anything"), Exit::Failure),
            (PreflightError::Interface("eth9".to_owned()).into(), Exit::Usage),
            (PreflightError::Capabilities(vec!["CAP_BPF"]).into(), Exit::Permission),
            (PreflightError::kernel("5.4.0", "x").into(), Exit::UnsupportedKernel),
            (ClientError::Unreachable { path: path(), source: refused }.into(), Exit::Unreachable),
            (ClientError::TimedOut { path: path(), waited: Duration::ZERO }.into(), Exit::Unreachable),
            (ClientError::Permission(path()).into(), Exit::Permission),
            (ClientError::StillRunning { path: path(), waited: Duration::ZERO }.into(), Exit::Failure),
            (UsageError("anything".to_owned()).into(), Exit::Usage),
            (NothingAttached(path()).into(), Exit::Unreachable),
            (PinsError::Absent(path()).into(), Exit::Unreachable),
            (PinsError::Permission(path()).into(), Exit::Permission),
            (denied.into(), Exit::Permission),
            (Errno::EPERM.into(), Exit::Permission),
        ];
        for (error, expected) in cases {
            assert_eq!(Exit::of(&error), expected, "{error}");
            let wrapped = Err::<(), _>(error).context("inner").context("outer").unwrap_err();
            assert_eq!(Exit::of(&wrapped), expected, "{wrapped:#}");
        }
    }

    #[test]
    fn the_numbers_are_the_documented_ones() {
        let exits = [
            Exit::Ok,
            Exit::Failure,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Permission,
            Exit::UnsupportedKernel,
            Exit::Degraded,
        ];
        for (number, exit) in exits.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
        }
    }
}
