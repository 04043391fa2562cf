//! Rules that an operator put into the firewall: netpath doesn't take their effect away unless it is told to.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::netpath::Options;
use netpath_tests::wait;
use serde_json::Value;

use super::reach::{connect, connect_from, expect_silence};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a rule in DOCKER-USER keeps its effect, until it is gone, and again when it comes back",
        keeps_its_effect,
    )
    .own_netpath()
    .takeover(),
    Case::new("with --ignore-user-rules the rule is passed by and named", ignored).own_netpath().takeover(),
    Case::new("a rule about one network leaves the others to netpath", one_network).own_netpath().takeover(),
    Case::new("a rule of nftables' own keeps its effect", nftables).own_netpath().takeover(),
    Case::new("rules that only log or let pass stand in nobody's way", harmless).own_netpath().takeover(),
    Case::new("rules that netpath would pass by are named; in sole mode nothing else is done about them", named)
        .own_netpath(),
    Case::new(
        "rules in OUTPUT hold that name the container's address, and migrate --check names the others",
        of_host_sockets,
    )
    .own_netpath(),
];

/// How soon a rule that came or went must show.
const NOTICE_DEADLINE: Duration = Duration::from_secs(15);

const TARGET: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);

/// A rule on the lab's host; dropping it deletes it.
pub(crate) struct Rule<'a> {
    host: &'a Place,
    words: Vec<String>,
}

impl<'a> Rule<'a> {
    /// `iptables -I CHAIN RULE`.
    pub(crate) fn insert(host: &'a Place, rule: &str) -> Result<Self> {
        let words: Vec<String> = rule.split_whitespace().map(str::to_owned).collect();
        let rule = Self { host, words };
        rule.iptables("-I")?;
        Ok(rule)
    }

    fn iptables(&self, verb: &str) -> Result<String> {
        let mut words = vec!["iptables", verb];
        words.extend(self.words.iter().map(String::as_str));
        self.host.run(&words)
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.iptables("-D") {
            eprintln!("a rule stays: {error:#}");
        }
    }
}

/// The lab's host, apart from the lab, so that a rule may live while the lab is changed.
pub(crate) fn host(lab: &Lab) -> Result<Place> {
    Place::open("host", std::path::Path::new(&lab.host().path()))
}

fn lan_is_kept_out() -> String {
    format!("DOCKER-USER -s {LAN} -j DROP")
}

fn keeps_its_effect(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let container = lab.docker().serving(&["tcp:80"]).publish("8080:80").start()?;
    let rule = Rule::insert(&host, &lan_is_kept_out())?;
    lab.start_netpath(Options::default())?;
    expect_refused_networks(lab, &["bridge"])?;
    expect_silence(lab.lan(), TARGET).context("with the rule")?;
    connect_from(lab.far(), TARGET).context("those whom the rule isn't about")?.echo("Docker's rules")?;
    let log = lab.netpath()?.log()?;
    ensure!(log.contains("DOCKER-USER -s 192.0.2.1/32 -j DROP") && log.contains("--ignore-user-rules"), "{log}");

    drop(rule);
    expect_refused_networks(lab, &[])?;
    lab.netpath()?.wait_for_container(container.address()?)?;
    connect(lab, TARGET)?.echo("netpath's")?;
    expect_flow(lab, LAN)?;

    let _again = Rule::insert(&host, &lan_is_kept_out())?;
    expect_refused_networks(lab, &["bridge"])?;
    expect_silence(lab.lan(), TARGET).context("with the rule that came back")?;
    connect_from(lab.far(), TARGET)?.echo("Docker's rules again").map(drop)
}

fn ignored(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let _rule = Rule::insert(&host, &lan_is_kept_out())?;
    lab.start_netpath(Options::new(&["--ignore-user-rules"]))?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect(lab, TARGET)?.echo("let in")?;
    expect_flow(lab, LAN)?;
    let status: Value = lab.netpath()?.json(&["status"])?;
    let firewall = &status["firewall"];
    ensure!(firewall["ignored"] == true && firewall["checked"] == true, "{firewall}");
    let rule = &firewall["rules"][0];
    ensure!(rule["chain"] == "DOCKER-USER" && rule["effect"] == "restricts", "{firewall}");
    expect_refused_networks(lab, &[])
}

fn one_network(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let network = lab.docker().network(&["--opt", "com.docker.network.bridge.name=br-own"])?;
    let _rule = Rule::insert(&host, &format!("DOCKER-USER -i eth0 -o br-own -s {LAN} -j DROP"))?;
    lab.start_netpath(Options::default())?;
    expect_refused_networks(lab, &[network.name()])?;
    let _carried = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    let _refused = lab.docker().serving(&["tcp:80"]).publish("8081:80").network(network.name()).start()?;
    connect(lab, TARGET)?.echo("netpath's")?;
    expect_flow(lab, LAN)?;
    expect_silence(lab.lan(), SocketAddrV4::new(HOST, 8081))?;
    let from_far = connect_from(lab.far(), SocketAddrV4::new(HOST, 8081));
    from_far.context("a refused network's port, by Docker's rules")?.echo("Docker's").map(drop)
}

fn nftables(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let _container = lab.docker().serving(&["tcp:80"]).publish("8080:80").start()?;
    host.run(&["nft", "add table inet mine"])?;
    let result = (|| {
        host.run(&["nft", "add chain inet mine keep { type filter hook forward priority -10; }"])?;
        host.run(&["nft", &format!("add rule inet mine keep iifname eth0 ip saddr {LAN} counter drop")])?;
        lab.start_netpath(Options::default())?;
        expect_refused_networks(lab, &["bridge"])?;
        expect_silence(lab.lan(), TARGET)
    })();
    host.run(&["nft", "delete table inet mine"])?;
    result?;
    expect_refused_networks(lab, &[])?;
    connect(lab, TARGET)?.echo("netpath's").map(drop)
}

fn harmless(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let _rules = [
        Rule::insert(&host, "DOCKER-USER -s 10.0.0.0/8 -j ACCEPT")?,
        Rule::insert(&host, "DOCKER-USER -i virbr0 -j DROP")?,
        Rule::insert(&host, "DOCKER-USER -p tcp --dport 80")?,
        Rule::insert(&host, "INPUT -p tcp --dport 8080 -j DROP")?,
    ];
    lab.start_netpath(Options::default())?;
    expect_refused_networks(lab, &[])?;
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect(lab, TARGET)?.echo("netpath's")?;
    let status: Value = lab.netpath()?.json(&["status"])?;
    let rules = status["firewall"]["rules"].as_array().context("status has no rules")?;
    ensure!(rules.len() == 1 && rules[0]["effect"] == "counts", "{rules:?}");
    Ok(())
}

fn named(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    let chain = if lab.mode() == Mode::Takeover { "DOCKER-USER" } else { "FORWARD" };
    let _rule = Rule::insert(&host, &format!("{chain} -s {LAN} -j DROP"))?;
    lab.start_netpath(Options::default())?;
    let status: Value = lab.netpath()?.json(&["status"])?;
    ensure!(status["firewall"]["rules"][0]["chain"] == chain, "{}", status["firewall"]);
    if lab.mode() == Mode::Sole {
        let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
        expect_refused_networks(lab, &[])?;
        connect(lab, TARGET)?.echo("netpath's")?;
    }
    Ok(())
}

/// Waits until exactly these networks are left to Docker.
fn expect_refused_networks(lab: &mut Lab, names: &[&str]) -> Result<()> {
    let netpath = lab.netpath()?;
    wait::until("the networks that are left to Docker", NOTICE_DEADLINE, || {
        let networks: Vec<Value> = netpath.json(&["net", "ls", "--filter", "refused=true"])?;
        let refused: Vec<&str> = networks.iter().filter_map(|network| network["name"].as_str()).collect();
        ensure!(refused == names, "{refused:?} are left to Docker, not {names:?}");
        Ok(())
    })
}

/// Fails unless netpath carries a connection from an address.
fn expect_flow(lab: &mut Lab, client: Ipv4Addr) -> Result<()> {
    let flows = lab.netpath()?.flows()?;
    ensure!(flows.iter().any(|flow| flow.original.source == client), "netpath carries {flows:?}");
    Ok(())
}

fn of_host_sockets(lab: &mut Lab) -> Result<()> {
    let host = host(lab)?;
    lab.start_netpath(Options::default())?;
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
    connect_from(lab.host(), TARGET)?.echo("without a rule")?;
    let refuse = "-p tcp -m owner --uid-owner 0 -j REJECT --reject-with tcp-reset";
    let by_owner = Rule::insert(&host, &format!("OUTPUT -o docker0 {refuse}"))?;
    ensure!(connect_from(lab.host(), TARGET).is_err(), "a rule about the owner and docker0 has no effect");
    drop(by_owner);
    let by_container = Rule::insert(&host, &format!("OUTPUT -d {} {refuse}", container.address()?))?;
    ensure!(connect_from(lab.host(), TARGET).is_err(), "a rule about the container's address has no effect");
    drop(by_container);
    let _by_host = Rule::insert(&host, &format!("OUTPUT -d {HOST} {refuse}"))?;
    connect_from(lab.host(), TARGET).context("past a rule about the host's address")?.echo("past it")?;
    let output = lab.netpath()?.output(&["migrate", "--check", "--output", "json"])?;
    let report: Value = serde_json::from_str(&output.stdout).context("read the check's report")?;
    let findings = report["findings"].as_array().context("the report has no findings")?;
    let named: Vec<_> = findings.iter().filter(|finding| finding["subject"] == "output_rule").collect();
    let [named] = named.as_slice() else { anyhow::bail!("{report:#}") };
    ensure!(named["level"] == "changes" && named["finding"].to_string().contains("OUTPUT -d 192.0.2.2"), "{named}");
    ensure!(lab.netpath()?.status()?.in_sync, "netpath isn't in step");
    expect_refused_networks(lab, &[])
}
