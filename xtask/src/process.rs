//! Running other programs, with errors that name the command and how it ended.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// A command of a program and its arguments.
pub(crate) fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A command from words parted by blanks, for those that have no blank in an argument.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    command(words.next().unwrap_or_default(), words)
}

/// Runs it with our own output, and fails unless it ends with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| not_started(command))?;
    check(command, status, "")
}

/// Runs it without input and returns what it prints; its messages are part of the error if it fails.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| not_started(command))?;
    check(command, output.status, &String::from_utf8_lossy(&output.stderr))?;
    String::from_utf8(output.stdout).with_context(|| format!("what `{}` printed", line(command)))
}

/// Whether it runs and ends with 0, with nothing shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The same command as root: unchanged if we are, else through sudo, which asks for a password by itself.
pub(crate) fn privileged(command: Command) -> Result<Command> {
    if is_root() {
        return Ok(command);
    }
    if !succeeds(&mut words("sudo -V")) {
        bail!(
            "`{}` must run as root and there is no sudo here: run this verb as root, or that command yourself",
            line(&command)
        );
    }
    let mut sudo = Command::new("sudo");
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            // As an argument: sudo's policy usually clears the environment.
            let mut pair = name.to_owned();
            pair.push("=");
            pair.push(value);
            sudo.arg(pair);
        }
    }
    sudo.arg(command.get_program()).args(command.get_args());
    Ok(sudo)
}

fn check(command: &Command, status: ExitStatus, messages: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let messages = messages.trim();
    let colon = if messages.is_empty() { "" } else { ": " };
    match status.code() {
        Some(code) => bail!("`{}` failed with {code}{colon}{messages}", line(command)),
        None => bail!("`{}` was ended by a signal ({status}){colon}{messages}", line(command)),
    }
}

fn not_started(command: &Command) -> String {
    let missing = std::io::Error::from(ErrorKind::NotFound);
    format!(
        "`{}` could not be started (if this says \"{missing}\", `cargo xtask setup --tests` installs it)",
        line(command)
    )
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_command_its_code_and_what_it_said() {
        let error = read(&mut command("sh", ["-c", "echo no such thing >&2; exit 7"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'echo no such thing >&2; exit 7'` failed with 7: no such thing");
    }

    #[test]
    fn a_missing_program_is_named_with_the_cure() {
        let error = run(&mut words("netpath-no-such-program --now")).unwrap_err();
        assert!(error.to_string().starts_with("`netpath-no-such-program --now` could not be started"), "{error}");
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}
