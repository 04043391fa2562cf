//! The steps from one state to another, in an order that never leaves a reference dangling.
//!
//! What others refer to is added first and removed last: a published port never points to an absent endpoint and a
//! program is never attached before the maps know its interface. A changed object is one step, so there is no moment
//! without it.

use super::{
    model::{Change, State},
    ports::{PortBlock, PublishedTarget},
};

/// Blocks of published ports in one change; thousands take a few batches instead of one system call for each.
pub const BATCH_MAX: usize = 1024;

/// The changes that make `actual` into `desired`.
#[must_use]
pub fn diff(actual: &State, desired: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    if actual.mode != desired.mode {
        changes.push(Change::SetMode(desired.mode));
    }
    // Before anything that it is to protect is there.
    if actual.policy != desired.policy {
        changes.push(Change::SetPolicy(desired.policy.clone()));
    }
    remove_published(actual, desired, &mut changes);
    add(actual, desired, &mut changes);
    set_published(actual, desired, &mut changes);
    remove(actual, desired, &mut changes);
    changes
}

fn remove_published(actual: &State, desired: &State, changes: &mut Vec<Change>) {
    let gone = actual.published.keys().filter(|block| !desired.published.contains_key(block));
    let gone: Vec<PortBlock> = gone.copied().collect();
    changes.extend(gone.chunks(BATCH_MAX).map(|batch| Change::RemovePublished(batch.to_vec())));
}

/// Everything but published ports; what they and the programs refer to comes first.
fn add(actual: &State, desired: &State, changes: &mut Vec<Change>) {
    changes.extend(desired.host_addresses.difference(&actual.host_addresses).copied().map(Change::AddHostAddress));
    let ipv6 = desired.host_addresses_ipv6.difference(&actual.host_addresses_ipv6);
    changes.extend(ipv6.copied().map(Change::AddHostAddressIpv6));
    for (ifindex, uplink) in &desired.uplinks {
        if actual.uplinks.get(ifindex) != Some(uplink) {
            changes.push(Change::SetUplink(*ifindex, uplink.clone()));
        }
    }
    for (address, endpoint) in &desired.endpoints {
        if actual.endpoints.get(address) != Some(endpoint) {
            changes.push(Change::SetEndpoint(*address, endpoint.clone()));
        }
    }
    // After the endpoints: of a veth that is known, every address but its endpoint's is foreign.
    for (entrance, admission) in &desired.admitted {
        if actual.admitted.get(entrance) != Some(admission) {
            changes.push(Change::SetAdmitted(*entrance, *admission));
        }
    }
    changes.extend(desired.attachments.difference(&actual.attachments).copied().map(Change::Attach));
}

fn set_published(actual: &State, desired: &State, changes: &mut Vec<Change>) {
    let wanted = desired.published.iter().filter(|(block, target)| actual.published.get(block) != Some(target));
    let wanted: Vec<(PortBlock, PublishedTarget)> = wanted.map(|(block, target)| (*block, *target)).collect();
    changes.extend(wanted.chunks(BATCH_MAX).map(|batch| Change::SetPublished(batch.to_vec())));
}

/// Everything but published ports, in the opposite order of [`add`].
fn remove(actual: &State, desired: &State, changes: &mut Vec<Change>) {
    changes.extend(actual.attachments.difference(&desired.attachments).copied().map(Change::Detach));
    let admitted = actual.admitted.keys().filter(|entrance| !desired.admitted.contains_key(entrance));
    changes.extend(admitted.copied().map(Change::RemoveAdmitted));
    let endpoints = actual.endpoints.keys().filter(|address| !desired.endpoints.contains_key(address));
    changes.extend(endpoints.copied().map(Change::RemoveEndpoint));
    let uplinks = actual.uplinks.keys().filter(|ifindex| !desired.uplinks.contains_key(ifindex));
    changes.extend(uplinks.copied().map(Change::RemoveUplink));
    changes.extend(actual.host_addresses.difference(&desired.host_addresses).copied().map(Change::RemoveHostAddress));
    let ipv6 = actual.host_addresses_ipv6.difference(&desired.host_addresses_ipv6);
    changes.extend(ipv6.copied().map(Change::RemoveHostAddressIpv6));
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
