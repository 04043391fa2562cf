//! The operator's policy: whether a client may open a flow to a published port. What Docker's chain `DOCKER-USER` is for.
//!
//! It is asked when a packet that belongs to no flow has found its published port, or its cone, and before anything else is
//! done for it: before the translation, with the address that the client really has, and before the packet could be left
//! to the kernel, whose own rules would let it in. A packet of a known flow is never judged. The same code judges in the
//! kernel, in the daemon, which ends the flows that a new list denies, and in tests.

use crate::{
    abi::{Action, Address, Direction, Flow, FlowKey, FlowKind, Origin, PathCount, Policy, PolicyKey, PolicyRule},
    drop::DropReason,
    parse::Headers,
    tables::Tables,
};

/// What a list says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of it, were it no dry run.
    pub action: Action,
    /// Where it is counted.
    pub counter: u16,
}

impl PolicyKey {
    #[inline(always)]
    fn word(self) -> u64 {
        bytemuck::cast(self)
    }
}

impl PolicyRule {
    /// Whether the rule fits a packet to this port (host order).
    #[inline(always)]
    #[must_use]
    pub fn fits(&self, key: PolicyKey, port: u16) -> bool {
        (key.word() ^ self.wanted.word()) & self.mask.word() == 0 && port >= self.port_first && port <= self.port_last
    }
}

impl Policy {
    /// Whether there is anything to judge by.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.rule_count == 0 && self.default_action == Action::Allow as u8
    }

    /// What the list says: the first rule that fits, else the default.
    #[inline(always)]
    #[must_use]
    pub fn judge(&self, key: PolicyKey, port: u16) -> Judgement {
        let count = self.rule_count as usize;
        let mut index = 0;
        while index < Self::RULES_MAX {
            if index >= count {
                break;
            }
            let rule = &self.rules[index];
            if rule.fits(key, port) {
                return Judgement { action: Action::numbered(rule.action), counter: rule.counter };
            }
            index += 1;
        }
        Judgement { action: Action::numbered(self.default_action), counter: self.default_counter }
    }

    /// Whether the list denies a flow that is open: the same question as for the packet that opened it. Flows that have
    /// nothing to do with published ports and cones are never denied.
    #[must_use]
    pub fn denies(&self, key: &FlowKey, flow: &Flow) -> bool {
        let origin = match flow.kind() {
            FlowKind::Published | FlowKind::Cone => Origin::Wire,
            FlowKind::Hairpin => Origin::Container,
            // Only what comes out of a container is bound to an interface.
            FlowKind::Routed if (flow.direction() == Direction::Original) == (flow.ingress_ifindex == 0) => {
                Origin::Wire
            }
            FlowKind::Routed | FlowKind::Masquerade | FlowKind::Host | FlowKind::Loopback => return false,
        };
        let opened = match flow.direction() {
            Direction::Original => *key,
            Direction::Reply => flow.reply_key(key.protocol),
        };
        let asked =
            PolicyKey { source: opened.source, network: flow.network, protocol: opened.protocol, origin: origin as u8 };
        let port = u16::from_be_bytes(opened.destination_port);
        self.dry_run == 0 && self.judge(asked, port).action == Action::Deny
    }
}

/// Lets a packet open a flow to the container at `target`, or doesn't.
///
/// # Errors
///
/// [`DropReason::PolicyDenied`].
#[inline(never)]
pub(crate) fn permit<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    target: Address,
    origin: Origin,
) -> Result<(), DropReason> {
    if tables.policy().is_none_or(Policy::is_none) {
        return Ok(());
    }
    // A container that isn't there is on no network.
    let network = tables.endpoint(target).map_or(0, |endpoint| endpoint.network);
    let key = PolicyKey { source: headers.key.source, network, protocol: headers.key.protocol, origin: origin as u8 };
    let Some(policy) = tables.policy() else { return Ok(()) };
    let is_dry_run = policy.dry_run != 0;
    let Judgement { action, counter } = policy.judge(key, u16::from_be_bytes(headers.key.destination_port));
    tables.count_policy(counter, headers.total_len);
    match action {
        Action::Allow => Ok(()),
        Action::Deny if is_dry_run => {
            tables.count(PathCount::PolicyWouldDeny, headers.total_len);
            Ok(())
        }
        Action::Deny => Err(DropReason::PolicyDenied),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
