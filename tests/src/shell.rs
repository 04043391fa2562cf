//! Running a program to its end, with its output in hand and a deadline over it.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// The time for a command unless it is said otherwise; removing a container with 200 published ports takes dockerd 10 s.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// How often a running program is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// What a program that ended has left.
#[derive(Debug)]
pub struct Output {
    /// The exit code; a signal counts as 128 plus its number, as in a shell.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// Runs a program, which must succeed, and gives its standard output.
///
/// # Errors
/// When it can't be started, fails, or isn't done within a minute.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    ensure!(output.code == 0, "{command:?} ended with {}: {}{}", output.code, output.stderr, output.stdout);
    Ok(output.stdout)
}

/// Runs a program given as words, which must succeed, and gives its standard output.
///
/// # Errors
/// See [`run`].
pub fn run_words(words: &[&str]) -> Result<String> {
    let [program, arguments @ ..] = words else { bail!("no program given") };
    run(Command::new(program).args(arguments))
}

/// Runs a program to its end, however it ends.
///
/// # Errors
/// When it can't be started or isn't done within a minute; then it is killed.
pub fn output(command: &mut Command) -> Result<Output> {
    output_within(command, COMMAND_DEADLINE)
}

/// Runs a program given as words, which must succeed within a time, and gives its standard output.
///
/// # Errors
/// When it can't be started, fails, or isn't done in time.
pub fn run_words_within(words: &[&str], deadline: Duration) -> Result<String> {
    let [program, arguments @ ..] = words else { bail!("no program given") };
    let output = output_within(Command::new(program).args(arguments), deadline)?;
    ensure!(output.code == 0, "{words:?} ended with {}: {}{}", output.code, output.stderr, output.stdout);
    Ok(output.stdout)
}

/// Runs a program to its end within a time, however it ends.
///
/// # Errors
/// When it can't be started or isn't done in time; then it is killed.
pub fn output_within(command: &mut Command, deadline: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait_for_exit(&mut child, deadline).with_context(|| format!("wait for {command:?}"));
    if status.is_err() {
        child.kill().with_context(|| format!("kill {command:?}"))?;
        child.wait().with_context(|| format!("reap {command:?}"))?;
    }
    Ok(Output { code: code(status?), stdout: joined(stdout), stderr: joined(stderr) })
}

/// Waits until a child has ended.
///
/// # Errors
/// When it hasn't within `within`; it is left running.
pub fn wait_for_exit(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "process {} didn't end within {within:?}", child.id());
        thread::sleep(INTERVAL);
    }
}

/// The exit code as a shell gives it.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Whether a program is found in one of the directories of PATH.
#[must_use]
pub fn is_installed(program: impl AsRef<OsStr>) -> bool {
    let name = program.as_ref();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still the output.
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(reader: JoinHandle<String>) -> String {
    reader.join().unwrap_or_default()
}
