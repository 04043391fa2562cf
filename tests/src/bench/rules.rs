//! The rule sets that are measured: those that dockerd wrote, the same for the old iptables, the same for nftables.
//!
//! All of them belong to the lab's namespace. dockerd doesn't notice that its rules are away for a while, and they are
//! back before it has to remove one.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::netns::Place;

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// What dockerd wrote, by the iptables that it found (over nftables here).
    Docker,
    /// The same rules in the kernel's older tables.
    Legacy,
    /// What Docker 29 would write with `--firewall-backend=nftables`.
    Nftables,
    /// None at all.
    Nothing,
}

/// The first of the ports that are published besides the container's own.
pub const EXTRA_PORT: u16 = 20_000;

/// A namespace's rules.
#[derive(Debug)]
pub struct Rules {
    docker: String,
    container: Ipv4Addr,
    port: u16,
    now: (Set, u32),
}

impl Rules {
    /// Keeps what dockerd wrote for a container that publishes `port`, TCP and UDP.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn keep(host: &Place, container: Ipv4Addr, port: u16) -> Result<Self> {
        Ok(Self { docker: host.run(&["iptables-save"])?, container, port, now: (Set::Docker, 0) })
    }

    /// Sees that a set is in force and no other, with `extra` more UDP ports of the container published by it.
    ///
    /// # Errors
    /// When the kernel takes a rule not.
    pub fn set(&mut self, host: &Place, set: Set, extra: u32) -> Result<()> {
        if self.now == (set, extra) {
            return Ok(());
        }
        host.run(&["nft", "flush", "ruleset"])?;
        match set {
            Set::Docker => load(host, &["iptables-restore"], &self.docker_rules(extra)),
            Set::Legacy => load(host, &["iptables-legacy-restore"], &self.docker_rules(extra)),
            Set::Nftables => load(host, &["nft", "--file"], &self.nftables_rules(extra)),
            Set::Nothing => Ok(()),
        }?;
        self.now = (set, extra);
        Ok(())
    }

    /// dockerd's rules, and for each extra port the three that it would append.
    fn docker_rules(&self, extra: u32) -> String {
        let address = self.container;
        let (mut text, mut table) = (String::new(), "");
        for line in self.docker.lines() {
            if line.starts_with('*') {
                table = line;
            }
            for port in extra_ports(if line == "COMMIT" { extra } else { 0 }) {
                let udp = format!("-p udp -m udp --dport {port}");
                match table {
                    "*nat" => {
                        text += &format!("-A POSTROUTING -s {address}/32 -d {address}/32 {udp} -j MASQUERADE\n");
                        text += &format!("-A DOCKER ! -i docker0 {udp} -j DNAT --to-destination {address}:{port}\n");
                    }
                    "*filter" => {
                        text += &format!("-A DOCKER -d {address}/32 ! -i docker0 -o docker0 {udp} -j ACCEPT\n");
                    }
                    _ => {}
                }
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Docker 29's way: jumps by interface through verdict maps, one rule after the other for the ports.
    fn nftables_rules(&self, extra: u32) -> String {
        let (address, port) = (self.container, self.port);
        let (mut translate, mut accept) = (String::new(), String::new());
        let own = [("tcp", port), ("udp", port)].into_iter();
        for (protocol, port) in own.chain(extra_ports(extra).map(|port| ("udp", port))) {
            let rule = format!("iifname != \"docker0\" {protocol} dport {port} counter dnat to {address}:{port}\n");
            translate.push_str(&rule);
            accept += &format!("ip daddr {address} {protocol} dport {port} counter accept\n");
        }
        format!(
            r#"table ip docker-bridges {{
  chain in {{
    ct state established,related counter accept
    iifname "docker0" counter accept
    {accept}
    counter drop
  }}
  chain out {{
    ct state established,related counter accept
    counter accept
  }}
  chain translate {{
    {translate}
  }}
  chain masquerade-in {{
  }}
  chain masquerade-out {{
    oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
  }}
  map in-jumps {{ type ifname : verdict; elements = {{ "docker0" : jump in }}; }}
  map out-jumps {{ type ifname : verdict; elements = {{ "docker0" : jump out }}; }}
  map masquerade-in-jumps {{ type ifname : verdict; elements = {{ "docker0" : jump masquerade-in }}; }}
  map masquerade-out-jumps {{ type ifname : verdict; elements = {{ "docker0" : jump masquerade-out }}; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname vmap @in-jumps
    iifname vmap @out-jumps
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local counter jump translate
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local counter jump translate
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname vmap @masquerade-out-jumps
    oifname vmap @masquerade-in-jumps
  }}
  chain direct {{
    type filter hook prerouting priority raw; policy accept;
    ip daddr {address} iifname != "docker0" counter drop
  }}
}}
"#
        )
    }
}

/// The packets that rules of nftables which translate have counted: the first ones of their flows.
///
/// # Errors
/// When they can't be read.
pub fn translated_by_nftables(host: &Place) -> Result<u64> {
    let listed = host.run(&["nft", "list", "table", "ip", "docker-bridges"])?;
    let rules = listed.lines().filter(|line| line.contains(" dnat to ") || line.contains(" masquerade"));
    let counts = rules.filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next());
    counts.map(|count| count.parse::<u64>().with_context(|| format!("read the counter {count}"))).sum()
}

fn extra_ports(count: u32) -> impl Iterator<Item = u16> {
    (EXTRA_PORT..).take(count as usize)
}

fn load(host: &Place, program: &[&str], text: &str) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory for rules")?;
    let file = directory.path().join("rules");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    host.run(&[program, &[&file.to_string_lossy()]].concat()).map(drop)
}
