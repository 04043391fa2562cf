//! A list says of every packet what a slow reading of its rules says, and only packets that open flows are judged.

use proptest::prelude::*;

use super::*;

const fn source(prefix: Address, bits: u32) -> (PolicyKey, PolicyKey) {
    let mask = if bits == 0 { [0; 4] } else { (u32::MAX << (32 - bits)).to_be_bytes() };
    (PolicyKey { source: prefix, ..PolicyKey::ZERO }, PolicyKey { source: mask, ..PolicyKey::ZERO })
}

fn list(default: Action, rules: &[PolicyRule]) -> Policy {
    let mut policy = Policy { default_action: default as u8, ..Policy::NONE };
    policy.rules[..rules.len()].copy_from_slice(rules);
    policy.rule_count = u16::try_from(rules.len()).unwrap();
    policy
}

fn rule(action: Action, (wanted, mask): (PolicyKey, PolicyKey), ports: (u16, u16), counter: u16) -> PolicyRule {
    let (port_first, port_last) = ports;
    PolicyRule { wanted, mask, port_first, port_last, counter, action: action as u8, reserved: 0 }
}

const fn asked(source: Address, network: u16, protocol: u8, origin: Origin) -> PolicyKey {
    PolicyKey { source, network, protocol, origin: origin as u8 }
}

const ANY_PORT: (u16, u16) = (0, u16::MAX);

#[test]
fn the_first_rule_that_fits_decides_and_else_the_default() {
    let policy = list(
        Action::Deny,
        &[
            rule(Action::Deny, source([203, 0, 113, 7], 32), ANY_PORT, 1),
            rule(Action::Allow, source([203, 0, 113, 0], 24), (8000, 8100), 2),
            rule(Action::Deny, source([0; 4], 0), (8100, 8100), 3),
            rule(Action::Allow, source([0; 4], 0), (1, 0), 4),
        ],
    );
    for (from, port, action, counter) in [
        ([203, 0, 113, 7], 8000, Action::Deny, 1),
        ([203, 0, 113, 8], 8000, Action::Allow, 2),
        ([203, 0, 113, 8], 8100, Action::Allow, 2),
        ([203, 0, 113, 8], 8101, Action::Deny, 0),
        ([203, 0, 114, 8], 8100, Action::Deny, 3),
        ([203, 0, 114, 8], 1, Action::Deny, 0),
        ([203, 0, 114, 8], 0, Action::Deny, 0),
    ] {
        let judgement = policy.judge(asked(from, 1, 6, Origin::Wire), port);
        assert_eq!(judgement, Judgement { action, counter }, "{from:?} {port}");
    }
}

#[test]
fn rules_beyond_the_count_do_not_count() {
    let mut policy = list(Action::Allow, &[rule(Action::Deny, source([0; 4], 0), ANY_PORT, 1)]);
    policy.rule_count = 0;
    assert!(policy.is_none());
    assert_eq!(policy.judge(asked([1; 4], 1, 6, Origin::Wire), 1).action, Action::Allow);
    policy.rule_count = u16::MAX;
    assert_eq!(policy.judge(asked([1; 4], 1, 6, Origin::Wire), 1).action, Action::Deny);
}

#[test]
fn a_full_list_is_read_to_its_last_rule() {
    let nothing = rule(Action::Allow, source([0; 4], 0), (1, 0), 1);
    let mut rules = [nothing; Policy::RULES_MAX];
    rules[Policy::RULES_MAX - 1] = rule(Action::Deny, source([0; 4], 0), ANY_PORT, 2);
    let judgement = list(Action::Allow, &rules).judge(asked([1; 4], 1, 6, Origin::Wire), 1);
    assert_eq!(judgement, Judgement { action: Action::Deny, counter: 2 });
}

#[derive(Debug, Clone, Copy)]
struct Simple {
    action: Action,
    prefix: Option<(Address, u32)>,
    network: Option<u16>,
    protocol: Option<u8>,
    origin: Option<Origin>,
    ports: (u16, u16),
}

impl Simple {
    fn fits(&self, key: PolicyKey, port: u16) -> bool {
        let prefix = self.prefix.is_none_or(|(prefix, bits)| {
            let common = (u32::from_be_bytes(prefix) ^ u32::from_be_bytes(key.source)).leading_zeros();
            common >= bits
        });
        prefix
            && self.network.is_none_or(|network| network == key.network)
            && self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && self.origin.is_none_or(|origin| origin as u8 == key.origin)
            && (self.ports.0..=self.ports.1).contains(&port)
    }

    fn packed(&self, counter: u16) -> PolicyRule {
        let (mut wanted, mut mask) = source([0; 4], 0);
        if let Some((prefix, bits)) = self.prefix {
            (wanted, mask) = source(prefix, bits);
            for (byte, mask) in wanted.source.iter_mut().zip(mask.source) {
                *byte &= mask;
            }
        }
        (wanted.network, mask.network) = self.network.map_or((0, 0), |network| (network, u16::MAX));
        (wanted.protocol, mask.protocol) = self.protocol.map_or((0, 0), |protocol| (protocol, u8::MAX));
        (wanted.origin, mask.origin) = self.origin.map_or((0, 0), |origin| (origin as u8, u8::MAX));
        rule(self.action, (wanted, mask), self.ports, counter)
    }
}

fn simple() -> impl Strategy<Value = Simple> {
    // Few values, so that rules do fit.
    (
        any::<bool>(),
        proptest::option::of((proptest::array::uniform4(0_u8..4), 0_u32..=32)),
        proptest::option::of(1_u16..4),
        proptest::option::of(prop_oneof![Just(6_u8), Just(17)]),
        proptest::option::of(prop_oneof![Just(Origin::Wire), Just(Origin::Container)]),
        (0_u16..8, 0_u16..8),
    )
        .prop_map(|(deny, prefix, network, protocol, origin, ports)| Simple {
            action: if deny { Action::Deny } else { Action::Allow },
            prefix,
            network,
            protocol,
            origin,
            ports,
        })
}

proptest! {
    #[test]
    fn a_packed_list_says_what_its_rules_say(
        rules in proptest::collection::vec(simple(), 0..12),
        client in proptest::array::uniform4(0_u8..4),
        network in 1_u16..4,
        is_tcp: bool,
        is_wire: bool,
        port in 0_u16..8,
    ) {
        let packed: Vec<_> = (1..).zip(&rules).map(|(counter, rule)| rule.packed(counter)).collect();
        let protocol = if is_tcp { 6 } else { 17 };
        let origin = if is_wire { Origin::Wire } else { Origin::Container };
        let key = asked(client, network, protocol, origin);
        let expected = (1..)
            .zip(&rules)
            .find(|(_, rule)| rule.fits(key, port))
            .map_or((Action::Allow, 0), |(counter, rule)| (rule.action, counter));
        let judgement = list(Action::Allow, &packed).judge(key, port);
        prop_assert_eq!((judgement.action, judgement.counter), expected);
    }
}
