//! A host in a network namespace of its own, with real interfaces and routes but no traffic: frames are given to the
//! programs by `BPF_PROG_TEST_RUN`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use netpath::{
    dataplane::{Dataplane as _, Kernel, Options, TcChoice, XdpChoice, detach},
    desired::{
        model::{Admission, Change, Endpoint, Entrance, Protocol, Uplink},
        ports::{PortBlock, PublishedPort, PublishedTarget},
    },
    settings::{PortRange, Settings, TimeoutTable},
};
use netpath_common::{
    abi::{Mode, PathCount},
    drop::DropReason,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 3);

pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
pub(crate) const REMOTE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
pub(crate) const BRIDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const WEB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// A block of published ports, and where its first one leads.
pub(crate) const RANGE: u16 = 0x5000;
pub(crate) const RANGE_BITS: u8 = 8;
pub(crate) const RANGE_TARGET: u16 = 1000;

/// `TC_ACT_OK`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT` (include/uapi/linux/pkt_cls.h).
pub(crate) const OK: u32 = 0;
pub(crate) const SHOT: u32 = 2;
pub(crate) const REDIRECT: u32 = 7;
/// `XDP_DROP` and `XDP_PASS` (include/uapi/linux/bpf.h).
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;

/// The loopback interface's number in every network namespace.
const LOOPBACK: u32 = 1;

/// A host with an uplink, a bridge and two containers' veths; port 8080 leads to port 80 of the first container, and the ports
/// of [`RANGE`] to others.
pub(crate) struct Host {
    pub(crate) kernel: Kernel,
    pub(crate) uplink: u32,
    pub(crate) bridge: u32,
    pub(crate) web: u32,
    pub(crate) client: u32,
    pub(crate) pin_dir: PathBuf,
}

/// Runs a test on a host of its own, in a thread with a network namespace of its own.
pub(crate) fn on_host(mode: Mode, test: impl FnOnce(&mut Host) + Send + 'static) {
    on_host_with(mode, PortRange { first: 40_000, last: 40_003 }, 1024, test);
}

/// The same with a range of ports and a size of the flow table.
pub(crate) fn on_host_with(
    mode: Mode,
    port_range: PortRange,
    flows_max: u32,
    test: impl FnOnce(&mut Host) + Send + 'static,
) {
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the program tests need root, for a network namespace of their own");
        let mut host = Host::new(mode, port_range, flows_max);
        test(&mut host);
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// How a dataplane is opened.
pub(crate) fn options(pin_dir: &Path, port_range: PortRange, flows_max: u32) -> Options {
    Options {
        pin_dir: pin_dir.to_owned(),
        xdp: XdpChoice::Off,
        tc: TcChoice::Auto,
        flows_max,
        port_range,
        reserved_ports: BTreeSet::new(),
        timeouts: TimeoutTable::of_host(&Settings::default().timeouts),
    }
}

impl Host {
    fn new(mode: Mode, port_range: PortRange, flows_max: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/np-program-{}-{number}", std::process::id()));
        for command in [
            "link set lo up",
            "link add eth0 address 02:00:00:00:00:aa type veth peer name wire",
            "link add docker0 address 02:00:00:00:00:01 type bridge",
            "link add veth2 type veth peer name peer2",
            "link add veth3 type veth peer name peer3",
            "link set eth0 up",
            "link set wire up",
            "link set docker0 up",
            "link set veth2 up",
            "link set veth3 up",
            "address add 198.51.100.1/24 dev eth0",
            "address add 172.17.0.1/16 dev docker0",
            "route add default via 198.51.100.2",
        ] {
            ip(command);
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding can be switched on");
        let options = options(&pin_dir, port_range, flows_max);
        let index = |name: &str| if_nametoindex(name).expect("the interface was just made");
        let mut host = Self {
            kernel: Kernel::open(&options).expect("the dataplane loads"),
            uplink: index("eth0"),
            bridge: index("docker0"),
            web: index("veth2"),
            client: index("veth3"),
            pin_dir,
        };
        host.fill(mode);
        host
    }

    fn fill(&mut self, mode: Mode) {
        let on = |protocol, port| PublishedPort { address: Ipv4Addr::UNSPECIFIED, protocol, port };
        let to = |port| PublishedTarget { address: WEB, port };
        let one = |protocol| (on(protocol, 8080).into(), to(80));
        let range = |protocol| (PortBlock { first: on(protocol, RANGE), bits: RANGE_BITS }, to(RANGE_TARGET));
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let changes = [
            Change::SetMode(mode),
            Change::AddHostAddress(HOST),
            Change::AddHostAddress(GATEWAY),
            Change::SetUplink(
                self.uplink,
                Uplink { addresses: vec![(HOST, 24)], mtu: 1500, gateway: Ipv4Addr::UNSPECIFIED },
            ),
            Change::SetEndpoint(WEB, self.endpoint(self.web, WEB_MAC)),
            Change::SetEndpoint(CLIENT, self.endpoint(self.client, CLIENT_MAC)),
            Change::SetAdmitted(Entrance::Veth(self.web), Admission { network: 1, ..Admission::default() }),
            Change::SetAdmitted(Entrance::Veth(self.client), Admission { network: 1, ..Admission::default() }),
            Change::SetPublished(protocols.into_iter().flat_map(|protocol| [one(protocol), range(protocol)]).collect()),
        ];
        for change in &changes {
            self.kernel.apply(change).expect("the maps take the change");
        }
        self.kernel.begin_opening_flows().expect("the configuration can be written");
    }

    /// Where its maps are pinned.
    pub(crate) fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Gives a frame to the program behind a container's veth.
    pub(crate) fn at_container(&mut self, ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
        let run = self.kernel.test_tc("np_container", ifindex, frame).expect("the program runs");
        (run.action, run.frame)
    }

    /// Gives a frame to the program on the uplink.
    pub(crate) fn at_uplink(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let run = self.kernel.test_tc("np_uplink", self.uplink, frame).expect("the program runs");
        (run.action, run.frame)
    }

    /// Gives a frame to the program on the bridge.
    pub(crate) fn at_bridge(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let run = self.kernel.test_tc("np_bridge", self.bridge, frame).expect("the program runs");
        (run.action, run.frame)
    }

    /// Gives a frame to the program on the loopback interface.
    pub(crate) fn at_loopback(&mut self, frame: &[u8]) -> u32 {
        self.kernel.test_tc("np_loopback", LOOPBACK, frame).expect("the program runs").action
    }

    /// Gives a frame to the XDP program on the uplink.
    pub(crate) fn at_xdp(&mut self, frame: &[u8]) -> u32 {
        self.kernel.test_xdp(frame).expect("the program runs").action
    }

    /// From here on XDP may send frames to the first container.
    pub(crate) fn take_frames(&mut self) {
        let endpoint = Endpoint { takes_frames: true, ..self.endpoint(self.web, WEB_MAC) };
        self.kernel.apply(&Change::SetEndpoint(WEB, endpoint)).expect("the map takes the endpoint");
    }

    const fn endpoint(&self, ifindex: u32, mac: [u8; 6]) -> Endpoint {
        Endpoint {
            ifindex,
            bridge_ifindex: self.bridge,
            mac,
            bridge_mac: BRIDGE_MAC,
            network: 1,
            gateway: GATEWAY,
            masquerade: Ipv4Addr::UNSPECIFIED,
            terms: 0,
            full_cone: false,
            mtu: 1500,
            takes_frames: false,
        }
    }

    /// Asserts which counters the step moved, by how many packets: all others must stand still.
    pub(crate) fn assert_counted(&mut self, step: impl FnOnce(&mut Self), drops: &[DropReason], paths: &[PathCount]) {
        let before = self.counters();
        step(self);
        let mut moved = BTreeMap::new();
        for (name, count) in self.counters() {
            let difference = count - before[name];
            if difference != 0 {
                moved.insert(name, difference);
            }
        }
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        let names = drops.iter().map(|reason| reason.name()).chain(paths.iter().map(|path| path.name()));
        for name in names {
            *expected.entry(name).or_default() += 1;
        }
        assert_eq!(moved, expected, "counters that moved");
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let pins = self.kernel.pins();
        let drops =
            pins.drops().expect("the drops can be read").into_iter().map(|(reason, count)| (reason.name(), count));
        let traffic = pins.traffic().expect("the traffic can be read");
        drops.chain(traffic.into_iter().map(|(path, traffic)| (path.name(), traffic.packets))).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.pin_dir) {
            eprintln!("{error:#}");
        }
    }
}

/// Waits by the clock that the programs read, the one of the ticks: on a busy machine it stands still for many milliseconds.
pub(crate) fn pass(time: Duration) {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the kernel has this clock"));
    let from = now();
    while now() - from < time {
        thread::sleep(Duration::from_millis(1));
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (iproute2) is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) source: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_port: u16,
}

/// `source:port > destination:port`.
pub(crate) const fn tuple(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    Tuple { source: source.0, source_port: source.1, destination: destination.0, destination_port: destination.1 }
}

/// A frame of UDP, TCP (SYN or ACK) or echo.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Udp,
    Syn,
    SynAck,
    Ack,
    Rst,
    EchoRequest,
    EchoReply,
}

/// Builds a frame between two Ethernet addresses.
pub(crate) fn frame(macs: ([u8; 6], [u8; 6]), tuple: Tuple, kind: Kind) -> Vec<u8> {
    frame_with(macs, tuple, kind, 64, b"payload of an odd length")
}

/// Builds a frame with a time to live and a payload.
pub(crate) fn frame_with(macs: ([u8; 6], [u8; 6]), tuple: Tuple, kind: Kind, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1).ipv4(tuple.source.octets(), tuple.destination.octets(), ttl);
    let mut bytes = Vec::new();
    let tcp = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
        builder.tcp(tuple.source_port, tuple.destination_port, 1000, 64_000)
    };
    let result = match kind {
        Kind::Udp => builder.udp(tuple.source_port, tuple.destination_port).write(&mut bytes, payload),
        Kind::Syn => tcp(builder).syn().write(&mut bytes, &[]),
        Kind::SynAck => tcp(builder).syn().ack(1).write(&mut bytes, &[]),
        Kind::Ack => tcp(builder).ack(1).write(&mut bytes, payload),
        Kind::Rst => tcp(builder).rst().write(&mut bytes, &[]),
        Kind::EchoRequest => builder.icmpv4_echo_request(tuple.source_port, 1).write(&mut bytes, payload),
        Kind::EchoReply => builder.icmpv4_echo_reply(tuple.destination_port, 1).write(&mut bytes, payload),
    };
    result.expect("a packet is built");
    bytes
}

/// Reads a frame back and asserts that every checksum in it is the one that etherparse computes from scratch.
pub(crate) fn read(frame: &[u8]) -> Tuple {
    let packet = SlicedPacket::from_ethernet(frame).expect("the frame is whole");
    let Some(etherparse::NetSlice::Ipv4(ipv4)) = packet.net else { panic!("not IPv4") };
    let header = ipv4.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
    let (source_port, destination_port) = match packet.transport.expect("a transport header") {
        TransportSlice::Udp(udp) => {
            let whole = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("a checksum");
            assert_eq!(udp.checksum(), whole, "UDP checksum");
            (udp.source_port(), udp.destination_port())
        }
        TransportSlice::Tcp(tcp) => {
            let whole = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).expect("a checksum");
            assert_eq!(tcp.checksum(), whole, "TCP checksum");
            (tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "ICMP checksum");
            match icmp.icmp_type() {
                etherparse::Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
                etherparse::Icmpv4Type::EchoReply(echo) => (0, echo.id),
                _ => (0, 0),
            }
        }
        TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => panic!("not a transport of these tests"),
    };
    Tuple { source: header.source.into(), source_port, destination: header.destination.into(), destination_port }
}
