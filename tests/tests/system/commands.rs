//! The command line as scripts see it: exit codes and JSON, with a daemon and without.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use netpath_tests::case::Case;
use netpath_tests::client::TcpClient;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::report::{Flow, Port};
use netpath_tests::{run, shell};
use serde_json::Value;

use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("status, ct, ports, net and drops show what is there", shows).netpath(),
    Case::new("net inspect, endpoint ls and ports name and choose as docker does", lists).netpath(),
    Case::new("status, ct, ports and drops work from the pins of a dead daemon", shows_from_pins).netpath(),
    Case::new("global options are taken before and after the verb", global_options).netpath(),
    Case::new("status ends with 3 when there is neither a daemon nor a pin", nothing_there).netpath(),
    Case::new("wrong usage ends with 2 and leaves stdout empty", wrong_usage).netpath(),
    Case::new("without permission, commands end with 4 and say so", no_permission).netpath(),
];

fn shows(lab: &mut Lab) -> Result<()> {
    let (_traffic, expected) = Traffic::start(lab)?;
    lab.netpath()?.wait_in_step()?;
    let netpath = lab.netpath()?;
    let status = netpath.status()?;
    ensure!(status.attached && status.in_sync, "status: {status:?}");
    expected.check(&netpath.flows()?, &netpath.ports()?)?;
    let count = netpath.expect_code(&["ct", "count"], 0)?;
    ensure!(count.stdout.trim().parse::<u64>().is_ok_and(|count| count >= 2), "ct count printed {:?}", count.stdout);
    let networks: Vec<Value> = netpath.json(&["net", "ls"])?;
    ensure!(networks.iter().any(|network| network["name"] == "bridge"), "net ls: {networks:?}");
    expect_drop_reasons(&netpath.json(&["drops"])?)?;
    for words in [&["status"][..], &["ct", "ls"], &["ports"], &["net", "ls"], &["drops"]] {
        let table = netpath.expect_code(words, 0)?;
        ensure!(!table.stdout.trim().is_empty(), "{words:?} printed no table");
    }
    Ok(())
}

fn lists(lab: &mut Lab) -> Result<()> {
    let network = lab.docker().network(&["--opt", "netpath.full_cone=true"])?;
    let container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80").network(network.name()))?;
    let _other = lab.start(lab.docker().serving(&["tcp:80"]).publish("8081:80"))?;
    let id = lab.docker().run(&["network", "inspect", "--format", "{{.Id}}", network.name()])?;
    let endpoint_format = "{{range .NetworkSettings.Networks}}{{.EndpointID}}{{end}}";
    let endpoint_id = lab.docker().run(&["inspect", "--format", endpoint_format, container.id()])?;
    let veths = lab.host().run(&["ip", "-o", "link", "show", "type", "veth"])?;
    let address = container.address()?;
    let netpath = lab.netpath()?;
    for wanted in [network.name(), &id, &id[..12], &id[..8]] {
        let inspected: Vec<Value> = netpath.json(&["net", "inspect", wanted])?;
        let [inspected] = inspected.as_slice() else { anyhow::bail!("net inspect {wanted}: {inspected:?}") };
        ensure!(inspected["id"] == id.as_str() && inspected["options"]["full_cone"] == "true", "{inspected}");
        let containers = inspected["containers"].as_array().context("no containers")?;
        ensure!(containers.len() == 1 && containers[0]["container_id"] == container.id(), "{inspected}");
        ensure!(inspected["published"][0]["host_port"] == 8080, "{inspected}");
        ensure!(inspected["published"].as_array().is_some_and(|ports| ports.len() == 1), "{inspected}");
    }
    let missing = netpath.expect_code(&["net", "inspect", "no-such-network", "bridge", "-o", "json"], 1)?;
    ensure!(missing.stderr.contains("no such network: no-such-network"), "{missing:?}");
    ensure!(serde_json::from_str::<Vec<Value>>(&missing.stdout)?.len() == 1, "{missing:?}");

    let by_network = ["endpoint", "ls", "--filter", &format!("network={}", network.name())];
    let endpoints: Vec<Value> = netpath.json(&by_network)?;
    let [endpoint] = endpoints.as_slice() else { anyhow::bail!("endpoint ls: {endpoints:?}") };
    ensure!(
        endpoint["address"] == address.to_string() && endpoint["endpoint_id"] == endpoint_id.as_str(),
        "{endpoint}"
    );
    let veth = endpoint["veth"].as_str().context("no veth")?;
    ensure!(veths.contains(&format!(" {veth}@")), "{veth} isn't one of {veths}");
    let quiet = netpath.expect_code(&[&by_network[..], &["-q"]].concat(), 0)?;
    ensure!(quiet.stdout.trim() == &endpoint_id[..12], "endpoint ls -q: {quiet:?}");
    let quiet =
        netpath.expect_code(&["net", "ls", "-q", "--no-trunc", "--filter", &format!("name={}", network.name())], 0)?;
    ensure!(quiet.stdout.trim() == id, "net ls -q: {quiet:?}");
    let ports: Vec<Value> = netpath.json(&["ports", "-f", &format!("container={}", &container.id()[..10])])?;
    ensure!(ports.len() == 1 && ports[0]["host_port"] == 8080 && ports[0]["network_id"] == id.as_str(), "{ports:?}");
    for words in [&["net", "ls", "-o", "wide"][..], &["endpoint", "ls", "-o", "wide"], &["ports", "-o", "wide"]] {
        ensure!(netpath.expect_code(words, 0)?.stdout.contains("NETWORK ID"), "{words:?} shows no network's id");
    }
    Ok(())
}

fn shows_from_pins(lab: &mut Lab) -> Result<()> {
    let (_traffic, expected) = Traffic::start(lab)?;
    lab.netpath()?.wait_in_step()?;
    lab.netpath()?.kill()?;
    let netpath = lab.netpath()?;
    let output = netpath.expect_code(&["status", "--output", "json"], 3)?;
    let status: Value = serde_json::from_str(&output.stdout).context("read status")?;
    ensure!(status["attached"] == true, "status of a dead daemon: {status}");
    ensure!(!output.stderr.trim().is_empty(), "status says nothing of the dead daemon on stderr");
    expected.check(&netpath.flows()?, &netpath.ports()?)?;
    let endpoints: Vec<Value> = netpath.json(&["endpoint", "ls"])?;
    ensure!(endpoints.iter().any(|endpoint| endpoint["address"] == expected.server.to_string()), "{endpoints:?}");
    netpath.expect_code(&["endpoint", "ls", "--filter", "network=bridge"], 3)?;
    expect_drop_reasons(&netpath.json(&["drops"])?)
}

fn global_options(lab: &mut Lab) -> Result<()> {
    let netpath = lab.netpath()?;
    // Netpath::command puts socket and pins behind the verb; here they stand before it.
    let after = netpath.command(&["status"]);
    let words: Vec<_> = after.get_args().skip(2).map(std::ffi::OsStr::to_owned).collect();
    let (verb, options) = words.split_first().context("the command has no verb")?;
    let mut before = netpath_tests::netns::join_command(&lab.host().path(), lab.netpath()?.binary());
    let output = shell::output(before.args(options).args(["-o", "json"]).arg(verb))?;
    ensure!(output.code == 0, "status ended with {}: {}", output.code, output.stderr);
    serde_json::from_str::<Value>(&output.stdout).context("read status").map(drop)
}

fn nothing_there(lab: &mut Lab) -> Result<()> {
    let pins = run::pin_directory("nothing");
    for verb in ["status", "ports", "drops"] {
        let mut command = netpath_tests::netns::join_command(&lab.host().path(), lab.netpath()?.binary());
        command.arg(verb).args(["--socket", "/nonexistent/netpath.sock", "--pin-dir"]).arg(&pins);
        let output = shell::output(&mut command)?;
        ensure!(output.code == 3, "{verb} ended with {}: {}{}", output.code, output.stdout, output.stderr);
        ensure!(!output.stderr.is_empty(), "{verb} doesn't say why");
    }
    Ok(())
}

fn wrong_usage(lab: &mut Lab) -> Result<()> {
    let netpath = lab.netpath()?;
    for words in [
        &["status", "--no-such-flag"][..],
        &["no-such-verb"],
        &["run", "--xdp", "sometimes"],
        &["ct"],
        &["ports", "-f", "x=y"],
    ] {
        let output = netpath.expect_code(words, 2)?;
        ensure!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?} printed {output:?}");
    }
    Ok(())
}

fn no_permission(lab: &mut Lab) -> Result<()> {
    let netpath = lab.netpath()?;
    // The binary may lie where nobody but root may look: a copy is for everyone.
    let directory = tempfile::tempdir().context("make a directory")?;
    let binary = directory.path().join("netpath");
    std::fs::copy(netpath.binary(), &binary).context("copy the binary")?;
    shell::run_words(&["chmod", "-R", "a+rx", &directory.path().to_string_lossy()])?;
    let pins = netpath.pins().to_owned();
    for words in [&["status"][..], &["detach"], &["run", "--uplink", "eth0"]] {
        let mut command = netpath_tests::netns::join_command(&lab.host().path(), "setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]).arg(&binary);
        command.args(words).args(["--socket", "/nonexistent/netpath.sock", "--pin-dir"]).arg(&pins);
        let output = shell::output(&mut command)?;
        ensure!(output.code == 4, "{words:?} ended with {}: {}{}", output.code, output.stdout, output.stderr);
        ensure!(!output.stderr.is_empty(), "{words:?} doesn't say what is missing");
    }
    lab.netpath()?.wait_in_step()
}

/// One masqueraded and one published connection, held open.
struct Traffic {
    _open: [TcpClient; 2],
    _containers: [netpath_tests::container::Container; 2],
    _server: netpath_tests::server::Server,
}

/// What `ct ls` and `ports` must show of it.
struct Expected {
    client: Ipv4Addr,
    server: Ipv4Addr,
    masqueraded: SocketAddrV4,
    published: SocketAddrV4,
    lan: SocketAddrV4,
}

impl Traffic {
    fn start(lab: &mut Lab) -> Result<(Self, Expected)> {
        let server = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80"))?;
        let client = lab.start(lab.docker().idle())?;
        let (lan_server, lan) = lab.lan_tcp()?;
        let published = connect(lab, SocketAddrV4::new(HOST, 8080))?;
        let masqueraded = TcpClient::connect(&*client.place()?, lan)?;
        let expected = Expected {
            client: client.address()?,
            server: server.address()?,
            masqueraded: masqueraded.local(),
            published: published.local(),
            lan,
        };
        let open = [masqueraded, published];
        Ok((Self { _open: open, _containers: [server, client], _server: lan_server }, expected))
    }
}

impl Expected {
    fn check(&self, flows: &[Flow], ports: &[Port]) -> Result<()> {
        let find = |local: SocketAddrV4| {
            let found = flows
                .iter()
                .find(|flow| flow.original.source == *local.ip() && flow.original.source_port == local.port());
            found.with_context(|| format!("ct ls shows no flow from {local}: {flows:?}"))
        };
        let masqueraded = find(self.masqueraded)?;
        ensure!(masqueraded.original.source == self.client, "{masqueraded:?}");
        ensure!(masqueraded.original.destination == *self.lan.ip(), "{masqueraded:?}");
        ensure!(masqueraded.reply.destination == HOST, "the masqueraded flow's answers go to {masqueraded:?}");
        let published = find(self.published)?;
        ensure!(published.original.source == LAN && published.original.destination_port == 8080, "{published:?}");
        ensure!(published.reply.source == self.server && published.reply.source_port == 80, "{published:?}");
        for flow in [masqueraded, published] {
            ensure!(flow.protocol == "tcp" && flow.state == "ESTABLISHED", "{flow:?}");
        }
        let port = ports.iter().find(|port| port.host_port == 8080 && port.protocol == "tcp");
        let port = port.with_context(|| format!("ports doesn't show 8080: {ports:?}"))?;
        ensure!(port.container_address == self.server && port.container_port == 80, "{port:?}");
        Ok(())
    }
}

/// `drops` lists every reason, so that scripts needn't know which have occurred.
fn expect_drop_reasons(drops: &Value) -> Result<()> {
    let text = drops.to_string();
    for reason in ["direct_to_container", "ports_exhausted", "flow_table_full"] {
        ensure!(text.contains(reason), "drops doesn't show {reason}: {text}");
    }
    Ok(())
}
