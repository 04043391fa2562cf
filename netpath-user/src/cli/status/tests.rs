//! What is printed and how it ends, of reports made by hand.

use std::{io, path::PathBuf};

use anyhow::anyhow;
use serde_json::json;

use super::{
    Exit, NothingAttached, Outcome, judge,
    table::{flows, table},
};
use crate::{
    cli::endpoint,
    control::ClientError,
    dataplane::PinsError,
    report::{DockerStatus, EndpointStatus, HostAccessStatus, NetworkStatus, PendingFailure, UplinkStatus},
    status::{Daemon, Flows, Network, Status, Traffic},
};

fn socket() -> PathBuf {
    PathBuf::from("/run/sock")
}

fn unreachable() -> ClientError {
    ClientError::Unreachable { path: socket(), source: io::Error::from(io::ErrorKind::NotFound) }
}

fn attached() -> Status {
    Status { attached: true, mode: "takeover".to_owned(), ..Default::default() }
}

fn in_step() -> Status {
    let pid = Some(7);
    Status {
        in_sync: true,
        daemon: Daemon { running: true, pid, version: Some("0.1.0".to_owned()), pin_dir: None },
        docker: DockerStatus {
            socket: "/var/run/docker.sock".to_owned(),
            connected: true,
            in_sync: true,
            api_version: Some("1.41".to_owned()),
            ..Default::default()
        },
        ..attached()
    }
}

fn no_pins() -> anyhow::Result<Status> {
    Err(NothingAttached(PathBuf::from("/pins")).into())
}

#[test]
fn only_attached_and_in_step_is_ok() {
    let pending = PendingFailure { object: "uplink eth0".to_owned(), error: "busy".to_owned(), attempts: 2 };
    let away = DockerStatus { socket: "/d.sock".to_owned(), ..Default::default() };
    for (status, exit, said) in [
        (in_step(), Exit::Ok, ""),
        (Status { attached: false, ..in_step() }, Exit::Degraded, "nothing is attached"),
        (Status { in_sync: false, ..in_step() }, Exit::Degraded, "isn't applied yet"),
        (Status { in_sync: false, docker: away, ..in_step() }, Exit::Degraded, "/d.sock: not connected"),
        (Status { in_sync: false, docker: DockerStatus::default(), ..in_step() }, Exit::Degraded, "is starting"),
        (Status { in_sync: false, pending: vec![pending], ..in_step() }, Exit::Degraded, "uplink eth0: busy"),
    ] {
        let outcome = judge(Ok(status), || panic!("the daemon answers")).unwrap();
        assert_eq!(outcome.exit, exit, "{said}");
        assert_eq!(outcome.messages.is_empty(), said.is_empty());
        assert!(outcome.messages.concat().contains(said), "{:?}", outcome.messages);
    }
}

#[test]
fn without_a_daemon_the_pins_speak() {
    let Outcome { status, exit, messages } = judge(Err(unreachable()), || Ok(attached())).unwrap();
    assert_eq!((status, exit), (attached(), Exit::Unreachable));
    assert!(messages[0].starts_with("no netpath daemon answers on /run/sock"), "{messages:?}");
}

#[test]
fn without_anything_the_user_learns_what_to_do() {
    let Outcome { status, exit, messages } = judge(Err(unreachable()), no_pins).unwrap();
    assert_eq!((status, exit), (Status::default(), Exit::Unreachable));
    assert_eq!(messages[1], "nothing is attached under /pins; start it with `netpath run`");
}

#[test]
fn missing_permission_is_its_own_exit_code() {
    let unreadable = || Err(PinsError::Permission(PathBuf::from("/pins")).into());
    let error = judge(Err(unreachable()), unreadable).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Permission);
    let outcome = judge(Err(ClientError::Permission(socket())), no_pins).unwrap();
    assert_eq!(outcome.exit, Exit::Permission);
    let error = judge(Err(unreachable()), || Err(anyhow!("broken map"))).unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Failure);
}

#[test]
fn the_table_tells_everything_at_a_glance() {
    let endpoint = EndpointStatus {
        container_name: "web".to_owned(),
        network_name: "bridge".to_owned(),
        address: [172, 17, 0, 2].into(),
        ..endpoint::sample()
    };
    let status = Status {
        uplinks: vec![UplinkStatus {
            name: "eth0".to_owned(),
            addresses: vec!["192.0.2.1/24".to_owned()],
            hook: Some("tcx".to_owned()),
            egress: Some("tcx".to_owned()),
            ..Default::default()
        }],
        networks: vec![Network {
            network: NetworkStatus { name: "bridge".to_owned(), ..Default::default() },
            datapath: Some("tcx".to_owned()),
        }],
        endpoints: vec![endpoint],
        published_ports: 3,
        host_access: HostAccessStatus { attached: true, error: None },
        flows: Flows::new(2, 1024),
        traffic: [("masquerade_out", 3), ("local", 0)]
            .map(|(name, packets)| (name.to_owned(), Traffic { packets, bytes: packets * 1500 }))
            .into(),
        drops: [("no_flow", 4), ("truncated", 0)].map(|(name, packets)| (name.to_owned(), packets)).into(),
        ..in_step()
    };
    assert_eq!(
        table(&status),
        "netpath is attached and in step with Docker
  Daemon:  netpath 0.1.0, pid 7
  Docker:  /var/run/docker.sock, connected, API 1.41
  Mode:    takeover
  Flows:   2 of 1024
  Ports:   3 published
  Host:    its own connections to published ports go straight to the containers
  Drops:   4 packets

UPLINK   HOOK   EGRESS   XDP   ADDRESSES
eth0     tcx    tcx      off   192.0.2.1/24

NETWORK ID   NAME     DRIVER   SUBNET   BRIDGE   DATAPATH   ENDPOINTS
-            bridge   -        -        -        tcx        0

CONTAINER   NETWORK   ADDRESS      INTERFACE     ATTACHED
web         bridge    172.17.0.2   veth1234567   yes

TRAFFIC          PACKETS   BYTES
masquerade_out   3         4.5 kB

DROPS     PACKETS
no_flow   4
"
    );
}

#[test]
fn the_table_says_why_the_host_goes_the_kernels_way() {
    let host_access = HostAccessStatus { attached: false, error: Some("no cgroup2".to_owned()) };
    let text = table(&Status { host_access, ..in_step() });
    let line = "  Host:    its own connections to published ports stay with the kernel: no cgroup2\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn the_table_says_what_is_not() {
    assert_eq!(table(&Status::default()), "netpath isn't attached\n  Daemon:  not running\n");
    let text = table(&Status { daemon: Daemon::default(), ..attached() });
    assert!(text.starts_with("netpath is attached, but no daemon runs\n"), "{text}");
    let docker = DockerStatus {
        socket: "/d.sock".to_owned(),
        last_error: Some("connection refused".to_owned()),
        ..Default::default()
    };
    let text = table(&Status { docker, in_sync: false, ..in_step() });
    assert!(text.contains("Docker:  /d.sock, not connected (connection refused)\n"), "{text}");
}

#[test]
fn json_has_the_same_fields_with_and_without_a_daemon() {
    let fields = |status: &Status| -> Vec<String> {
        let json = serde_json::to_value(status).unwrap();
        json.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(fields(&in_step()), fields(&Status::default()));
    let json = serde_json::to_value(Status::default()).unwrap();
    assert_eq!(json["attached"], json!(false));
    assert_eq!(json["daemon"], json!({"running": false, "pid": null, "version": null, "pin_dir": null}));
    assert_eq!(json["flows"], json!({"used": 0, "capacity": 0, "nearly_full": false}));
}

#[test]
fn a_nearly_full_table_is_shown_as_such() {
    assert_eq!(flows(&Flows::new(899, 1000)), "899 of 1000");
    assert_eq!(flows(&Flows::new(900, 1000)), "900 of 1000, NEARLY FULL: see `netpath ct stats`");
    assert_eq!(flows(&Flows::new(0, 0)), "0 of 0");
}
