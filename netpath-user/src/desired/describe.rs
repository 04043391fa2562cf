//! What a change is about, in an operator's words.

use std::fmt;

use super::{
    model::{Change, Entrance, Hook, Protocol},
    ports::PortBlock,
};

/// Ports as Docker writes them: `0.0.0.0:80/tcp`, `0.0.0.0:8000-8015/tcp`.
impl fmt::Display for PortBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.first.address, self.first.port)?;
        if self.bits > 0 {
            write!(formatter, "-{}", self.last())?;
        }
        write!(formatter, "/{}", self.first.protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// The object of a change of the policy.
pub const POLICY: &str = "policy";

/// The object of a change, the same for every change of that object.
#[must_use]
pub fn object(change: &Change) -> String {
    match change {
        Change::SetMode(_) => "mode".to_owned(),
        Change::SetPolicy(_) => POLICY.to_owned(),
        Change::SetEndpoint(address, _) | Change::RemoveEndpoint(address) => format!("endpoint {address}"),
        Change::SetAdmitted(entrance, _) | Change::RemoveAdmitted(entrance) => match entrance {
            Entrance::Veth(ifindex) => format!("sender with interface index {ifindex}"),
            Entrance::Address(ifindex, address) => format!("sender {address} with interface index {ifindex}"),
            Entrance::Trusted(ifindex, _) => format!("trusted uplink with interface index {ifindex}"),
            Entrance::Linked(ifindex, end) => {
                format!("link of the container with interface index {ifindex} to {}", end.neighbour)
            }
        },
        Change::SetPublished(blocks) => published(blocks.iter().map(|(block, _)| block)),
        Change::RemovePublished(blocks) => published(blocks.iter()),
        Change::SetUplink(ifindex, _) | Change::RemoveUplink(ifindex) => {
            format!("uplink with interface index {ifindex}")
        }
        Change::AddHostAddress(address) | Change::RemoveHostAddress(address) => format!("host address {address}"),
        Change::AddHostAddressIpv6(address) | Change::RemoveHostAddressIpv6(address) => {
            format!("host address {address}")
        }
        Change::Attach(attachment) | Change::Detach(attachment) => {
            format!("{} program on interface index {}", hook(attachment.hook), attachment.ifindex)
        }
    }
}

/// What an operator calls a hook.
#[must_use]
pub const fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Uplink => "uplink",
        Hook::Egress => "egress",
        Hook::XdpUplink => "XDP",
        Hook::Container => "container",
        Hook::Bridge => "bridge",
        Hook::Loopback => "loopback",
    }
}

fn published<'a>(blocks: impl Iterator<Item = &'a PortBlock>) -> String {
    let blocks: Vec<_> = blocks.collect();
    let Some(first) = blocks.first() else { return "no published port".to_owned() };
    let ports: usize = blocks.iter().map(|block| block.count()).sum();
    match ports - first.count() {
        0 => format!("published port {first}"),
        others => format!("published port {first} and {others} more"),
    }
}
