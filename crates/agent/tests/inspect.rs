//! The real agent on a socketpair looks at the machine it runs on: health, clock, ports, stats.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_wire::guest::clock::MAX_ENTROPY;
use banger_wire::guest::{ClientError, ClockSet, Correction, Entropy, ListeningSocket, Protocol};
use common::Bare;

const HOUR_NS: u64 = 3_600_000_000_000;

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

fn on(sockets: &[ListeningSocket], protocol: Protocol, port: u16) -> Vec<&ListeningSocket> {
    let there = |s: &&ListeningSocket| s.protocol == protocol && s.port == port;
    sockets.iter().filter(there).collect()
}

#[tokio::test]
async fn a_listener_is_listed_with_its_process() {
    let agent = Bare::start();
    let client = agent.client().await;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(udp.local_addr().unwrap()).unwrap();
    let port = tcp.local_addr().unwrap().port();

    let ports = client.ports().await.unwrap();
    let me = std::process::id();
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    for (protocol, port) in [
        (Protocol::Tcp, port),
        (Protocol::Udp, udp.local_addr().unwrap().port()),
    ] {
        let found = on(&ports.sockets, protocol, port);
        assert_eq!(found.len(), 1, "{protocol} {port}: {ports:?}");
        assert_eq!(found[0].address, "127.0.0.1");
        assert_eq!(found[0].pid, Some(me));
        assert_eq!(found[0].process.as_deref(), Some(name.trim_end()));
        assert_eq!(found[0].uid, rustix::process::getuid().as_raw());
    }
    let peered = connected.local_addr().unwrap().port();
    assert!(on(&ports.sockets, Protocol::Udp, peered).is_empty());
    assert!(!ports.truncated);
    let order = |s: &ListeningSocket| (s.port, s.protocol);
    assert!(ports.sockets.is_sorted_by_key(order), "{ports:?}");

    drop(tcp);
    let ports = client.ports().await.unwrap();
    assert!(on(&ports.sockets, Protocol::Tcp, port).is_empty());
}

/// A server that binds both wildcards is one row; one for both families alone says so by its address.
#[tokio::test]
async fn both_families_of_one_process_are_one_row() {
    let agent = Bare::start();
    let client = agent.client().await;
    let Ok(v6) = TcpListener::bind("[::1]:0") else {
        return; // No IPv6 on this machine; the rows are tested where they are made.
    };
    let port = v6.local_addr().unwrap().port();
    let v4 = TcpListener::bind(("127.0.0.1", port));
    let ports = client.ports().await.unwrap();
    let rows = on(&ports.sockets, Protocol::Tcp, port);
    let addresses: Vec<_> = rows.iter().map(|s| s.address.as_str()).collect();
    match v4 {
        Ok(_) => assert_eq!(addresses, ["127.0.0.1", "::1"]),
        Err(_) => assert!(addresses.contains(&"::1")),
    }
}

#[tokio::test]
async fn stats_are_those_of_the_machine() {
    let agent = Bare::start();
    let client = agent.client().await;
    let first = client.stats().await.unwrap();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.split_whitespace().nth(1).unwrap();
    assert_eq!(first.memory_total, total.parse::<u64>().unwrap() * 1024);
    assert!(first.memory_available > 0 && first.memory_available <= first.memory_total);
    assert!(first.cpus > 0 && first.processes > 1 && first.uptime_ms > 0);
    assert!(first.cpu_busy_ms > 0 && first.cpu_busy_ms <= first.cpu_total_ms);
    let root = &first.disks[0];
    assert_eq!(root.path, "/");
    assert!(root.used <= root.total && root.available < root.total && root.total > 0);
    assert!(first.network.iter().all(|n| n.name != "lo"));
    // Work shows, within the kernel's tick.
    let end = std::time::Instant::now() + Duration::from_millis(200);
    while std::time::Instant::now() < end {
        std::hint::spin_loop();
    }
    let second = client.stats().await.unwrap();
    let worked = second.cpu_busy_ms - first.cpu_busy_ms;
    assert!(worked >= 50, "{worked} ms of work in 200 ms");
    assert!(second.cpu_total_ms > first.cpu_total_ms);
}

/// The agent says what it would do; the clock of a machine that it is not the init of is not its own.
#[tokio::test]
async fn the_clock_of_this_machine_is_never_touched() {
    let agent = Bare::start();
    let client = agent.client().await;
    let before = unix_ns();
    let read = client.clock().await.unwrap().unix_ns;
    assert!(before <= read && read <= unix_ns());
    for (set, wanted, about_ns) in [
        (
            ClockSet {
                unix_ns: unix_ns() + HOUR_NS,
                entropy: vec![7; 32],
                ..ClockSet::default()
            },
            Correction::Step,
            HOUR_NS,
        ),
        (
            ClockSet {
                unix_ns: 100_000_000,
                guest_ns: Some(0),
                ..ClockSet::default()
            },
            Correction::Slew,
            100_000_000,
        ),
        (
            ClockSet {
                unix_ns: 5,
                guest_ns: Some(5),
                ..ClockSet::default()
            },
            Correction::Nothing,
            0,
        ),
    ] {
        let done = client.set_clock(&set).await.unwrap();
        assert_eq!((done.correction, done.applied), (wanted, false));
        let off = done.offset_ns.unsigned_abs().abs_diff(about_ns);
        assert!(off < 10_000_000_000, "{done:?}");
        let unused = (!set.entropy.is_empty()).then_some(Entropy::Unused);
        assert_eq!(done.entropy, unused);
    }
    let later = client.clock().await.unwrap().unix_ns;
    assert!(later - before < HOUR_NS, "an hour has not gone by");
}

#[tokio::test]
async fn bad_messages_are_refused_and_the_agent_lives() {
    let agent = Bare::start();
    let client = agent.client().await;
    for length in [MAX_ENTROPY + 1, 100_000] {
        let set = ClockSet {
            entropy: vec![200; length],
            ..ClockSet::default()
        };
        match client.set_clock(&set).await {
            Err(ClientError::Refused { status: 400, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let health = client.health().await.unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(health.boot_id, boot_id.trim_end());
}
