//! Containers of a lab's dockerd, handled through the docker command as a user would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::image::{BUSYBOX, PEER};
use crate::netns::Place;
use crate::{run, shell};

/// The image that every lab's dockerd imports.
pub const IMAGE: &str = "netpath-test";

/// The docker command, pointed at one daemon.
#[derive(Debug, Clone)]
pub struct Docker {
    host: String,
    deadline: Duration,
}

impl Docker {
    /// For the daemon at an address as DOCKER_HOST takes it.
    #[must_use]
    pub fn new(host: String) -> Self {
        Self { host, deadline: Duration::from_secs(60) }
    }

    /// The same with more time for each command: dockerd needs minutes to publish a thousand ports on a busy machine.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { deadline: Duration::from_secs(600), ..self.clone() }
    }

    /// Runs `docker WORDS...`, which must succeed, and gives its standard output without the last newline.
    ///
    /// # Errors
    /// See [`shell::run`].
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["docker", "--host", &self.host];
        all.extend_from_slice(words);
        Ok(shell::run_words_within(&all, self.deadline)?.trim_end().to_owned())
    }

    /// A container that serves the test protocol on ports given as [`crate::server`]'s program takes them.
    #[must_use]
    pub fn serving(&self, ports: &[&str]) -> Request {
        let command = std::iter::once(PEER).chain(ports.iter().copied()).map(str::to_owned).collect();
        Request { docker: self.clone(), options: Vec::new(), command }
    }

    /// A container that only exists: tests open their sockets in its network namespace.
    #[must_use]
    pub fn idle(&self) -> Request {
        let command = [BUSYBOX, "sleep", "3600"].map(str::to_owned).to_vec();
        Request { docker: self.clone(), options: Vec::new(), command }
    }

    /// Makes a network, with options of `docker network create`. It is removed when the returned handle is dropped.
    ///
    /// # Errors
    /// When Docker can't.
    pub fn network(&self, options: &[&str]) -> Result<Network> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.run(&[&["network", "create"], options, &[name.as_str()]].concat())?;
        Ok(Network { docker: self.clone(), name })
    }

    /// Removes every container, running or not.
    ///
    /// # Errors
    /// When dockerd doesn't answer.
    pub fn remove_all(&self) -> Result<()> {
        let listed = self.run(&["ps", "--all", "--quiet"])?;
        let mut words = vec!["rm", "--force", "--volumes"];
        words.extend(listed.lines());
        if words.len() > 3 {
            self.run(&words)?;
        }
        Ok(())
    }
}

/// A network that a test has made; dropping it removes it.
#[derive(Debug)]
pub struct Network {
    docker: Docker,
    name: String,
}

impl Network {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.docker.run(&["network", "rm", &self.name]) {
            eprintln!("network {} is left until the lab ends: {error:#}", self.name);
        }
    }
}

/// What `docker run` shall start.
#[derive(Debug)]
pub struct Request {
    docker: Docker,
    options: Vec<String>,
    command: Vec<String>,
}

impl Request {
    /// Publishes a port or a range, written as for `docker run --publish`.
    #[must_use]
    pub fn publish(self, port: &str) -> Self {
        self.option("--publish", port)
    }

    /// Connects it to a network other than the default one.
    #[must_use]
    pub fn network(self, name: &str) -> Self {
        self.option("--network", name)
    }

    /// Adds an option of `docker run` that has no value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.to_owned());
        self
    }

    /// Adds an option of `docker run`.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Runs `docker run --detach`. The container is removed when the returned handle is dropped.
    ///
    /// # Errors
    /// When Docker doesn't start it.
    pub fn start(self) -> Result<Container> {
        let mark = format!("{}={}", run::MARK, run::name());
        // Process 1 ignores SIGTERM unless it asks for it: SIGKILL saves the ten seconds until docker loses patience.
        let mut words = vec!["run", "--detach", "--stop-signal", "SIGKILL", "--env", &mark];
        words.extend(self.options.iter().map(String::as_str));
        words.push(IMAGE);
        words.extend(self.command.iter().map(String::as_str));
        let id = self.docker.run(&words)?;
        Ok(Container { docker: self.docker, id, is_own: true, state: RefCell::new(None) })
    }
}

/// A container; dropping it removes it, if a test has started it.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    id: String,
    is_own: bool,
    /// What was asked of Docker about it; forgotten when it is restarted.
    state: RefCell<Option<State>>,
}

#[derive(Debug, Clone)]
struct State {
    /// By network.
    addresses: BTreeMap<String, Ipv4Addr>,
    place: Rc<Place>,
}

impl Container {
    /// Its id, in full.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The container with an id or a name, which something else has started and will remove.
    #[must_use]
    pub fn existing(docker: &Docker, id: &str) -> Self {
        Self { docker: docker.clone(), id: id.to_owned(), is_own: false, state: RefCell::new(None) }
    }

    /// Its address on its network.
    ///
    /// # Errors
    /// When it has none, or several, or Docker doesn't answer.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let addresses = self.state()?.addresses;
        ensure!(addresses.len() == 1, "container {} has other than one address: {addresses:?}", self.id);
        addresses.into_values().next().context("it has one address")
    }

    /// Its address on one of its networks.
    ///
    /// # Errors
    /// When it isn't there or Docker doesn't answer.
    pub fn address_on(&self, network: &str) -> Result<Ipv4Addr> {
        let addresses = self.state()?.addresses;
        addresses.get(network).copied().with_context(|| format!("container {} is on {addresses:?}", self.id))
    }

    /// Its addresses on all of its networks.
    ///
    /// # Errors
    /// When Docker doesn't answer.
    pub fn addresses(&self) -> Result<BTreeMap<String, Ipv4Addr>> {
        Ok(self.state()?.addresses)
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// When it isn't running or Docker doesn't answer.
    pub fn place(&self) -> Result<Rc<Place>> {
        Ok(self.state()?.place)
    }

    /// Runs `docker restart`.
    ///
    /// # Errors
    /// When Docker can't.
    pub fn restart(&self) -> Result<()> {
        self.forget();
        self.docker.run(&["restart", &self.id]).map(drop)
    }

    /// Runs `docker start`.
    ///
    /// # Errors
    /// When Docker can't.
    pub fn start(&self) -> Result<()> {
        self.forget();
        self.docker.run(&["start", &self.id]).map(drop)
    }

    /// Runs `docker stop`.
    ///
    /// # Errors
    /// When Docker can't.
    pub fn stop(&self) -> Result<()> {
        self.forget();
        self.docker.run(&["stop", &self.id]).map(drop)
    }

    /// Forgets address and namespace: they are asked for again.
    pub fn forget(&self) {
        self.state.replace(None);
    }

    fn state(&self) -> Result<State> {
        if let Some(known) = self.state.borrow().as_ref() {
            return Ok(known.clone());
        }
        let state = self.ask()?;
        self.state.replace(Some(state.clone()));
        Ok(state)
    }

    fn ask(&self) -> Result<State> {
        let format =
            "{{.State.Pid}}{{range $name, $at := .NetworkSettings.Networks}} {{$name}}={{$at.IPAddress}}{{end}}";
        let answer = self.docker.run(&["inspect", "--format", format, &self.id])?;
        let mut words = answer.split(' ');
        let pid = words.next().unwrap_or_default();
        // Without an address of its own: --network host, none or container:X.
        let on = words.filter_map(|word| word.split_once('=')).filter(|(_, address)| !address.is_empty());
        let addresses: BTreeMap<_, _> = on
            .map(|(network, address)| Ok((network.to_owned(), address.parse()?)))
            .collect::<Result<_>>()
            .with_context(|| format!("read docker inspect's {answer:?}"))?;
        let label = addresses.values().next().map_or_else(|| self.id.clone(), Ipv4Addr::to_string);
        let place = Place::open(&format!("container {label}"), &PathBuf::from(format!("/proc/{pid}/ns/net")))?;
        Ok(State { addresses, place: Rc::new(place) })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        if let Err(error) = self.docker.run(&["rm", "--force", "--volumes", &self.id]) {
            eprintln!("container {} is left until the lab ends: {error:#}", self.id);
        }
    }
}
