//! What each program costs, against `budget.toml`: instructions that the verifier goes through, and stack. And, printed
//! only, how long a packet takes: of a known flow, one that opens a flow, one to a closed port, one that is the host's own.
//!
//! Both are limits of the kernel (a million instructions, 512 bytes for a chain of calls), which a small change of the
//! source can bring much nearer; the budget notices before a kernel or a compiler that differs a little refuses to go on.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::Path, time::Duration};

use aya_obj::{Object, generated::bpf_insn};
use netpath::settings::PortRange;
use netpath_common::abi::{Mode, Rate};
use serde::Deserialize;

use crate::harness::{
    BRIDGE_MAC, HOST, HOST_MAC, Host, Kind, OK, REMOTE, REMOTE_MAC, WEB, WEB_MAC, frame, on_host, on_host_with, tuple,
};

/// Runs that a packet's time is the mean of.
const RUNS: u64 = 20_000;

/// What a program may cost, or does.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    /// Instructions that the verifier goes through.
    instructions: u32,
    /// Bytes of stack of the deepest chain of calls.
    stack: u32,
}

#[test]
fn programs_keep_to_their_budget() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/budget.toml");
    let text = fs::read_to_string(&file).expect("the budget can be read");
    let budget: BTreeMap<String, Cost> = toml::from_str(&text).expect("the budget is a table of programs");
    on_host(Mode::Takeover, move |host| {
        // Loads the programs of sockets.
        host.kernel.attach_host_access();
        let stacks = stacks(netpath::dataplane::object());
        let (mut over, mut seen) = (Vec::new(), 0);
        println!("{:<18} {:>22} {:>16}", "program", "verified instructions", "stack (bytes)");
        for program in host.kernel.program_costs().expect("the kernel tells of its programs") {
            seen += 1;
            let name = program.name;
            let instructions = program.verified_instructions.expect("a kernel from 5.16 on counts them");
            let cost = Cost { instructions, stack: stacks[&name] };
            let limit = *budget.get(&name).unwrap_or_else(|| panic!("{name} has no budget in {}", file.display()));
            println!(
                "{name:<18} {:>12} of {:>6} {:>9} of {:>3}",
                cost.instructions, limit.instructions, cost.stack, limit.stack
            );
            if cost.instructions > limit.instructions || cost.stack > limit.stack {
                over.push(name);
            }
        }
        assert_eq!(seen, budget.len(), "programs in the kernel and in the budget");
        assert!(
            over.is_empty(),
            "over budget: {over:?}; make them cheaper, or raise {} with the reason",
            file.display()
        );
    });
}

#[test]
fn a_packet_takes_this_long() {
    on_host(Mode::Takeover, |host| {
        let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("the kernel counts run times");
        let inbound = frame((REMOTE_MAC, HOST_MAC), tuple((REMOTE, 5000), (HOST, 8080)), Kind::Udp);
        let outbound = frame((WEB_MAC, BRIDGE_MAC), tuple((WEB, 80), (REMOTE, 5000)), Kind::Udp);
        host.at_uplink(&inbound);
        let web = host.web;
        println!("{:<32} {:>10}", "program", "ns/packet");
        time(host, "np_uplink", "known flow", |host| drop(host.at_uplink(&inbound)));
        time(host, "np_container", "known flow", |host| drop(host.at_container(web, &outbound)));
        host.take_frames();
        time(host, "np_xdp_uplink", "known flow", |host| _ = host.at_xdp(&inbound));
    });
    // All that the host's programs say to each other passes this one in sole mode.
    on_host(Mode::Sole, |host| {
        let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("the kernel counts run times");
        host.kernel.attach_host_access();
        let own = frame(([0; 6], [0; 6]), tuple((Ipv4Addr::LOCALHOST, 5000), (Ipv4Addr::LOCALHOST, 9999)), Kind::Udp);
        time(host, "np_loopback", "the host's own", |host| assert_eq!(host.at_loopback(&own), OK));
    });
}

/// New flows and refused datagrams: each packet has another tuple than the one before.
#[test]
fn a_packet_that_opens_a_flow_or_finds_a_closed_port_takes_this_long() {
    const FLOWS_MAX: u32 = 262_144;
    /// Tuples of a flood to closed ports, which repeats itself.
    const TUPLES: usize = 1000;
    on_host_with(Mode::Takeover, PortRange { first: 32_768, last: 60_999 }, FLOWS_MAX, |host| {
        let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("the kernel counts run times");
        let tuples = |ports: u16, count: usize, to: u16| -> Vec<Vec<u8>> {
            let packet = |number: usize| {
                let [.., high, low] = number.to_be_bytes();
                let source = Ipv4Addr::new(198, 18, low, high);
                frame((REMOTE_MAC, HOST_MAC), tuple((source, ports + u16::from(low)), (HOST, to)), Kind::Udp)
            };
            (0..count).map(packet).collect()
        };
        let count = usize::try_from(RUNS).expect("so many packets fit into memory");
        println!("{:<32} {:>10}", "program", "ns/packet");
        let mut at = [tuples(5000, count, 8080), tuples(6000, TUPLES, 9999), tuples(7000, TUPLES, 9998)]
            .map(|frames| frames.into_iter().cycle());
        time(host, "np_uplink", "opens a flow", |host| drop(host.at_uplink(&at[0].next().expect("endless"))));
        let none = Rate { interval_ns: 3_600_000_000_000, ahead_ns: 0 };
        let rates = Some((none, Rate::per_second(0, 0)));
        host.kernel.write_closed_ports(rates, Duration::from_secs(600)).expect("the map can be written");
        time(host, "np_uplink", "closed port", |host| drop(host.at_uplink(&at[1].next().expect("endless"))));
        time(host, "np_xdp_uplink", "closed port", |host| _ = host.at_xdp(&at[2].next().expect("endless")));
    });
}

fn time(host: &mut Host, name: &str, what: &str, mut run: impl FnMut(&mut Host)) {
    let told = |host: &Host| {
        let costs = host.kernel.program_costs().expect("the kernel tells of its programs");
        costs.into_iter().find(|cost| cost.name == name).map(|cost| (cost.runs, cost.run_time)).expect("it is loaded")
    };
    let before = told(host);
    (0..RUNS).for_each(|_| run(host));
    let (runs, time) = told(host);
    assert_eq!(runs - before.0, RUNS, "every run is counted");
    println!("{name:<14} {what:<16} {:>10}", (time - before.1).as_nanos() / u128::from(RUNS));
}

/// Bytes of stack that each program of an object needs, added up as the verifier does (`check_max_stack_depth`). It looks
/// only at what can be reached, and so may come to a little less.
fn stacks(object: &[u8]) -> BTreeMap<String, u32> {
    let mut object = Object::parse(object).expect("the object can be parsed");
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("the calls can be linked");
    let stack = |(name, program): (&String, &aya_obj::Program)| {
        let instructions = &object.functions[&program.function_key()].instructions;
        (name.clone(), chain_depth(&frames(instructions), 0))
    };
    object.programs.iter().map(stack).collect()
}

/// A function within a program: its frame, and where the functions begin that it calls.
#[derive(Debug, Default)]
struct Frame {
    depth: u32,
    calls: Vec<usize>,
}

/// The functions of a linked program, by where they begin.
fn frames(instructions: &[bpf_insn]) -> BTreeMap<usize, Frame> {
    let mut frames = BTreeMap::from([(0, Frame::default())]);
    for (at, instruction) in instructions.iter().enumerate() {
        frames.extend(called(at, instruction).map(|begin| (begin, Frame::default())));
    }
    for (at, instruction) in instructions.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &instructions[before]);
        let frame = frames.range_mut(..=at).next_back().expect("there is one at 0").1;
        frame.depth = frame.depth.max(reach(before, instruction));
        frame.calls.extend(called(at, instruction));
    }
    frames
}

/// Where the function begins that an instruction calls, or hands to a helper.
fn called(at: usize, instruction: &bpf_insn) -> Option<usize> {
    /// `BPF_JMP | BPF_CALL` with `BPF_PSEUDO_CALL`, `BPF_LD | BPF_IMM | BPF_DW` with `BPF_PSEUDO_FUNC`.
    const CALL: (u8, u8) = (0x85, 1);
    const FUNCTION: (u8, u8) = (0x18, 4);
    matches!((instruction.code, instruction.src_reg()), CALL | FUNCTION)
        .then(|| usize::try_from(at as i64 + 1 + i64::from(instruction.imm)).expect("a place in the program"))
}

/// How far below the frame's top (register 10) an instruction reaches: by reading, writing, or taking an address.
fn reach(before: Option<&bpf_insn>, instruction: &bpf_insn) -> u32 {
    const TOP: u8 = 10;
    /// `BPF_ALU64 | BPF_MOV | BPF_X` and `BPF_ALU64 | BPF_ADD | BPF_K`.
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let class = instruction.code & 0x07;
    let below = match class {
        1 if instruction.src_reg() == TOP => i32::from(instruction.off),
        2 | 3 if instruction.dst_reg() == TOP => i32::from(instruction.off),
        _ if instruction.code == ADD => {
            let is_address = before.is_some_and(|before| {
                before.code == MOVE && before.src_reg() == TOP && before.dst_reg() == instruction.dst_reg()
            });
            if is_address { instruction.imm } else { 0 }
        }
        _ => 0,
    };
    below.min(0).unsigned_abs()
}

/// The deepest chain of calls from a function on; the kernel rounds each frame up to 16 bytes.
fn chain_depth(frames: &BTreeMap<usize, Frame>, begin: usize) -> u32 {
    let frame = &frames[&begin];
    let deepest = frame.calls.iter().map(|call| chain_depth(frames, *call)).max();
    frame.depth.max(1).next_multiple_of(16) + deepest.unwrap_or(0)
}
