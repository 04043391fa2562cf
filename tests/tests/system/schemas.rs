//! What verbs print with `-o json`, held against the schemas in `docs/schema`: every field that is printed is in the schema, and
//! every field of the schema is printed.
//!
//! The schemas are made from the types that print it; what is seen here is that the binary prints those, of a host on which
//! there is something to print.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jsonschema::Validator;
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::client::{TcpClient, UdpClient};
use netpath_tests::container::{Container, Network};
use netpath_tests::icmp::ping;
use netpath_tests::lab::{HOST, LAN, Lab};
use netpath_tests::netpath::Options;
use netpath_tests::server::Server;
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::bypass::{Rule, host};
use super::reach::connect;

pub(crate) const CASES: &[Case] = &[
    Case::new("what is printed as JSON is what its schema says, on a host with everything", everything).own_netpath(),
    Case::new("what is printed as JSON is what its schema says, without a daemon", nobody).own_netpath(),
    Case::new("a field that isn't in its schema, and one that is missing, are noticed", notices).own_netpath().sole(),
];

const POLICY: &str = r#"
    [macvlan]
    host_access = true

    [[policy.rule]]
    action = "allow"
    source = ["192.0.2.0/24", "198.51.100.0/24"]
    from = "wire"
    port = ["8080-8089"]
    protocol = ["tcp", "udp"]

    [[policy.rule]]
    action = "deny"
    source = ["203.0.113.0/24"]
    network = ["bridge", "not-there-yet"]
"#;

/// A verb, the schema that it has, and the exit codes that it may end with.
type Row<'a> = (&'a [&'a str], &'a str, &'a [i32]);

/// All that a daemon and the pins tell of.
const WITH_A_DAEMON: &[Row<'_>] = &[
    (&["status"], "status", &[0]),
    (&["net", "ls"], "net-ls", &[0]),
    (&["net", "inspect", "bridge"], "net-inspect", &[0]),
    (&["endpoint", "ls"], "endpoint-ls", &[0]),
    (&["ports"], "ports", &[0]),
    (&["policy", "show"], "policy-show", &[0]),
    (&["ct", "ls"], "ct-ls", &[0]),
    (&["ct", "count"], "ct-count", &[0]),
    (&["ct", "stats"], "ct-stats", &[0]),
    (&["drops"], "drops", &[0]),
    (&["migrate", "--check"], "migrate-check", &[0, 6]),
    (&["ct", "rm", "--proto", "udp"], "ct-rm", &[0]),
    (&["ct", "flush"], "ct-rm", &[0]),
    (&["policy", "apply"], "policy-apply", &[0]),
];

/// All that the pins alone tell of.
const FROM_PINS: &[Row<'_>] = &[
    (&["status"], "status", &[3]),
    (&["endpoint", "ls"], "endpoint-ls", &[0]),
    (&["ports"], "ports", &[0]),
    (&["policy", "show"], "policy-show", &[0]),
    (&["ct", "ls"], "ct-ls", &[0]),
    (&["ct", "stats"], "ct-stats", &[0]),
    (&["drops"], "drops", &[0]),
    (&["migrate", "--check"], "migrate-check", &[0, 6]),
];

/// A schema that lets pass no field that it doesn't name.
fn strict(name: &str) -> Result<Validator> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut schema: Value = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    close(&mut schema);
    jsonschema::validator_for(&schema).with_context(|| format!("{} isn't a schema", path.display()))
}

/// Forbids, wherever a schema lists properties, all others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            let is_of_fields = object.get("properties").is_some_and(Value::is_object);
            if is_of_fields && !object.contains_key("additionalProperties") {
                object.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

fn hold(validator: &Validator, value: &Value, what: &str) -> Result<()> {
    let wrong: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(wrong.is_empty(), "{what} isn't what its schema says:\n    {}\n{value:#}", wrong.join("\n    "));
    Ok(())
}

/// Runs a verb and holds what it prints against its schema.
fn expect(lab: &mut Lab, (words, schema, codes): Row<'_>) -> Result<Value> {
    let output = lab.netpath()?.output(&[words, &["--output", "json"]].concat())?;
    ensure!(codes.contains(&output.code), "{words:?} ended with {}: {}", output.code, output.stderr);
    let value: Value = serde_json::from_str(&output.stdout).with_context(|| format!("read what {words:?} printed"))?;
    hold(&strict(schema)?, &value, &format!("what {words:?} prints"))?;
    Ok(value)
}

/// Containers on two kinds of networks, with open connections of every protocol, and a policy.
struct Scene {
    policy: NamedTempFile,
    _open: Vec<TcpClient>,
    _servers: Vec<Server>,
    _containers: Vec<Container>,
    _networks: Vec<Network>,
}

impl Scene {
    fn build(lab: &mut Lab) -> Result<Self> {
        let mut policy = NamedTempFile::new().context("make a file")?;
        policy.write_all(POLICY.as_bytes()).context("write the file")?;
        lab.start_netpath(Options::new(&["--config", &policy.path().to_string_lossy()]))?;
        let wide =
            ["--driver", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--opt", "parent=eth0"];
        let networks = vec![lab.docker().network(&["--opt", "netpath.full_cone=true"])?, lab.docker().network(&wide)?];
        let serving = lab.docker().serving(&["tcp:80", "udp:80"]).publish("8080:80").publish("8080:80/udp");
        let server = lab.start(serving)?;
        let client = lab.start(lab.docker().idle().network(networks[0].name()))?;
        let idle = lab.docker().idle().network(networks[1].name());
        let beside = idle.option("--ip", "192.0.2.60").start()?;
        let (lan_server, lan) = lab.lan_tcp()?;
        let open = vec![connect(lab, WEB)?, TcpClient::connect(&*client.place()?, lan)?];
        UdpClient::connect(lab.lan(), WEB)?.ask("a flow of UDP")?;
        ping(&*client.place()?, LAN)?;
        let (_servers, _containers) = (vec![lan_server], vec![server, client, beside]);
        Ok(Self { policy, _open: open, _servers, _containers, _networks: networks })
    }
}

const WEB: SocketAddrV4 = SocketAddrV4::new(HOST, 8080);

fn everything(lab: &mut Lab) -> Result<()> {
    let scene = Scene::build(lab)?;
    // A rule that netpath would pass by: status and the check have something to say of it.
    let host = host(lab)?;
    let _rule = Rule::insert(&host, "FORWARD -s 198.51.100.7 -j LOG")?;
    for row in WITH_A_DAEMON {
        let value = expect(lab, *row)?;
        let is_empty = value.as_array().is_some_and(Vec::is_empty);
        ensure!(!is_empty, "{:?} printed an empty list, which shows nothing", row.0);
    }
    let path = scene.policy.path().to_string_lossy().into_owned();
    expect(lab, (&["policy", "check", &path], "policy-check", &[0]))?;
    events(lab)?;
    moves(lab)
}

/// The steps of a migration that isn't made.
fn moves(lab: &mut Lab) -> Result<()> {
    let to = if lab.mode() == Mode::Takeover { "sole" } else { "takeover" };
    let directory = tempfile::tempdir().context("make a directory")?;
    let file = directory.path().join("daemon.json").to_string_lossy().into_owned();
    expect(lab, (&["migrate", "--to", to, "--dry-run", "--daemon-json", &file], "migrate-to", &[0, 6])).map(drop)
}

/// A `ct events` that is killed if the test fails.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn events(lab: &mut Lab) -> Result<()> {
    let words = ["ct", "events", "--count", "2", "--timeout", "20s", "--output", "json"];
    let mut command = lab.netpath()?.command(&words);
    let mut listening = Listening(command.stdout(Stdio::piped()).spawn().context("start ct events")?);
    // Whenever it begins to listen, there are a beginning and an end to be told of.
    for _ in 0..40 {
        if listening.0.try_wait().context("look at ct events")?.is_some() {
            break;
        }
        connect(lab, WEB)?.echo("an event")?;
        lab.netpath()?.expect_code(&["ct", "flush"], 0)?;
        thread::sleep(Duration::from_millis(100));
    }
    let stdout = listening.0.stdout.take().context("ct events has no stdout")?;
    let text = std::io::read_to_string(stdout).context("read the events")?;
    let validator = strict("ct-events")?;
    ensure!(text.lines().count() == 2, "ct events printed {text:?}");
    for line in text.lines() {
        hold(&validator, &serde_json::from_str(line).context("read an event")?, "an event")?;
    }
    Ok(())
}

fn nobody(lab: &mut Lab) -> Result<()> {
    let _scene = Scene::build(lab)?;
    lab.netpath()?.kill()?;
    for row in FROM_PINS {
        expect(lab, *row)?;
    }
    lab.netpath()?.start_again()?;
    let output = lab.netpath()?.expect_code(&["detach", "--output", "json"], 0)?;
    let report = serde_json::from_str(&output.stdout).context("read the report of detach")?;
    hold(&strict("detach")?, &report, "what detach prints")?;
    expect(lab, (&["status"], "status", &[3])).map(drop)
}

fn notices(lab: &mut Lab) -> Result<()> {
    lab.start_netpath(Options::default())?;
    let status = expect(lab, (&["status"], "status", &[0]))?;
    let validator = strict("status")?;
    let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut status = status.clone();
        status["docker"].as_object_mut().map(change);
        validator.is_valid(&status)
    };
    ensure!(changed(&|_| {}), "an unchanged status isn't valid");
    ensure!(!changed(&|docker| drop(docker.insert("news".to_owned(), Value::Null))), "a new field isn't noticed");
    ensure!(!changed(&|docker| drop(docker.remove("socket"))), "a missing field isn't noticed");
    ensure!(!changed(&|docker| drop(docker.insert("socket".to_owned(), 1.into()))), "another type isn't noticed");
    Ok(())
}
