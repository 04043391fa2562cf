//! The lab: a host with its own dockerd, a neighbour on the wire, and a network behind that neighbour.
//!
//! ```text
//!   far                    lan (router)                  host
//!   198.51.100.2 -- far0 198.51.100.1 | 192.0.2.1 eth0 -- eth0 192.0.2.2, 192.0.2.3 -- docker0 -- containers
//! ```
//!
//! The ends outside the host send as a wire delivers: whole checksums, no packet larger than the MTU.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use netpath_common::abi::Mode;

use crate::container::{Container, Docker, IMAGE, Request};
use crate::dockerd::{Dockerd, Restart, Rules};
use crate::engine::Engine;
use crate::netns::{Namespace, Place};
use crate::netpath::{Netpath, Options};
use crate::server::{Server, any};
use crate::{image, run, shell};

/// The neighbour on the wire, the host's default gateway.
pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The host's address, that masqueraded packets carry.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A second address of the host.
pub const HOST_SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// An IPv6 address of the host.
pub const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// A machine behind the neighbour.
pub const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// docker0's address, the containers' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// The network of docker0.
pub const CONTAINERS: &str = "172.17.0.0/16";

/// Who carries the containers' packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dataplane {
    /// The binary under test.
    Netpath(PathBuf),
    /// Docker's own rules: shows that what the tests expect is what Docker's users have.
    Docker,
}

/// A lab; dropping it ends everything in it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    engine: Engine,
    rules: Rules,
    dataplane: Dataplane,
    // In the order in which they must go.
    netpath: Option<Netpath>,
    dockerd: Dockerd,
    docker: Docker,
    host: Namespace,
    lan: Namespace,
    far: Namespace,
    directory: Directory,
}

impl Lab {
    /// Builds a lab. `peer` is the program for the containers.
    ///
    /// # Errors
    /// When a tool is missing or anything can't be made; what was made is removed.
    pub fn create(mode: Mode, engine: Engine, dataplane: Dataplane, peer: &Path) -> Result<Self> {
        Self::built(mode.name(), engine, Rules::of(mode), dataplane, peer)
    }

    /// The same with the machine's own engine and a choice of what dockerd does, and under a name of its own: labs of
    /// one run that exist at the same time need different ones.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn named(name: &str, rules: Rules, dataplane: Dataplane, peer: &Path) -> Result<Self> {
        Self::built(name, Engine::Installed, rules, dataplane, peer)
    }

    fn built(name: &str, engine: Engine, rules: Rules, dataplane: Dataplane, peer: &Path) -> Result<Self> {
        let directory = Directory::create(run::directory(name))?;
        let namespace = |role: &str| Namespace::create(&format!("{}-{name}-{role}", run::name()), role);
        let (host, lan, far) = (namespace("host")?, namespace("lan")?, namespace("far")?);
        wire(&host, &lan, &far).context("connect the namespaces")?;
        let dockerd = Dockerd::start(&host, &directory.path, engine, rules, Restart::StopsContainers)?;
        let docker = Docker::new(dockerd.host());
        let archive = image::pack(peer, &directory.path)?;
        docker.run(&["import", &archive.to_string_lossy(), IMAGE])?;
        let name = name.to_owned();
        Ok(Self { name, engine, rules, dataplane, netpath: None, dockerd, docker, host, lan, far, directory })
    }

    /// How dockerd runs.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.rules.mode()
    }

    /// Which dockerd it has.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The machine that runs dockerd and netpath.
    #[must_use]
    pub fn host(&self) -> &Place {
        &self.host
    }

    /// The neighbour on the wire.
    #[must_use]
    pub fn lan(&self) -> &Place {
        &self.lan
    }

    /// The machine behind the neighbour.
    #[must_use]
    pub fn far(&self) -> &Place {
        &self.far
    }

    /// dockerd's configuration file; there is none unless a test writes one, and dockerd reads it when it starts.
    #[must_use]
    pub fn daemon_json(&self) -> PathBuf {
        self.directory.path.join("daemon.json")
    }

    /// The docker command.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Starts a container and, where netpath runs, waits until it carries the container's packets.
    ///
    /// # Errors
    /// When Docker doesn't start it, or netpath takes longer than a second.
    pub fn start(&mut self, request: Request) -> Result<Container> {
        let container = request.start()?;
        if let Some(netpath) = &mut self.netpath
            && netpath.is_running()?
        {
            netpath.wait_for_container(container.address()?)?;
        }
        Ok(container)
    }

    /// A TCP server of the neighbour and its address.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn lan_tcp(&self) -> Result<(Server, SocketAddrV4)> {
        let server = self.lan.enter(|| Server::tcp(any(0)))?;
        let address = SocketAddrV4::new(LAN, server.port());
        Ok((server, address))
    }

    /// A UDP server of the neighbour and its address.
    ///
    /// # Errors
    /// When it can't listen.
    pub fn lan_udp(&self) -> Result<(Server, SocketAddrV4)> {
        let server = self.lan.enter(|| Server::udp(SocketAddrV4::new(LAN, 0)))?;
        let address = server.address();
        Ok((server, address))
    }

    /// Whether netpath, not Docker's rules, is under test.
    #[must_use]
    pub fn tests_netpath(&self) -> bool {
        self.dataplane != Dataplane::Docker
    }

    /// The netpath binary under test.
    ///
    /// # Errors
    /// In a run without it.
    pub fn binary(&self) -> Result<&Path> {
        match &self.dataplane {
            Dataplane::Netpath(binary) => Ok(binary),
            Dataplane::Docker => bail!("this lab has no netpath"),
        }
    }

    /// netpath as it runs now.
    ///
    /// # Errors
    /// When it isn't there: the test must not ask in a run without it.
    pub fn netpath(&mut self) -> Result<&mut Netpath> {
        self.netpath.as_mut().context("netpath isn't running in this lab")
    }

    /// The same for a look only.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn netpath_ref(&self) -> Result<&Netpath> {
        self.netpath.as_ref().context("netpath isn't running in this lab")
    }

    /// Where dockerd answers, as DOCKER_HOST takes it.
    #[must_use]
    pub fn docker_host(&self) -> String {
        self.dockerd.host()
    }

    /// Sees that netpath runs with default options and is in step with Docker; nothing in a run without it.
    ///
    /// # Errors
    /// When it doesn't get so far.
    pub fn ensure_netpath(&mut self) -> Result<()> {
        if let Some(netpath) = &mut self.netpath
            && netpath.options() == &Options::default()
            && netpath.is_running()?
        {
            return netpath.wait_in_step();
        }
        self.start_netpath(Options::default())
    }

    /// Starts netpath anew, from nothing, with the options given; nothing in a run without it.
    ///
    /// # Errors
    /// When it doesn't come into step with Docker.
    pub fn start_netpath(&mut self, options: Options) -> Result<()> {
        self.start_netpath_unready(options)?;
        self.netpath.as_mut().map_or(Ok(()), Netpath::wait_in_step)
    }

    /// The same, without waiting for anything.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_netpath_unready(&mut self, options: Options) -> Result<()> {
        self.remove_netpath()?;
        let Dataplane::Netpath(binary) = &self.dataplane else { return Ok(()) };
        let pins = run::pin_directory(&self.name);
        let netpath = Netpath::start(binary, &self.host, &self.directory.path, &pins, &self.dockerd.host(), options)?;
        self.netpath = Some(netpath);
        Ok(())
    }

    /// Detaches netpath, if it is there, and removes its pins whatever becomes of that.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn remove_netpath(&mut self) -> Result<()> {
        self.netpath.take().map_or(Ok(()), |mut netpath| netpath.remove())
    }

    /// Stops dockerd and, after `meanwhile`, starts it again.
    ///
    /// # Errors
    /// When dockerd doesn't stop or start, or the error of `meanwhile`.
    pub fn restart_dockerd(&mut self, restart: Restart, meanwhile: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.dockerd.stop()?;
        let result = meanwhile(self);
        self.dockerd.start_again(&self.host, self.rules, restart)?;
        result
    }

    /// What to show with a failure.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        self.netpath.as_ref().map_or_else(|| "without netpath".to_owned(), Netpath::diagnosis)
    }

    /// Removes every container.
    ///
    /// # Errors
    /// When dockerd can't.
    pub fn remove_containers(&self) -> Result<()> {
        self.docker.remove_all()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for result in [self.remove_netpath(), self.remove_containers()] {
            if let Err(error) = result {
                eprintln!("while ending the {} lab: {error:#}", self.name);
            }
        }
    }
}

/// Makes the links, addresses and routes.
fn wire(host: &Namespace, lan: &Namespace, far: &Namespace) -> Result<()> {
    connect((host, "eth0"), (lan, "eth0"))?;
    connect((lan, "far0"), (far, "eth0"))?;
    set_up(lan, "eth0", &["192.0.2.1/24"])?;
    set_up(lan, "far0", &["198.51.100.1/24"])?;
    set_up(far, "eth0", &["198.51.100.2/24"])?;
    set_up(host, "eth0", &["192.0.2.2/24", "192.0.2.3/24"])?;
    // Usable at once: nobody else on the wire could have it.
    host.run(&["ip", "address", "add", &format!("{HOST_IPV6}/64"), "dev", "eth0", "nodad"])?;
    for (place, interface) in [(lan, "eth0"), (lan, "far0"), (far, "eth0")] {
        place.run(&["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"])?;
    }
    host.run(&["ethtool", "-K", "eth0", "gro", "on"])?;
    host.run(&["ip", "route", "add", "default", "via", "192.0.2.1"])?;
    far.run(&["ip", "route", "add", "default", "via", "198.51.100.1"])?;
    lan.sysctl("net/ipv4/ip_forward", "1")
}

fn connect(one: (&Namespace, &str), other: (&Namespace, &str)) -> Result<()> {
    let words = ["ip", "link", "add", one.1, "netns", one.0.name(), "type", "veth"];
    let peer = ["peer", "name", other.1, "netns", other.0.name()];
    shell::run_words(&[words.as_slice(), peer.as_slice()].concat()).map(drop)
}

fn set_up(place: &Place, interface: &str, addresses: &[&str]) -> Result<()> {
    for address in addresses {
        place.run(&["ip", "address", "add", address, "dev", interface])?;
    }
    place.run(&["ip", "link", "set", interface, "up"]).map(drop)
}

/// The lab's files; dropping it removes them, with what dockerd left mounted.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = run::remove_directory(&self.path) {
            eprintln!("{} is left: {error:#}", self.path.display());
        }
    }
}
