//! A project of Docker Compose: twenty services on three networks, as people run them, unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, IMAGE};
use netpath_tests::image::{BUSYBOX, PEER};
use netpath_tests::lab::{HOST, Lab};
use netpath_tests::{run, shell, wait};

use super::reach::{connect, connect_from};

pub(crate) const CASES: &[Case] =
    &[Case::new("a Compose project of 20 services on 3 networks works, is restarted in part, and goes", project)];

/// Services by name and their networks. `api-*` join two: they are what stands between the front and the data.
const SERVICES: [(&str, u32, &[&str]); 4] =
    [("proxy", 1, &["front"]), ("web", 8, &["front", "middle"]), ("api", 6, &["middle", "data"]), ("db", 5, &["data"])];

const NETWORKS: [&str; 3] = ["front", "middle", "data"];

const PROJECT: &str = "np";

/// Compose asks dockerd for one thing after the other.
const UP_DEADLINE: Duration = Duration::from_secs(120);

struct Project<'a> {
    lab: &'a Lab,
    directory: tempfile::TempDir,
}

/// A service and the containers that run it.
type Services = BTreeMap<String, Container>;

fn project(lab: &mut Lab) -> Result<()> {
    let project = Project { lab, directory: tempfile::tempdir()? };
    let done = project.up().and_then(|()| project.check());
    let gone = project.compose(&["down", "--timeout", "1", "--volumes"]);
    done.and(gone)?;
    if lab.tests_netpath() {
        let left = || Ok(lab_endpoints(lab)?.is_empty());
        wait::until_true("the project's addresses to be gone", Duration::from_secs(2), left)?;
    }
    Ok(())
}

fn lab_endpoints(lab: &Lab) -> Result<Vec<Ipv4Addr>> {
    let status = lab.netpath_ref()?.status()?;
    Ok(status.endpoints.into_iter().map(|endpoint| endpoint.address).collect())
}

impl Project<'_> {
    fn up(&self) -> Result<()> {
        std::fs::write(self.directory.path().join("docker-compose.yml"), description()?)
            .context("write the project")?;
        self.compose(&["up", "--detach"])
    }

    fn compose(&self, words: &[&str]) -> Result<()> {
        let file = self.directory.path().join("docker-compose.yml");
        let (file, host) = (file.to_string_lossy(), self.lab.docker_host());
        let mut all = vec!["docker-compose", "--host", &host, "--project-name", PROJECT, "--file", &file];
        all.extend(words);
        shell::run_words_within(&all, UP_DEADLINE).map(drop)
    }

    fn services(&self) -> Result<Services> {
        let words = ["ps", "--filter", "label=com.docker.compose.project=np", "--format"];
        let format = "{{.ID}} {{.Label \"com.docker.compose.service\"}}";
        let listed = self.lab.docker().run(&[words.as_slice(), &[format]].concat())?;
        let pairs = listed.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(id, service)| (service.to_owned(), Container::existing(self.lab.docker(), id))).collect())
    }

    fn check(&self) -> Result<()> {
        let services = &self.services()?;
        ensure!(services.len() == 20, "{} services run: {:?}", services.len(), services.keys());
        let mut published = connect(self.lab, SocketAddrV4::new(HOST, 8090))?;
        ensure!(published.who()? == published.local(), "the client is seen otherwise");
        let (_server, lan) = self.lab.lan_tcp()?;
        let mut pairs = 0;
        for (service, container) in services {
            pairs += self.check_names(service, container, services).with_context(|| format!("from {service}"))?;
            let seen =
                connect_from(&*container.place()?, lan).with_context(|| format!("{service} to the wire"))?.who()?;
            ensure!(seen.ip() == &HOST, "{service} goes out as {seen}");
        }
        // proxy <-> web, web <-> web and api, api <-> api and db, db <-> db; each within what they share.
        ensure!(pairs == 278, "{pairs} pairs of services share a network");
        self.check_apart(services)?;
        self.compose(&["restart", "--timeout", "1", "proxy", "web-1"])?;
        connect(self.lab, SocketAddrV4::new(HOST, 8090))?.echo("after a restart")
    }

    /// Finds every service that shares a network by Docker's own name server, and talks to it; gives how many.
    fn check_names(&self, service: &str, container: &Container, services: &Services) -> Result<usize> {
        let own: BTreeSet<_> = container.addresses()?.into_keys().collect();
        let mut reachable = BTreeMap::new();
        for (name, other) in services.iter().filter(|(name, _)| *name != service) {
            let there = other.addresses()?;
            let shared: Vec<_> = there.into_iter().filter(|(network, _)| own.contains(network)).collect();
            if !shared.is_empty() {
                reachable.insert(name.clone(), shared.into_iter().map(|(_, address)| address).collect::<Vec<_>>());
            }
        }
        let names: Vec<_> = reachable.keys().cloned().chain(["all-of-it".to_owned()]).collect();
        let found = self.resolve(container, &names)?;
        for (name, addresses) in &reachable {
            let resolved = found.get(name).with_context(|| format!("{name} isn't resolved"))?;
            ensure!(resolved.iter().all(|one| addresses.contains(one)), "{name} is {resolved:?}, not of {addresses:?}");
            let target = SocketAddrV4::new(*resolved.first().context("no address")?, 80);
            connect_from(&*container.place()?, target).with_context(|| format!("to {name}"))?;
            UdpClient::connect(&*container.place()?, target)?.ask("by UDP").with_context(|| format!("to {name}"))?;
        }
        let shared = found.get("all-of-it").context("the common alias isn't resolved")?;
        ensure!(shared.len() > 1, "the common alias is {shared:?}");
        Ok(reachable.len())
    }

    fn resolve(&self, container: &Container, names: &[String]) -> Result<BTreeMap<String, Vec<Ipv4Addr>>> {
        let script =
            format!("for name in {}; do echo \"name $name\"; {BUSYBOX} nslookup -type=a $name; done", names.join(" "));
        let answer = self.lab.docker().run(&["exec", container.id(), BUSYBOX, "sh", "-c", &script])?;
        let mut found: BTreeMap<String, Vec<Ipv4Addr>> = BTreeMap::new();
        let mut current = "";
        for line in answer.lines() {
            if let Some(name) = line.strip_prefix("name ") {
                current = name;
            } else if let Some(address) = line.strip_prefix("Address: ").or_else(|| line.strip_prefix("Address 1: ")) {
                if let Ok(address) = address.parse() {
                    found.entry(current.to_owned()).or_default().push(address);
                }
            } else if line.starts_with("Server:") {
                ensure!(line.ends_with("127.0.0.11"), "the name server is another: {line:?}");
            }
        }
        Ok(found)
    }

    /// Services that share no network can't reach each other's addresses.
    fn check_apart(&self, services: &Services) -> Result<()> {
        for (from, to) in [("proxy", "db-1"), ("proxy", "api-1"), ("web-1", "db-1"), ("db-1", "web-1")] {
            let (place, addresses) = (services[from].place()?, services[to].addresses()?);
            for address in addresses.into_values() {
                let target = SocketAddrV4::new(address, 80);
                let reached = TcpClient::connect_within(&place, 0, target, Duration::from_millis(300));
                ensure!(reached.is_err(), "{from} reached {to} at {address}");
            }
        }
        Ok(())
    }
}

/// The project's file.
fn description() -> Result<String> {
    let mut text = "version: \"3.5\"\nservices:\n".to_owned();
    for (role, count, networks) in SERVICES {
        for number in 1..=count {
            let name = if count == 1 { role.to_owned() } else { format!("{role}-{number}") };
            writeln!(text, "  {name}:\n    image: {IMAGE}\n    stop_signal: SIGKILL")?;
            writeln!(text, "    command: [\"{PEER}\", \"tcp:80\", \"udp:80\"]")?;
            writeln!(text, "    environment: [\"{}={}\"]", run::MARK, run::name())?;
            if role == "proxy" {
                writeln!(text, "    ports: [\"8090:80\"]")?;
            }
            writeln!(text, "    networks:")?;
            for network in networks {
                writeln!(text, "      {network}: {{ aliases: [\"all-of-it\"] }}")?;
            }
        }
    }
    writeln!(text, "networks:")?;
    for network in NETWORKS {
        writeln!(text, "  {network}:")?;
    }
    Ok(text)
}
