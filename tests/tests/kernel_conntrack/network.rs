//! A container behind a host and a neighbour of the host, as network namespaces with Docker's rules, and who talks to whom.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::linux::net::TcpStreamExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netpath::kernel_conntrack::{self, Connection};
use nix::sched::{CloneFlags, setns};

pub(crate) const LAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
/// The port that the host publishes, and the container's behind it.
pub(crate) const PUBLISHED_PORT: u16 = 8080;
pub(crate) const CONTAINER_PORT: u16 = 80;
pub(crate) const LAN_PORT: u16 = 7000;
/// MASQUERADE takes these, so the port always changes and a wrong mapping shows.
pub(crate) const MASQUERADE_PORTS: std::ops::RangeInclusive<u16> = 61_000..=61_999;
/// Far more than a packet needs here; reached only by a test that is about to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A container behind a host, and a neighbour of the host: `container -- host -- lan`.
pub(crate) struct Network {
    id: String,
}

impl Network {
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run them as root (sudo -E cargo test -p netpath-tests)"
        );
        let network = Self { id: format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) };
        for role in ["lan", "host", "container"] {
            run(&format!("ip netns add {}", network.namespace(role)))?;
            network.run(role, "ip link set lo up")?;
        }
        network.connect("lan", LAN, "uplink", HOST, 24)?;
        network.connect("container", CONTAINER, "docker", Ipv4Addr::new(172, 17, 0, 1), 16)?;
        network.run("container", "ip route add default via 172.17.0.1")?;
        network.run("container", "sysctl -qw net.ipv4.ping_group_range=\"0 2147483647\"")?;
        network.run("host", "sysctl -qw net.ipv4.ip_forward=1")?;
        let (first, last) = (MASQUERADE_PORTS.start(), MASQUERADE_PORTS.end());
        for protocol in ["tcp", "udp"] {
            network.run(
                "host",
                &format!(
                    "iptables -w -t nat -A POSTROUTING -s 172.17.0.0/16 -o uplink -p {protocol} \
                     -j MASQUERADE --to-ports {first}-{last}"
                ),
            )?;
        }
        network.run("host", "iptables -w -t nat -A POSTROUTING -s 172.17.0.0/16 -o uplink -p icmp -j MASQUERADE")?;
        network.run(
            "host",
            &format!(
                "iptables -w -t nat -A PREROUTING -i uplink -p tcp --dport {PUBLISHED_PORT} \
                 -j DNAT --to-destination {CONTAINER}:{CONTAINER_PORT}"
            ),
        )?;
        // What nf_conntrack finds wrong with a packet, it only notes; the rules of many hosts drop it.
        network.run("host", "iptables -w -A FORWARD -m conntrack --ctstate INVALID -j DROP")?;
        Ok(network)
    }

    pub(crate) fn connect(
        &self,
        role: &str,
        address: Ipv4Addr,
        host_side: &str,
        gateway: Ipv4Addr,
        prefix: u8,
    ) -> Result<()> {
        let (peer, host) = (self.namespace(role), self.namespace("host"));
        run(&format!("ip -n {host} link add {host_side} type veth peer name eth0 netns {peer}"))?;
        run(&format!("ip -n {host} addr add {gateway}/{prefix} dev {host_side}"))?;
        run(&format!("ip -n {peer} addr add {address}/{prefix} dev eth0"))?;
        run(&format!("ip -n {host} link set {host_side} up"))?;
        run(&format!("ip -n {peer} link set eth0 up"))
    }

    pub(crate) fn namespace(&self, role: &str) -> String {
        format!("ctnl-{role}-{}", self.id)
    }

    pub(crate) fn run(&self, role: &str, command: &str) -> Result<()> {
        run(&format!("ip netns exec {} {command}", self.namespace(role)))
    }

    /// Does something in a namespace, on a thread of its own. Sockets made there stay there.
    pub(crate) fn within<T: Send>(&self, role: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.namespace(role));
        let work = || {
            setns(File::open(&path).with_context(|| path.clone())?, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow::anyhow!("a thread in {path} panicked"))?
    }

    pub(crate) fn dump(&self) -> Result<Vec<Connection>> {
        self.within("host", kernel_conntrack::dump)
    }

    pub(crate) fn insert(&self, connections: &[Connection]) -> Result<usize> {
        self.within("host", || kernel_conntrack::insert(connections))
    }

    pub(crate) fn forget_all(&self) -> Result<()> {
        self.run("host", "conntrack -F")?;
        ensure!(self.dump()?.is_empty(), "conntrack -F leaves nothing");
        Ok(())
    }

    /// The one connection of this protocol.
    pub(crate) fn only(&self, protocol: u8) -> Result<Connection> {
        let mut found = self.dump()?;
        found.retain(|connection| connection.original.protocol == protocol);
        ensure!(found.len() == 1, "expected one connection of protocol {protocol}: {found:?}");
        Ok(found[0])
    }

    /// The line that the conntrack tool prints for the one connection of a protocol.
    pub(crate) fn line(&self, protocol: &str) -> Result<String> {
        let namespace = self.namespace("host");
        let output = Command::new("ip")
            .args(["netns", "exec", &namespace, "conntrack", "-L", "-p", protocol, "-o", "extended"])
            .output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A connection from the container to the neighbour: (container's end, neighbour's end).
    pub(crate) fn masqueraded(&self) -> Result<(TcpStream, TcpStream)> {
        self.tcp("lan", LAN_PORT, "container", SocketAddrV4::new(LAN, LAN_PORT))
    }

    /// A connection from the neighbour to the published port: (neighbour's end, container's end).
    pub(crate) fn published(&self) -> Result<(TcpStream, TcpStream)> {
        self.tcp("container", CONTAINER_PORT, "lan", SocketAddrV4::new(HOST, PUBLISHED_PORT))
    }

    pub(crate) fn tcp(
        &self,
        server: &str,
        port: u16,
        client: &str,
        to: SocketAddrV4,
    ) -> Result<(TcpStream, TcpStream)> {
        let listener = self.within(server, || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
        let near = self.within(client, || Ok(TcpStream::connect_timeout(&to.into(), PATIENCE)?))?;
        let (far, _) = listener.accept()?;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        let (mut near, mut far) = (near, far);
        say(&mut near, &mut far, "how do you do")?;
        say(&mut far, &mut near, "how do you do")?;
        Ok((near, far))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for role in ["lan", "host", "container"] {
            if let Err(error) = run(&format!("ip netns delete {}", self.namespace(role))) {
                eprintln!("{error:#}");
            }
        }
    }
}

pub(crate) fn run(command: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", command]).output().context(command.to_owned())?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// One end says something and the other hears exactly that.
pub(crate) fn say(from: &mut TcpStream, to: &mut TcpStream, words: &str) -> Result<()> {
    from.write_all(words.as_bytes()).with_context(|| format!("saying {words:?}"))?;
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).with_context(|| format!("listening for {words:?}"))?;
    ensure!(heard == words.as_bytes(), "said {words:?}, heard {heard:?}");
    acknowledge(to)
}

/// Lets this end say now what it has heard, instead of some 40 ms later (RFC 1122, 4.2.3.2): nothing is on its way when a test
/// takes an entry from under the connection. What comes then, the host answers with a reset.
pub(crate) fn acknowledge(end: &TcpStream) -> Result<()> {
    end.set_quickack(true).context("acknowledging what was heard")
}
