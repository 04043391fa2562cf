//! The lab's network namespaces, and the wire between them.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::state::State;
use crate::process::{self, words};

/// The Docker host's address on the wire.
pub(crate) const HOST: &str = "198.51.100.1";

/// The neighbour's address on the wire.
pub(crate) const LAN: &str = "198.51.100.2";

/// The Docker host's address on docker0.
pub(crate) const GATEWAY: &str = "172.17.0.1";

/// An address that is reached through the neighbour only.
pub(crate) const WORLD: &str = "203.0.113.80";

/// Makes the namespaces `host` and `lan`.
pub(crate) fn make(state: &mut State) -> Result<()> {
    for name in ["host", "lan"] {
        if Path::new("/run/netns").join(name).exists() {
            bail!(
                "a network namespace `{name}` exists already and is not a lab's; see `ip netns pids {name}`, and `ip netns delete {name}` if it is of no use"
            );
        }
        state.namespaces.push(name.to_owned());
        state.save()?;
        process::run(&mut words(&format!("ip netns add {name}")))?;
    }
    process::run(&mut words("ip -n host link add eth0 type veth peer name eth0 netns lan"))?;
    // Across a real wire no checksum is left for later and no segment is longer than the MTU.
    process::read(&mut inside("lan", &words("ethtool -K eth0 tx off tso off gso off")))?;
    for line in [
        "ip -n host link set lo up",
        "ip -n lan link set lo up",
        &format!("ip -n host address add {HOST}/24 dev eth0"),
        &format!("ip -n lan address add {LAN}/24 dev eth0"),
        &format!("ip -n lan address add {WORLD}/32 dev lo"),
        "ip -n host link set eth0 up",
        "ip -n lan link set eth0 up",
        &format!("ip -n host route add default via {LAN}"),
    ] {
        process::run(&mut words(line))?;
    }
    Ok(())
}

/// The command in one of the namespaces. Unlike `ip netns exec` this leaves the mounts as they are: a dockerd needs
/// the control groups.
pub(crate) fn inside(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}
