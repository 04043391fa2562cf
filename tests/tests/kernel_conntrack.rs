//! `netpath::kernel_conntrack` against the kernel: real connections through a real MASQUERADE and a real DNAT rule, in
//! network namespaces of their own.
//!
//! The heart of it: the entries of live connections are thrown away, put back from what `dump` said, and then the far
//! end speaks first. A connection whose entry is wrong in an address, a port, a state or a window breaks there; the
//! `..._breaks_without_insert` tests prove that the others prove something.
//!
//! Needs root, `ip`, `iptables` and `conntrack`; says so and fails without.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use netpath::kernel_conntrack::{self, Connection, Tuple};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

// A test's root file looks for its modules beside itself, where each would be a test of its own.
#[path = "kernel_conntrack/network.rs"]
mod network;

use network::*;

/// The kernel lengthens the timeout when the last data is acknowledged, which a peer may put off for 40 ms.
fn expect_days_of_idleness(network: &Network) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connection = network.only(TCP)?;
        if connection.timeout > Duration::from_secs(431_000) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "an idle connection may stay for days: {connection:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Talks into a connection that is gone and waits for the reset.
fn expect_reset(from: &mut TcpStream) -> Result<()> {
    from.write_all(b"are you there?")?;
    match from.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("expected the connection to be reset: {other:?}"),
    }
}

fn tuple(protocol: u8, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    Tuple {
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
        protocol,
    }
}

/// Masqueraded connections of one container, each with ports of its own.
fn many(count: u32) -> Vec<Connection> {
    let made = |index: u32| {
        let [_, block, high, low] = index.to_be_bytes();
        let server = (Ipv4Addr::new(203, 0, 113, block), 80);
        let port = u16::from_be_bytes([high, low]);
        Connection {
            original: tuple(TCP, (CONTAINER, port), server),
            reply: tuple(TCP, server, (HOST, port ^ 0x8000)),
            timeout: Duration::from_secs(600),
            established_tcp: true,
        }
    };
    (0..count).map(made).collect()
}

#[test]
fn a_masqueraded_connection_breaks_without_insert() -> Result<()> {
    let network = Network::new()?;
    let (_near, mut far) = network.masqueraded()?;
    network.forget_all()?;
    expect_reset(&mut far)
}

#[test]
fn a_masqueraded_connection_survives_with_insert_when_the_server_speaks_first() -> Result<()> {
    let network = Network::new()?;
    let (mut near, mut far) = network.masqueraded()?;
    let before = network.only(TCP)?;
    let near_port = near.local_addr()?.port();
    let outside_port = far.peer_addr()?.port();
    ensure!(near_port != outside_port && MASQUERADE_PORTS.contains(&outside_port), "the port changes: {outside_port}");
    assert_eq!(before.original, tuple(TCP, (CONTAINER, near_port), (LAN, LAN_PORT)));
    assert_eq!(before.reply, tuple(TCP, (LAN, LAN_PORT), (HOST, outside_port)));
    assert!(before.established_tcp, "{before:?}");

    network.forget_all()?;
    assert_eq!(network.insert(&[before])?, 1);
    assert_eq!(network.only(TCP)?.original, before.original);
    assert_eq!(network.only(TCP)?.reply, before.reply);
    assert!(network.line("tcp")?.contains("[ASSURED]"), "a full table spares it: {}", network.line("tcp")?);

    say(&mut far, &mut near, "the server speaks first")?;
    say(&mut near, &mut far, "the client answers")?;
    let after = network.only(TCP)?;
    assert_eq!((after.original, after.reply), (before.original, before.reply));
    assert!(after.established_tcp, "{after:?}");
    Ok(())
}

#[test]
fn a_published_connection_breaks_without_insert() -> Result<()> {
    let network = Network::new()?;
    let (_near, mut far) = network.published()?;
    network.forget_all()?;
    expect_reset(&mut far)
}

#[test]
fn a_published_connection_survives_with_insert_when_the_container_speaks_first() -> Result<()> {
    let network = Network::new()?;
    let (mut near, mut far) = network.published()?;
    let before = network.only(TCP)?;
    let client = (LAN, near.local_addr()?.port());
    assert_eq!(before.original, tuple(TCP, client, (HOST, PUBLISHED_PORT)));
    assert_eq!(before.reply, tuple(TCP, (CONTAINER, CONTAINER_PORT), client));

    network.forget_all()?;
    assert_eq!(network.insert(&[before])?, 1);
    say(&mut far, &mut near, "the container speaks first")?;
    say(&mut near, &mut far, "the client answers")?;
    let after = network.only(TCP)?;
    assert_eq!((after.original, after.reply), (before.original, before.reply));
    Ok(())
}

#[test]
fn much_data_passes_through_an_inserted_entry_and_leaves_it_the_long_timeout() -> Result<()> {
    const BYTES: usize = 64 << 20;
    let network = Network::new()?;
    let (mut near, mut far) = network.masqueraded()?;
    let before = network.only(TCP)?;
    network.forget_all()?;
    network.insert(&[before])?;

    let mut received = vec![0; BYTES];
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| far.write_all(&vec![7; BYTES]));
        near.read_exact(&mut received)?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(())
    })?;
    assert!(received.iter().all(|byte| *byte == 7), "the data is as it was sent");
    say(&mut near, &mut far, "thank you")?;
    say(&mut far, &mut near, "you are welcome")?;
    expect_days_of_idleness(&network)
}

#[test]
fn a_connection_at_its_end_still_ends_in_order() -> Result<()> {
    let network = Network::new()?;
    let (mut near, mut far) = network.masqueraded()?;
    near.shutdown(std::net::Shutdown::Write)?;
    assert_eq!(far.read(&mut [0; 16])?, 0, "the end is heard");
    acknowledge(&far)?;
    let before = network.only(TCP)?;
    assert!(!before.established_tcp, "{before:?}");

    network.forget_all()?;
    assert_eq!(network.insert(&[before])?, 1);
    assert!(!network.line("tcp")?.contains("[ASSURED]"), "a full table may drop it: {}", network.line("tcp")?);
    say(&mut far, &mut near, "the last words")?;
    drop(far);
    assert_eq!(near.read(&mut [0; 16])?, 0, "the end is heard");
    let after = network.only(TCP)?;
    assert!(!after.established_tcp && after.timeout <= Duration::from_secs(120), "it does not linger: {after:?}");
    Ok(())
}

#[test]
fn a_handshake_under_way_finishes_through_an_inserted_entry() -> Result<()> {
    let network = Network::new()?;
    let answers = "FORWARD -p tcp --tcp-flags SYN,ACK SYN,ACK -j DROP";
    network.run("host", &format!("iptables -w -I {answers}"))?;
    let listener = network.within("lan", || Ok(TcpListener::bind((LAN, LAN_PORT))?))?;
    let (mut near, before) = thread::scope(|scope| -> Result<_> {
        let connecting = scope.spawn(|| {
            network.within("container", || Ok(TcpStream::connect_timeout(&(LAN, LAN_PORT).into(), PATIENCE)?))
        });
        let deadline = Instant::now() + PATIENCE;
        let before = loop {
            match network.only(TCP) {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
                Ok(connection) => break connection,
            }
        };
        assert!(!before.established_tcp, "{before:?}");
        network.forget_all()?;
        assert_eq!(network.insert(&[before])?, 1);
        network.run("host", &format!("iptables -w -D {answers}"))?;
        // The peers repeat themselves after a second.
        let near = connecting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        Ok((near, before))
    })?;
    let (mut far, outside) = listener.accept()?;
    assert_eq!(outside.port(), before.reply.destination_port, "the mapping is the same");
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    say(&mut far, &mut near, "the server speaks first")?;
    say(&mut near, &mut far, "the client answers")?;
    let after = network.only(TCP)?;
    assert_eq!((after.original, after.reply), (before.original, before.reply));
    expect_days_of_idleness(&network)
}

#[test]
fn a_last_packet_does_not_keep_a_connection_that_ended_for_days() -> Result<()> {
    let network = Network::new()?;
    let (mut near, mut far) = network.masqueraded()?;
    let before = Connection { established_tcp: false, timeout: Duration::from_secs(30), ..network.only(TCP)? };
    network.forget_all()?;
    network.insert(&[before])?;

    near.write_all(b"?")?;
    far.read_exact(&mut [0])?;
    let after = network.only(TCP)?;
    assert!(after.timeout <= Duration::from_secs(300), "{after:?}");
    // And one that goes on is a connection like any other.
    say(&mut far, &mut near, "but we go on")?;
    say(&mut near, &mut far, "so we do")?;
    assert!(network.line("tcp")?.contains("[ASSURED]"), "{}", network.line("tcp")?);
    expect_days_of_idleness(&network)
}

#[test]
fn a_masqueraded_udp_conversation_survives() -> Result<()> {
    let network = Network::new()?;
    let far = network.within("lan", || Ok(UdpSocket::bind((LAN, LAN_PORT))?))?;
    let near = network.within("container", || Ok(UdpSocket::bind((CONTAINER, 0))?))?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(PATIENCE))?;
    }
    near.send_to(b"hello", (LAN, LAN_PORT))?;
    let (_, outside) = far.recv_from(&mut [0; 16])?;
    let before = network.only(UDP)?;
    assert_eq!(before.original, tuple(UDP, (CONTAINER, near.local_addr()?.port()), (LAN, LAN_PORT)));
    assert_eq!(before.reply, tuple(UDP, (LAN, LAN_PORT), (HOST, outside.port())));
    assert!(!before.established_tcp && before.timeout <= Duration::from_secs(30), "{before:?}");

    network.forget_all()?;
    assert_eq!(network.insert(&[before])?, 1);
    far.send_to(b"the far end first", outside)?;
    let mut heard = [0; 32];
    let (length, from) = near.recv_from(&mut heard)?;
    assert_eq!(&heard[..length], b"the far end first");
    assert_eq!(from, (LAN, LAN_PORT).into());
    near.send_to(b"again", (LAN, LAN_PORT))?;
    assert_eq!(far.recv_from(&mut heard)?.1, outside, "the mapping is the same");
    Ok(())
}

#[test]
fn a_masqueraded_udp_conversation_breaks_without_insert() -> Result<()> {
    let network = Network::new()?;
    let far = network.within("lan", || Ok(UdpSocket::bind((LAN, LAN_PORT))?))?;
    let near = network.within("container", || Ok(UdpSocket::bind((CONTAINER, 0))?))?;
    far.set_read_timeout(Some(PATIENCE))?;
    near.send_to(b"hello", (LAN, LAN_PORT))?;
    let (_, outside) = far.recv_from(&mut [0; 16])?;
    network.forget_all()?;
    far.connect(outside)?;
    far.send(b"the far end first")?;
    let refused = far.recv(&mut [0; 16]);
    ensure!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "{refused:?}");
    Ok(())
}

#[test]
fn an_echo_keeps_the_identifier_it_was_given() -> Result<()> {
    const IDENTIFIER: u16 = 0x1234;
    let network = Network::new()?;
    let ping = network.within("container", || {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
        Ok(UdpSocket::from(socket))
    })?;
    ping.set_read_timeout(Some(PATIENCE))?;
    let echo = |sequence: u8| -> Result<()> {
        let request = [8, 0, 0, 0, 0, 0, 0, sequence, b'!'];
        ping.send_to(&request, (LAN, 0))?;
        let mut reply = [0; 64];
        let length = ping.recv(&mut reply)?;
        ensure!(length == request.len() && reply[0] == 0 && reply[7] == sequence, "{:?}", &reply[..length]);
        Ok(())
    };
    echo(1)?;
    let seen = network.only(ICMP)?;
    let inside = seen.original.source_port;
    assert_eq!(seen.original, tuple(ICMP, (CONTAINER, inside), (LAN, 0)));
    assert_eq!(seen.reply, tuple(ICMP, (LAN, 0), (HOST, inside)));

    // As if netpath had chosen another identifier outside.
    ensure!(inside != IDENTIFIER);
    let reply = tuple(ICMP, (LAN, 0), (HOST, IDENTIFIER));
    network.forget_all()?;
    assert_eq!(network.insert(&[Connection { reply, ..seen }])?, 1);
    assert_eq!(network.only(ICMP)?.reply, reply);
    echo(2)?;
    assert_eq!(network.only(ICMP)?.reply, reply, "the packets used the entry");
    assert!(network.only(ICMP)?.timeout <= Duration::from_secs(30));
    Ok(())
}

#[test]
fn a_connection_that_the_kernel_has_counts_as_present_and_is_brought_up_to_date() -> Result<()> {
    let network = Network::new()?;
    let known = Connection { timeout: Duration::from_secs(40), established_tcp: false, ..many(1)[0] };
    assert_eq!(network.insert(&[known])?, 1);
    let newer = Connection { timeout: Duration::from_secs(4000), established_tcp: true, ..known };
    assert_eq!(network.insert(&[newer])?, 1);
    let now = network.only(TCP)?;
    assert_eq!((now.original, now.reply), (known.original, known.reply));
    assert!(now.timeout > Duration::from_secs(3900), "{now:?}");
    assert!(network.line("tcp")?.contains("[ASSURED]"), "{}", network.line("tcp")?);
    Ok(())
}

#[test]
fn the_translation_given_replaces_the_one_that_the_kernel_made_up() -> Result<()> {
    let network = Network::new()?;
    let (mut near, mut far) = network.masqueraded()?;
    let right = network.only(TCP)?;
    network.forget_all()?;
    // A packet from the container before the entry is back: the kernel takes it for a new connection.
    let stale = Connection { reply: Tuple { destination_port: 61_999, ..right.reply }, ..right };
    network.insert(&[stale])?;
    assert_eq!(network.insert(&[right])?, 1);
    assert_eq!(network.only(TCP)?.reply, right.reply);
    say(&mut far, &mut near, "still here")?;
    say(&mut near, &mut far, "me too")
}

#[test]
fn a_port_that_is_taken_is_refused_and_left_out_of_the_count() -> Result<()> {
    let network = Network::new()?;
    let owner = many(2)[0];
    assert_eq!(network.insert(&[owner])?, 1);
    let mut original = owner.original;
    original.source_port += 1;
    let clash = Connection { original, ..owner };
    assert_eq!(network.insert(&[clash, many(3)[2]])?, 1);
    let error = network.insert(&[clash]).expect_err("the port is taken");
    assert!(error.to_string().contains("belong to another connection"), "{error:#}");
    let reply_of_owner = network.dump()?.into_iter().find(|entry| entry.original == owner.original);
    assert_eq!(reply_of_owner.context("the owner stays")?.reply, owner.reply);
    Ok(())
}

#[test]
fn a_clash_never_ends_in_a_translation_that_was_not_asked_for() -> Result<()> {
    let network = Network::new()?;
    let client = (LAN, 5555);
    let published = Connection {
        original: tuple(TCP, client, (HOST, PUBLISHED_PORT)),
        reply: tuple(TCP, (CONTAINER, CONTAINER_PORT), client),
        timeout: Duration::from_secs(600),
        established_tcp: true,
    };
    let direct = Connection { original: published.reply.reversed(), ..published };
    assert_eq!(network.insert(&[direct])?, 1);
    network.insert(&[published]).expect_err("another connection has the container's side");
    assert_eq!(network.dump()?.len(), 1);
    Ok(())
}

#[test]
fn without_the_capability_the_error_says_so() -> Result<()> {
    let network = Network::new()?;
    let (dumped, inserted) = network.within("host", || {
        // Capabilities belong to a thread. libc's function would take them from all threads; the system call does not.
        // SAFETY: it takes three numbers and no memory, and the thread ends with this closure.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        ensure!(result == 0, "setresuid: {}", std::io::Error::last_os_error());
        Ok((kernel_conntrack::dump(), kernel_conntrack::insert(&many(300))))
    })?;
    for error in [dumped.expect_err("not allowed").to_string(), inserted.expect_err("not allowed").to_string()] {
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_connections_take_seconds() -> Result<()> {
    const COUNT: u32 = 100_000;
    let network = Network::new()?;
    let connections = many(COUNT);

    let started = Instant::now();
    assert_eq!(network.insert(&connections)?, connections.len());
    let inserting = started.elapsed();
    let started = Instant::now();
    let dumped = network.dump()?;
    let dumping = started.elapsed();
    let started = Instant::now();
    assert_eq!(network.insert(&connections)?, connections.len());
    let again = started.elapsed();
    eprintln!("{COUNT} connections: insert {inserting:?}, dump {dumping:?}, insert again {again:?}");

    let pairs =
        |list: &[Connection]| -> HashSet<_> { list.iter().map(|entry| (entry.original, entry.reply)).collect() };
    assert_eq!(pairs(&dumped), pairs(&connections));
    assert_eq!(network.dump()?.len(), connections.len());
    assert!(inserting + dumping + again < Duration::from_secs(30), "seconds, on the slowest of machines");
    Ok(())
}
