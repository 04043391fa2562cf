//! What a network's options mean: the bits of [`Terms`] that its containers get.
//!
//! In sole mode netpath takes every option at its word, whatever dockerd knows of it. In takeover it must come to what
//! dockerd's rules come to, so an option that this dockerd doesn't know has no effect.

use netpath_common::abi::{Mode, Terms};

use super::{
    build::Wishes,
    docker::{Engine, GatewayMode, Network},
    host::HostModel,
};

/// What a network allows: bits of [`Terms`].
#[must_use]
pub fn terms(network: &Network, engine: &Engine, mode: Mode, host: &HostModel, wishes: &Wishes) -> u16 {
    let set = |condition: bool, bits: u16| if condition { bits } else { 0 };
    let honours_modes = mode == Mode::Sole || engine.knows_gateway_modes;
    let gateway_mode = if honours_modes { network.gateway_mode } else { GatewayMode::Nat };
    let alone = set(!network.icc, Terms::ICC_OFF)
        | set(!network.icc && !host.bridge_asks_rules, Terms::ICC_UNGUARDED)
        | set(!wishes.reach_published_of_others, Terms::KEEPS_TO_ITSELF);
    if network.internal || gateway_mode == GatewayMode::Isolated {
        return alone | Terms::INTERNAL;
    }
    let is_routed = gateway_mode == GatewayMode::Routed;
    alone
        | set(is_routed || !masquerades(network, engine, mode), Terms::NO_MASQUERADE)
        | set(is_routed, Terms::ROUTED)
        | set(gateway_mode == GatewayMode::NatUnprotected, Terms::UNPROTECTED)
        | set(engine.allows_direct_routing, Terms::DIRECT)
        | set(!network.trusted.is_empty(), Terms::TRUSTED)
}

/// Without iptables dockerd says of the default network that it doesn't masquerade, whatever was asked of it.
fn masquerades(network: &Network, engine: &Engine, mode: Mode) -> bool {
    if network.is_default && mode == Mode::Sole { engine.masquerades_default } else { network.masquerades }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{build::Xdp, uplinks::UplinkChoice};

    const ICC_OFF_UNGUARDED: u16 = Terms::ICC_OFF | Terms::ICC_UNGUARDED;

    fn wishes() -> Wishes {
        Wishes { uplinks: UplinkChoice::DefaultRoutes, xdp: Xdp::Off, ..Wishes::default() }
    }

    fn of(network: &Network, engine: &Engine, mode: Mode) -> u16 {
        let host = HostModel { bridge_asks_rules: true, ..HostModel::default() };
        terms(network, engine, mode, &host, &wishes())
    }

    #[test]
    fn each_option_has_its_bits_in_sole_mode() {
        type Row = (&'static str, fn(&mut Network), u16);
        let rows: [Row; 10] = [
            ("none", |_| (), 0),
            ("icc", |network| network.icc = false, Terms::ICC_OFF),
            ("internal", |network| network.internal = true, Terms::INTERNAL),
            ("masquerading off", |network| network.masquerades = false, Terms::NO_MASQUERADE),
            ("routed", |network| network.gateway_mode = GatewayMode::Routed, Terms::NO_MASQUERADE | Terms::ROUTED),
            ("unprotected", |network| network.gateway_mode = GatewayMode::NatUnprotected, Terms::UNPROTECTED),
            ("isolated", |network| network.gateway_mode = GatewayMode::Isolated, Terms::INTERNAL),
            ("trusted", |network| network.trusted = vec!["eth0".to_owned()], Terms::TRUSTED),
            (
                "internal beats what opens",
                |network| {
                    network.internal = true;
                    network.masquerades = false;
                    network.gateway_mode = GatewayMode::Routed;
                },
                Terms::INTERNAL,
            ),
            (
                "the default network without iptables",
                |network| (network.is_default, network.masquerades) = (true, false),
                0,
            ),
        ];
        for (description, change, expected) in rows {
            let mut network = Network::default();
            change(&mut network);
            assert_eq!(of(&network, &Engine::default(), Mode::Sole), expected, "{description}");
        }
    }

    #[test]
    fn in_takeover_a_mode_that_dockerd_does_not_know_has_no_effect() {
        let known = Engine { knows_gateway_modes: true, ..Engine::default() };
        for (gateway_mode, expected) in [
            (GatewayMode::Routed, Terms::NO_MASQUERADE | Terms::ROUTED),
            (GatewayMode::NatUnprotected, Terms::UNPROTECTED),
            (GatewayMode::Isolated, Terms::INTERNAL),
        ] {
            let network = Network { gateway_mode, ..Network::default() };
            assert_eq!(of(&network, &Engine::default(), Mode::Takeover), 0, "{gateway_mode:?}");
            assert_eq!(of(&network, &known, Mode::Takeover), expected, "{gateway_mode:?}");
        }
    }

    #[test]
    fn the_default_network_masquerades_as_dockerd_was_told() {
        let network = Network { is_default: true, masquerades: false, ..Network::default() };
        let told = Engine { masquerades_default: false, ..Engine::default() };
        assert_eq!(of(&network, &told, Mode::Sole), Terms::NO_MASQUERADE);
        assert_eq!(of(&network, &Engine::default(), Mode::Takeover), Terms::NO_MASQUERADE);
    }

    #[test]
    fn what_dockerd_the_bridge_and_the_operator_say_counts_for_every_network() {
        let network = Network { icc: false, ..Network::default() };
        let engine = Engine { allows_direct_routing: true, ..Engine::default() };
        let wishes = Wishes { reach_published_of_others: false, ..wishes() };
        let bits = terms(&network, &engine, Mode::Takeover, &HostModel::default(), &wishes);
        assert_eq!(bits, ICC_OFF_UNGUARDED | Terms::KEEPS_TO_ITSELF | Terms::DIRECT);
    }
}
