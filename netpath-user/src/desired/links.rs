//! Docker's legacy links (`docker run --link`): where the default network keeps containers apart, a link opens the ports that
//! the linked container exposes, to the one that is linked to it and to nobody else.
//!
//! On other networks a link is a name only, as with Docker.

use std::net::Ipv4Addr;

use netpath_common::abi::Terms;

use super::{
    build::Wanted,
    docker::{Container, DockerModel, Interface},
    model::{Admission, Entrance, LinkEnd},
};

/// Ports of one link; a container that exposes more is most likely a mistake, and each takes two entries of a map.
const PORTS_MAX: usize = 1024;

/// Adds what a container's links let pass.
pub(super) fn add(wanted: &mut Wanted, docker: &DockerModel, container: &Container) {
    let Some(own) = on_default_network(docker, container) else { return };
    for name in &container.links {
        let Some(linked) = docker.containers.values().find(|other| other.name == *name) else { continue };
        let Some(other) = on_default_network(docker, linked) else { continue };
        if linked.exposed.len() > PORTS_MAX {
            wanted.refused.push(format!(
                "the link of container {} to {name} opens nothing: {name} exposes {} ports, and {PORTS_MAX} are the most",
                container.name,
                linked.exposed.len()
            ));
            continue;
        }
        open(wanted, own.address, other.address, linked);
    }
}

fn on_default_network<'a>(docker: &DockerModel, container: &'a Container) -> Option<&'a Interface> {
    let is_default = |id: &String| docker.networks.get(id).is_some_and(|network| network.is_default);
    container.interfaces.iter().find(|interface| is_default(&interface.network))
}

fn open(wanted: &mut Wanted, own: Ipv4Addr, other: Ipv4Addr, linked: &Container) {
    let state = &mut wanted.state;
    let [Some(from), Some(to)] = [own, other].map(|address| state.endpoints.get(&address)) else { return };
    if from.terms & Terms::ICC_OFF == 0 {
        return;
    }
    for &(port, protocol) in &linked.exposed {
        let asks = LinkEnd { neighbour: other, protocol, port, answers: false };
        let answers = LinkEnd { neighbour: own, protocol, port, answers: true };
        state.admitted.insert(Entrance::Linked(from.ifindex, asks), Admission::default());
        state.admitted.insert(Entrance::Linked(to.ifindex, answers), Admission::default());
    }
}
