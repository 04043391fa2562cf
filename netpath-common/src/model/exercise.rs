//! Drives the packet path with arbitrary bytes and checks what must hold whatever comes in. The fuzzer's entry.

use std::vec;

use super::{Model, sums};
use crate::{
    abi::{FlowKey, Mode, PathCount, Policy},
    conntrack,
    forward::{Fate, Forward},
    path::{
        Workspace, bound_to_loopback::bound_to_loopback, express::in_driver, from_container::from_container,
        from_host::from_host, from_host_to_wire::from_host_to_wire, from_wire::from_wire,
    },
    tables::Arrival,
};

/// Takes the input for a sequence of frames with their ways in, gives them to the packet path, and checks after each:
/// what isn't forwarded by netpath is untouched, no frame changes its length, right checksums stay right, every flow
/// has both its entries, and no two flows share a translated tuple.
///
/// # Panics
///
/// When one of these doesn't hold: that is what the fuzzer looks for.
pub fn exercise(input: &[u8]) {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let mut model = Model::host(if first & 1 == 0 { Mode::Takeover } else { Mode::Sole });
    model.flows_max = usize::from(first >> 1) + 2;
    let mut now_ns = 0;
    while let Some((&[way, step, length], tail)) = rest.split_first_chunk() {
        let (bytes, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        now_ns += u64::from(step) * conntrack::state::SECOND_NS;
        if way == ANOTHER_POLICY {
            model.policy = policy(bytes);
            continue;
        }
        let mut frame = bytes.to_vec();
        let fate = carry(&mut model, way, now_ns, &mut frame);
        check_frame(fate, bytes, &frame);
        check_flows(&model);
        collect(&mut model, way, now_ns);
    }
}

/// The bit of a way that has what the host sends leave by the loopback interface.
const BY_LOOPBACK: u8 = 0x40;

/// A way that isn't one: what follows is no frame but the beginning of a policy.
const ANOTHER_POLICY: u8 = u8::MAX;

fn policy(bytes: &[u8]) -> Policy {
    let mut policy = Policy::NONE;
    for (place, byte) in bytemuck::bytes_of_mut(&mut policy).iter_mut().zip(bytes) {
        *place = *byte;
    }
    policy
}

fn carry(model: &mut Model, way: u8, now_ns: u64, frame: &mut [u8]) -> Fate {
    let mut packet = frame;
    let mut work = Workspace::EMPTY;
    let arrival = |ifindex| Arrival { ifindex, now_ns };
    match way % 6 {
        0 => from_wire(&mut packet, model, &mut work, &arrival(Model::UPLINK)),
        1 => from_container(&mut packet, model, &mut work, &arrival(12)),
        2 => from_container(&mut packet, model, &mut work, &arrival(13)),
        3 => from_host(&mut packet, model, &arrival(Model::BRIDGE), 0),
        4 if way & BY_LOOPBACK != 0 => bound_to_loopback(&mut packet, model, &mut work, now_ns),
        4 => from_host_to_wire(&mut packet, model, &mut work, &arrival(Model::UPLINK)),
        _ => in_driver(&mut packet, model, &mut work.headers, &arrival(Model::UPLINK)),
    }
}

fn check_frame(fate: Fate, before: &[u8], after: &[u8]) {
    // The host's own goes the kernel's way, translated.
    let of_host = matches!(fate.path(), Some(PathCount::HostOut | PathCount::HostIn | PathCount::IcmpError));
    let rewritten = of_host
        || matches!(
            fate.forward(),
            Some(Forward::IntoContainer { .. } | Forward::OutOfUplink { .. } | Forward::InByLoopback)
        );
    assert!(
        rewritten || before == after || fate.drop_reason().is_some(),
        "{fate:?} changed a frame it leaves to others"
    );
    assert_eq!(before.len(), after.len(), "a frame's length");
    if rewritten && sums::are_right(before) == Some(true) {
        assert_eq!(sums::are_right(after), Some(true), "checksums: {before:02x?} became {after:02x?}");
    }
}

fn check_flows(model: &Model) {
    assert!(model.flows.len() <= model.flows_max, "the table's bound");
    for (key, flow) in &model.flows {
        let other = model.flows.get(&flow.reply_key(key.protocol));
        let back = other.map(|other| other.reply_key(key.protocol));
        assert_eq!(back, Some(*key), "an entry without its other half: {key:?} {flow:?}");
    }
}

/// Now and then the collector comes by; it must not leave halves behind either.
fn collect(model: &mut Model, way: u8, now_ns: u64) {
    if way & 0x80 == 0 {
        return;
    }
    let keys: Vec<FlowKey> = model.flows.keys().copied().collect();
    for key in keys {
        conntrack::collect(model, &key, now_ns);
    }
    check_flows(model);
}

/// A few inputs that reach far into the packet path, to begin a corpus with.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let udp = |source: [u8; 4], destination: [u8; 4], ports: [u8; 4]| {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 12, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend(ports);
        frame.extend([0, 8, 0, 0]);
        frame
    };
    let input = |frames: &[(u8, Vec<u8>)]| {
        let mut input = vec![0x40];
        for (way, frame) in frames {
            input.extend([*way, 1, u8::try_from(frame.len()).unwrap_or(u8::MAX)]);
            input.extend(frame);
        }
        input
    };
    let web = [172, 17, 0, 2];
    vec![
        input(&[
            (1, udp(web, Model::REMOTE, [0x13, 0x88, 0, 53])),
            (0, udp(Model::REMOTE, Model::HOST, [0, 53, 0x13, 0x88])),
            (4, udp(Model::HOST, Model::REMOTE, [0x13, 0x88, 0, 53])),
        ]),
        input(&[
            (0, udp(Model::REMOTE, Model::HOST, [0x17, 0x70, 0x1f, 0x90])),
            (1, udp(web, Model::REMOTE, [0, 80, 0x17, 0x70])),
        ]),
        input(&[(3, udp(Model::GATEWAY, web, [0, 1, 0, 2])), (5, udp(Model::REMOTE, web, [0, 1, 0, 2]))]),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn the_seeds_hold() {
        super::seeds().iter().for_each(|seed| super::exercise(seed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_hold(input in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::exercise(&input);
        }

        #[test]
        fn spoiled_seeds_hold(
            seed in 0..3_usize,
            spoil in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        ) {
            let mut input = super::seeds().swap_remove(seed);
            for (at, value) in spoil {
                let at = at.index(input.len());
                input[at] = value;
            }
            super::exercise(&input);
        }
    }
}
