//! Programs that people run, unchanged: what they measure, fetch, look up and store arrives, by netpath's way.
//!
//! Each does its work out of a container, into one through a published port, and between containers where that is another
//! way. Debian 12 has no client of QUIC; to a NAT it is UDP, which iperf3 and dig show.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use netpath_common::abi::Mode;
use netpath_tests::case::Case;
use netpath_tests::container::Container;
use netpath_tests::lab::{FAR, GATEWAY, HOST, LAN, Lab};
use netpath_tests::netns::Place;
use netpath_tests::program::{Program, run};
use netpath_tests::proof::NatCounters;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const CASES: &[Case] = &[
    Case::new("iperf3 sends and receives by TCP and UDP, out of a container and into one", |lab| carried(lab, iperf)),
    Case::new("curl fetches with HTTP/1.1 and HTTP/2", |lab| carried(lab, curl)),
    Case::new("dig asks by UDP and TCP, and gets answers that UDP is too small for", |lab| carried(lab, dig)),
    Case::new("traceroute and mtr see every hop by UDP, ICMP and TCP", |lab| carried(lab, hops)),
    Case::new("traceroute to a published port sees the host before the container", hops_inwards),
    Case::new("FTP in passive mode fetches and stores, out of a container and into one", |lab| carried(lab, ftp)),
    Case::new("ping with 4000 bytes goes everywhere", ping),
    Case::new("redis-benchmark finds no fault through a published port and between containers", |lab| {
        carried(lab, redis)
    }),
];

/// Runs a test during which no NAT rule of Docker's may see a packet. In sole mode there are none to see any.
fn carried(lab: &mut Lab, test: fn(&mut Lab) -> Result<()>) -> Result<()> {
    let counters = NatCounters::read(lab.host())?;
    test(lab)?;
    if lab.mode() == Mode::Takeover && lab.tests_netpath() { counters.expect_unmoved(lab.host()) } else { Ok(()) }
}

/// A container whose programs these tests run, with ports published.
fn container(lab: &mut Lab, ports: &[&str]) -> Result<Container> {
    let request = ports.iter().fold(lab.docker().idle(), |request, port| request.publish(port));
    lab.start(request)
}

/// Bytes that arrived, as iperf3 counts them at the receiver, and the part of the datagrams that didn't, in percent.
fn iperf3(place: &Place, words: &[&str]) -> Result<(u64, f64)> {
    let printed = run(place, &[&["iperf3", "--json"], words].concat())?;
    let report: Value = serde_json::from_str(&printed).with_context(|| format!("read {printed}"))?;
    let sums = &report["end"];
    let received = if sums["sum_received"].is_object() { &sums["sum_received"] } else { &sums["sum"] };
    let bytes = received["bytes"].as_u64().with_context(|| format!("find the bytes in {printed}"))?;
    Ok((bytes, sums["sum"]["lost_percent"].as_f64().unwrap_or(0.0)))
}

fn iperf(lab: &mut Lab) -> Result<()> {
    /// A second of what the slowest test machine carries.
    const TCP_BYTES_MIN: u64 = 10_000_000;
    /// A second and a half at 20 Mbit/s, and then some: what was sent in the last moment may not be counted.
    const UDP_BYTES_MIN: u64 = 3_000_000;
    let inside = container(lab, &["5201:5201", "5201:5201/udp"])?;
    let inside = inside.place()?;
    let _servers = [lab.lan(), &*inside].map(|place| Program::serve(place, &["iperf3", "--server"], 5201));
    for (place, target) in [(&*inside, LAN), (lab.lan(), HOST)] {
        let target = target.to_string();
        let client = ["--client", &target, "--time", "2"];
        for direction in [&[][..], &["--reverse"], &["--bidir"], &["--parallel", "4"]] {
            let (bytes, _) = iperf3(place, &[&client, direction].concat())?;
            ensure!(
                bytes > TCP_BYTES_MIN,
                "{bytes} bytes came by TCP {direction:?} from {} to {target}",
                place.label()
            );
        }
        for direction in [&[][..], &["--reverse"]] {
            let (bytes, lost) = iperf3(place, &[&client, &["--udp", "--bitrate", "20M"][..], direction].concat())?;
            ensure!(
                bytes > UDP_BYTES_MIN,
                "{bytes} bytes came by UDP {direction:?} from {} to {target}",
                place.label()
            );
            ensure!(lost < 1.0, "{lost} % got lost {direction:?} from {} to {target}", place.label());
        }
    }
    Ok(())
}

/// A directory to serve, and the content of the file `content` in it.
fn content() -> Result<(TempDir, Vec<u8>)> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let content: Vec<u8> =
        (0..1_000_003_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(directory.path().join("content"), &content).context("write the content")?;
    Ok((directory, content))
}

/// Fetches URLs with one curl, and compares.
fn fetch(place: &Place, options: &[&str], urls: &[&str], content: &[u8]) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let files: Vec<_> = (0..urls.len()).map(|index| directory.path().join(index.to_string())).collect();
    let files: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let outputs = urls.iter().zip(&files).flat_map(|(url, file)| [*url, "--output", file]);
    run(
        place,
        &[&["curl", "--fail", "--silent", "--show-error", "--max-time", "20"], options]
            .concat()
            .into_iter()
            .chain(outputs)
            .collect::<Vec<_>>(),
    )?;
    for (url, file) in urls.iter().zip(&files) {
        let fetched = fs::read(file).with_context(|| format!("read what came from {url}"))?;
        ensure!(fetched == content, "{} bytes came from {url}, not the {} right ones", fetched.len(), content.len());
    }
    Ok(())
}

fn curl(lab: &mut Lab) -> Result<()> {
    let (directory, content) = content()?;
    let directory = directory.path().to_string_lossy();
    let (server, client) = (container(lab, &["8080:80", "8081:81"])?, container(lab, &[])?);
    let http = ["python3", "-m", "http.server", "--protocol", "HTTP/1.1", "--directory", &directory, "80"];
    let [key, certificate] = ["key", "certificate"].map(|file| format!("{directory}/{file}"));
    certify(lab.host(), &key, &certificate)?;
    let http2 = ["nghttpd", "--htdocs", &directory, "81", &key, &certificate];
    let (server_place, client_place) = (server.place()?, client.place()?);
    let mut servers = Vec::new();
    for place in [lab.lan(), &*server_place] {
        servers.push(Program::serve(place, &http, 80)?);
        servers.push(Program::serve(place, &http2, 81)?);
    }
    let neighbour = server.address()?;
    let ends = [
        ("out of a container", &*client_place, [SocketAddrV4::new(LAN, 80), SocketAddrV4::new(LAN, 81)]),
        ("into a container", lab.lan(), [SocketAddrV4::new(HOST, 8080), SocketAddrV4::new(HOST, 8081)]),
        ("between containers", &*client_place, [80, 81].map(|port| SocketAddrV4::new(neighbour, port))),
        ("by the host's address", &*client_place, [SocketAddrV4::new(HOST, 8080), SocketAddrV4::new(HOST, 8081)]),
    ];
    for (way, place, [http, http2]) in ends {
        for (options, url) in [
            (["--http1.1", "--insecure"], format!("http://{http}/content")),
            (["--http2", "--insecure"], format!("https://{http2}/content")),
        ] {
            let several = [url.as_str(); 3];
            let what = || format!("{way}, {}", options[0]);
            fetch(place, &options, &several, &content).with_context(what)?;
            let at_once = [&options[..], &["--parallel"]].concat();
            fetch(place, &at_once, &several, &content).with_context(|| format!("{}, at once", what()))?;
        }
    }
    Ok(())
}

/// Makes a key and a certificate for whoever doesn't look closely: curl speaks HTTP/2 best inside TLS.
fn certify(place: &Place, key: &str, certificate: &str) -> Result<()> {
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=netpath-test"];
    run(place, &[&["openssl", "req", "-x509"], &curve[..], &["-keyout", key, "-out", certificate]].concat()).map(drop)
}

/// Names that the server of [`dig`] knows: `small` has one address, `large` a hundred, which need 1.6 kB.
fn name_server(place: &Place, largest: &str) -> Result<Program> {
    let edns = format!("--edns-packet-max={largest}");
    let mut words: Vec<String> = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
        .iter()
        .chain(&["--user=root", "--pid-file", "--host-record=small.test,198.51.100.7", &edns])
        .map(|word| (*word).to_owned())
        .collect();
    words.extend((1..=100).map(|number| format!("--host-record=large.test,10.0.0.{number}")));
    Program::serve(place, &words.iter().map(String::as_str).collect::<Vec<_>>(), 53)
}

fn dig(lab: &mut Lab) -> Result<()> {
    let (server, client) = (container(lab, &["53:53", "53:53/udp"])?, container(lab, &[])?);
    let (server_place, client_place) = (server.place()?, client.place()?);
    for largest in ["1232", "4096"] {
        let _servers = [name_server(lab.lan(), largest)?, name_server(&server_place, largest)?];
        for (place, target) in [(&*client_place, LAN), (lab.lan(), HOST), (&*client_place, server.address()?)] {
            ask_names(place, target, largest == "1232")
                .with_context(|| format!("from {} to {target}", place.label()))?;
        }
    }
    Ok(())
}

/// Looks both names up; the answer to the large one is cut off by UDP, or comes in fragments.
fn ask_names(place: &Place, target: Ipv4Addr, truncated: bool) -> Result<()> {
    let server = format!("@{target}");
    let ask = |name, options: &[&str]| {
        let answer = run(place, &[&["dig", "+time=2", "+tries=1", "+bufsize=4096", &server, name], options].concat())?;
        let addresses = answer.lines().filter(|line| line.starts_with(name)).count();
        let protocol = if answer.contains("(TCP)") { "TCP" } else { "UDP" };
        ensure!(answer.contains(&target.to_string()), "another server answered: {answer}");
        anyhow::Ok((addresses, protocol))
    };
    let large = ask("large.test", &[])?;
    let rows = [
        ("small.test", &[][..], (1, "UDP")),
        ("small.test", &["+tcp"], (1, "TCP")),
        ("large.test", &["+tcp"], (100, "TCP")),
    ];
    for (name, options, expected) in rows {
        let found = ask(name, options)?;
        ensure!(found == expected, "dig {name} {options:?} got {found:?}");
    }
    ensure!(large == (100, if truncated { "TCP" } else { "UDP" }), "dig large.test got {large:?}");
    Ok(())
}

fn hops(lab: &mut Lab) -> Result<()> {
    let container = container(lab, &[])?;
    let place = container.place()?;
    let target = FAR.to_string();
    let expected = [GATEWAY, LAN, FAR].map(|hop| hop.to_string());
    for method in [&[][..], &["-I"], &["-T", "-p", "80"], &["-U", "-p", "33333"]] {
        let words = [&["traceroute", "-n", "-q", "1", "-w", "2", "-m", "6"], method, &[&target]].concat();
        // " 1  172.17.0.1  0.071 ms", behind a line of heading.
        let printed = run(&place, &words)?;
        let seen: Vec<_> = printed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        ensure!(seen == expected, "{words:?} sees {seen:?}: {printed}");
    }
    for method in [&[][..], &["--udp"], &["--tcp", "--port", "80"]] {
        let report = ["mtr", "--report", "--no-dns", "--report-cycles", "2", "--interval", "1.5"];
        let words = [&report, method, &[&target]].concat();
        // "  1.|-- 172.17.0.1       0.0%     2    0.1   0.1   0.1   0.1   0.0", behind two lines of heading.
        let printed = run(&place, &words)?;
        let seen: Vec<_> =
            printed.lines().skip(2).map(|line| line.split_whitespace().skip(1).take(2).collect::<Vec<_>>()).collect();
        let all_answer = expected.iter().map(|hop| vec![hop.as_str(), "0.0%"]).collect::<Vec<_>>();
        ensure!(seen == all_answer, "{words:?} sees {seen:?}: {printed}");
    }
    Ok(())
}

fn hops_inwards(lab: &mut Lab) -> Result<()> {
    let _container = lab.start(lab.docker().serving(&["tcp:80"]).publish("8080:80").publish("8081:81/udp"))?;
    super::reach::connect(lab, SocketAddrV4::new(HOST, 8080))?;
    const FAR_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    // The container answers as the host: once as a hop on the way, once as its end.
    let (target, expected) = (HOST.to_string(), [FAR_GATEWAY, HOST, HOST].map(|hop| hop.to_string()));
    for method in [["-T", "-p", "8080"], ["-U", "-p", "8081"]] {
        let words = [&["traceroute", "-n", "-q", "1", "-w", "2", "-m", "6"][..], &method, &[&target]].concat();
        let printed = run(lab.far(), &words)?;
        let seen: Vec<_> = printed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        ensure!(seen == expected, "{words:?} sees {seen:?}: {printed}");
    }
    Ok(())
}

fn ftp(lab: &mut Lab) -> Result<()> {
    let (directory, content) = content()?;
    let path = directory.path().to_string_lossy();
    let (server, client) = (container(lab, &["21:21", "30000-30009:30000-30009"])?, container(lab, &[])?);
    let (server_place, client_place) = (server.place()?, client.place()?);
    // What it tells clients of PASV is its operator's to say, as behind every NAT.
    let host = HOST.to_string();
    let words = ["python3", "-m", "pyftpdlib", "-w", "-p", "21", "-r", "30000-30009", "-d", &path];
    let _servers = [
        Program::serve(lab.lan(), &words, 21)?,
        Program::serve(&server_place, &[&words[..], &["-n", &host]].concat(), 21)?,
    ];
    for (place, target) in [(&*client_place, LAN), (lab.lan(), HOST)] {
        for passive in ["--ftp-pasv", "--disable-epsv"] {
            let what = || format!("{passive} from {} to {target}", place.label());
            fetch(place, &[passive], &[&format!("ftp://{target}/content")], &content).with_context(what)?;
            let stored = directory.path().join("stored");
            let (from, to) = (format!("{path}/content"), format!("ftp://{target}/stored"));
            run(place, &["curl", "--fail", "--silent", "--show-error", passive, "--upload-file", &from, &to])
                .with_context(what)?;
            let arrived = fs::read(&stored).context("read what was stored")? == content;
            ensure!(arrived, "something else arrived, {}", what());
            fs::remove_file(&stored).context("remove what was stored")?;
        }
    }
    Ok(())
}

fn ping(lab: &mut Lab) -> Result<()> {
    let (container, neighbour) = (container(lab, &[])?, container(lab, &[])?);
    let place = container.place()?;
    let (own, neighbour) = (container.address()?, neighbour.address()?);
    let counters = NatCounters::read(lab.host())?;
    ping_all(&[(&place, LAN), (&place, FAR), (&place, neighbour), (lab.host(), own)])?;
    if lab.mode() == Mode::Takeover && lab.tests_netpath() {
        counters.expect_unmoved(lab.host())?;
    }
    // The host's own addresses: its stack answers, past Docker's rules, which look for a published port in vain.
    ping_all(&[(&place, GATEWAY), (&place, HOST), (lab.lan(), HOST)])
}

/// Pings with sizes that fit a packet, just don't, and need many fragments.
fn ping_all(ways: &[(&Place, Ipv4Addr)]) -> Result<()> {
    for (place, target) in ways {
        for size in ["56", "1472", "1473", "4000", "20000"] {
            let words = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, &target.to_string()];
            let printed = run(place, &words)?;
            ensure!(printed.contains(" 0% packet loss"), "{words:?} from {}: {printed}", place.label());
        }
    }
    Ok(())
}

fn redis(lab: &mut Lab) -> Result<()> {
    const REQUESTS: u64 = 20_000;
    let (server, client) = (container(lab, &["6379:6379"])?, container(lab, &[])?);
    // One program under three names, of which this one comes with a service that nobody wants on a test machine.
    let start = "exec -a redis-server /usr/bin/redis-check-rdb --port 6379 --save '' --protected-mode no";
    let _server = Program::serve(&*server.place()?, &["bash", "-c", start], 6379)?;
    let count = REQUESTS.to_string();
    for (round, place, target) in
        [(1, lab.lan(), HOST), (2, &*client.place()?, server.address()?), (3, &*client.place()?, HOST)]
    {
        let target = target.to_string();
        let load = ["redis-benchmark", "-h", &target, "-t", "set,get", "-n", &count, "-c", "50", "-d", "2000", "-q"];
        run(place, &load)?;
        let stats = run(place, &["redis-cli", "-h", &target, "info", "commandstats"])?;
        for command in ["set", "get"] {
            let calls = stats
                .lines()
                .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls="))?.split(',').next());
            let calls: u64 = calls.with_context(|| format!("find {command} in {stats}"))?.parse()?;
            ensure!(calls >= round * REQUESTS, "the server has seen {calls} of {command} after {round} rounds");
        }
    }
    Ok(())
}
