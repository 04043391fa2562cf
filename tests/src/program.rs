//! Programs of others as servers and clients: the traffic of tests that real programs make.
//!
//! They run on this machine's files with the network of a lab's namespace, a container's included, and they are taken
//! from where packages put them: a program of the same name in somebody's home isn't the one that is meant.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;

use crate::netns::Place;
use crate::{run, shell, wait};

/// Where packages put programs.
const DIRECTORIES: [&str; 2] = ["/usr/bin", "/usr/sbin"];

/// How long a server may take to listen; python is slow to begin.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    log: NamedTempFile,
}

impl Program {
    /// Starts a server in a namespace, which isn't waited for.
    ///
    /// # Errors
    /// When it isn't installed.
    pub fn start(place: &Place, words: &[&str]) -> Result<Self> {
        let name = words.join(" ");
        let log = NamedTempFile::new().context("make a file for a log")?;
        let mut command = command(place, words)?;
        command.stdin(Stdio::null());
        let output = || fs::File::options().append(true).open(log.path()).context("open the log");
        command.stdout(output()?).stderr(output()?);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name, log })
    }

    /// The same, and waits until it takes TCP connections at a port.
    ///
    /// # Errors
    /// When it isn't installed, ends, or doesn't listen in time.
    pub fn serve(place: &Place, words: &[&str], port: u16) -> Result<Self> {
        let mut program = Self::start(place, words)?;
        program.wait_for_port(place, port)?;
        Ok(program)
    }

    /// What it has written.
    ///
    /// # Errors
    /// When that can't be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.log.path()).with_context(|| format!("read what {} has written", self.name))
    }

    fn wait_for_port(&mut self, place: &Place, port: u16) -> Result<()> {
        let target = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let listens = wait::until(&format!("{} to listen", self.name), START_DEADLINE, || {
            let ended = self.child.try_wait().context("look at a server")?;
            ensure!(ended.is_none(), "it has ended: {ended:?}");
            place.enter(|| Ok(TcpStream::connect_timeout(&target, START_DEADLINE)?)).map(drop)
        });
        listens.with_context(|| format!("it wrote: {}", self.log().unwrap_or_default()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("{} is left: {error}", self.name);
        }
    }
}

/// Runs a program in a namespace to its end, which must be a success, and gives its standard output.
///
/// # Errors
/// When it isn't installed, fails, or isn't done within a minute.
pub fn run(place: &Place, words: &[&str]) -> Result<String> {
    shell::run(&mut command(place, words)?).with_context(|| format!("in {}", place.label()))
}

fn command(place: &Place, words: &[&str]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("no program given")?;
    let mut command = place.command(find(program)?);
    command.args(arguments);
    run::mark(&mut command);
    Ok(command)
}

/// Where a program is; that it is missing fails the test.
fn find(program: &str) -> Result<String> {
    if program.starts_with('/') {
        ensure!(Path::new(program).is_file(), "{program} is missing: run `cargo xtask setup --tests`");
        return Ok(program.to_owned());
    }
    let places = DIRECTORIES.map(|directory| format!("{directory}/{program}"));
    let found = places.iter().find(|path| Path::new(path).is_file()).cloned();
    found.with_context(|| format!("{program} is missing: run `cargo xtask setup --tests`"))
}
