//! What a change is about, in an operator's words.

use std::fmt;

use super::model::{Change, Entrance, Hook, Protocol, PublishedPort};

/// A port as Docker writes it: `0.0.0.0:80/tcp`.
impl fmt::Display for PublishedPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}/{}", self.address, self.port, self.protocol)
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
        Change::SetPublished(ports) => published(ports.iter().map(|(port, _)| port)),
        Change::RemovePublished(ports) => published(ports.iter()),
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

fn published<'a>(mut ports: impl ExactSizeIterator<Item = &'a PublishedPort>) -> String {
    let others = ports.len().saturating_sub(1);
    match (ports.next(), others) {
        (None, _) => "no published port".to_owned(),
        (Some(port), 0) => format!("published port {port}"),
        (Some(port), others) => format!("published port {port} and {others} more"),
    }
}
