//! What `netpath migrate` looks at; nothing is judged here.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    daemon::bypass,
    desired::{docker::DockerModel, model::State, uplinks::UplinkChoice},
    firewall::{Finding, Ruleset, Scene, bypassed, of_host_sockets, read, stale},
    report::BypassedRule,
    status::Status,
    watch::{
        docker::{
            socket_from_environment,
            survey::{Survey, survey},
        },
        netlink,
    },
};

/// What is on the host.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// What Docker says.
    pub(super) docker: Survey,
    /// What the netpath daemon says; none when none answers.
    pub(super) netpath: Option<Status>,
    /// Rules that netpath would pass by, with the names of networks.
    pub(super) bypassed: Vec<BypassedRule>,
    /// Rules about the host's own packets that its connections to published ports pass by.
    pub(super) of_host_sockets: Vec<String>,
    /// What of the firewall couldn't be read.
    pub(super) unreadable: Vec<String>,
    /// Whether iptables has chains of Docker's.
    pub(super) docker_chains: bool,
    /// Whether ip6tables has.
    pub(super) docker_chains_ipv6: bool,
    /// Whether the policy of FORWARD is DROP.
    pub(super) forward_drops: bool,
    /// How many docker-proxy processes run.
    pub(super) proxies: usize,
    /// Whether firewalld runs.
    pub(super) firewalld: bool,
    /// Whether ufw is enabled.
    pub(super) ufw: bool,
    /// `net.ipv4.ip_forward`.
    pub(super) ip_forward: bool,
    /// `net.bridge.bridge-nf-call-iptables`; none where the module isn't loaded.
    pub(super) bridge_netfilter: Option<bool>,
    /// What Docker's rules are told from others by.
    pub(super) scene: Scene,
}

impl Facts {
    /// Whether a network has IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.docker.networks.values().any(|surveyed| surveyed.ipv6)
    }

    /// Looks at everything.
    pub(super) async fn gather(netpath: Option<Status>) -> anyhow::Result<Self> {
        let docker = survey(&socket_from_environment()?).await?;
        let ruleset = read::read(&Ruleset::default()).await;
        let saved = read::saved().await;
        let host = netlink::read()?;
        let networks = docker.networks.iter().map(|(id, surveyed)| (id.clone(), surveyed.network.clone())).collect();
        let model = DockerModel { networks, ..DockerModel::default() };
        let uplinks = netpath.as_ref().map_or(UplinkChoice::DefaultRoutes, uplinks);
        let scene = bypass::scene(&model, &host, &uplinks, &State::default());
        let findings: Vec<Finding> = bypassed(&ruleset, &scene);
        let of_family = |ipv6: bool| saved.iter().filter(move |saved| saved.restores.starts_with("ip6") == ipv6);
        Ok(Self {
            bypassed: bypass::rules(&findings, &scene),
            of_host_sockets: of_host_sockets(&ruleset, &scene.host_addresses),
            unreadable: ruleset.errors,
            docker_chains: of_family(false).any(|saved| stale::has_docker(&saved.text)),
            docker_chains_ipv6: of_family(true).any(|saved| stale::has_docker(&saved.text)),
            forward_drops: of_family(false).any(|saved| stale::forward_drops(&saved.text)),
            proxies: processes("docker-proxy"),
            firewalld: processes("firewalld") > 0,
            ufw: fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| ufw_is_enabled(&text)),
            ip_forward: sysctl("net/ipv4/ip_forward") == Some(true),
            bridge_netfilter: sysctl("net/bridge/bridge-nf-call-iptables"),
            docker,
            netpath,
            scene,
        })
    }
}

fn uplinks(status: &Status) -> UplinkChoice {
    let names: BTreeSet<String> = status.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
    if names.is_empty() { UplinkChoice::DefaultRoutes } else { UplinkChoice::Named(names.into_iter().collect()) }
}

/// How many processes of this network namespace have a name; the kernel cuts names at 15 letters.
fn processes(name: &str) -> usize {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let named = |process: &Path| {
        fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
            && fs::read_link(process.join("ns/net")).ok() == own
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| named(&entry.path())).count()
}

fn ufw_is_enabled(text: &str) -> bool {
    text.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"))
}

fn sysctl(path: &str) -> Option<bool> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_understood() {
        assert!(ufw_is_enabled("# x\nENABLED=yes\n") && !ufw_is_enabled("ENABLED=no\n#ENABLED=yes"));
        assert_eq!(sysctl("no/such/sysctl"), None);
        assert_eq!(processes("netpath-no-such-process"), 0);
    }
}
