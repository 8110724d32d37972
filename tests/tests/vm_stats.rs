//! A running VM looked at: health, ports, stats; and its clock and entropy, which follow the host's.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, Run, wait_until};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How far a guest's clock may be off once it was set, and a machine under load may be late to say so.
const CLOSE_MS: f64 = 250.0;

/// R-OPS-2, R-CLI-2: what is looked at is there, and looking is no use of the VM (R-SVC-7).
#[test]
fn a_vm_is_looked_at_from_inside_and_outside() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev", "--memory", "256M"])
        .exits(0);
    let used = home.show("dev")["last_used_at"].clone();
    // Its second is over: a use would show.
    std::thread::sleep(Duration::from_millis(1100));

    let health = one(&home.banger(&["vm", "health", "dev", "--json"]).exits(0));
    assert_eq!(health["healthy"], true, "{health}");
    assert_eq!(health["state"], "running");
    let agent = &health["agent"];
    assert_eq!(agent["protocol"], 2, "{health}");
    assert_eq!(agent["boot_nonce"].as_str().map(str::len), Some(32));
    assert!(agent["uptime_ms"].as_u64() > Some(0) && agent["round_trip_ms"].as_f64() > Some(0.0));

    let stats = one(&home.banger(&["vm", "stats", "dev", "--json"]).exits(0));
    let (guest, vmm) = (&stats["guest"], &stats["vmm"]);
    let memory = guest["memory_total"].as_u64().expect("its memory");
    assert!((100 << 20..=256 << 20).contains(&memory), "{stats}");
    let disks: Vec<_> = guest["disks"].as_array().expect("disks").iter().collect();
    assert_eq!(disks.len(), 2, "{stats}");
    assert_eq!(
        (&disks[0]["path"], &disks[1]["path"]),
        (&"/".into(), &"/root".into())
    );
    assert!(
        disks
            .iter()
            .all(|d| d["used"].as_u64() <= d["total"].as_u64())
    );
    assert!(
        guest["network"].as_array().is_some_and(|n| n.len() == 1),
        "{stats}"
    );
    let shown = home.show("dev");
    assert_eq!(vmm["pid"], shown["handles"]["processes"]["vmm"]["pid"]);
    assert!(
        vmm["memory"].as_u64() > Some(20 << 20) && vmm["cpu_ms"].as_u64() > Some(0),
        "{stats}"
    );
    for verb in ["health", "stats"] {
        let table = home.banger(&["vm", verb, "dev"]).exits(0).out();
        assert_eq!(table.lines().count(), 2, "{table}");
    }
    assert_eq!(home.show("dev")["last_used_at"], used, "looking is no use");
    home.finish();
}

/// A guest at work is busy, and so is its VMM.
#[test]
fn work_shows_in_the_stats() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev", "--vcpu", "1"])
        .exits(0);
    let busy = home.start(
        &[
            "vm",
            "exec",
            "dev",
            "--",
            "sh",
            "-c",
            "echo on; while :; do :; done",
        ],
        b"",
    );
    wait_until("the guest to be busy", Duration::from_secs(30), || {
        let stats = one(&home.banger(&["vm", "stats", "dev", "--json"]).exits(0));
        let (inside, outside) = (&stats["cpu_percent"], &stats["vmm"]["cpu_percent"]);
        // One processor is never more than itself.
        assert!(inside.as_f64() <= Some(100.0), "{stats}");
        if inside.as_f64() > Some(70.0) && outside.as_f64() > Some(20.0) {
            Ok(())
        } else {
            Err(stats.to_string())
        }
    });
    home.banger(&["vm", "kill", "dev"]).exits(0);
    busy.finish();
    home.finish();
}

/// R-OPS-2: each listener with its process.
#[test]
fn what_listens_in_a_vm_is_listed_with_its_owner() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let none = home
        .banger(&["vm", "ports", "dev", "--json"])
        .exits(0)
        .json();
    // The one that is left behind holds the sockets and none of the command's streams.
    let listen = "perl -MIO::Socket::INET -e '\
        $t = IO::Socket::INET->new(Listen => 1, LocalAddr => q(127.0.0.1:8080)) or die; \
        $u = IO::Socket::INET->new(Proto => q(udp), LocalAddr => q(0.0.0.0:5353)) or die; \
        if ($child = fork) { print $child; exit } \
        open STDOUT, q(>/dev/null); open STDERR, q(>/dev/null); sleep 1000'";
    let pid = home.guest_sh("dev", listen).exits(0).out();
    let ports = home
        .banger(&["vm", "ports", "dev", "--json"])
        .exits(0)
        .json();
    let mut expected = none.as_array().expect("an array").clone();
    for (protocol, address, port) in [("udp", "0.0.0.0", 5353), ("tcp", "127.0.0.1", 8080)] {
        expected.push(serde_json::json!({
            "protocol": protocol, "address": address, "port": port, "uid": 0,
            "pid": pid.trim().parse::<u32>().expect("a pid"), "process": "perl",
            "published": [], "urls": [],
        }));
    }
    expected.sort_by_key(|socket| socket["port"].as_u64());
    assert_eq!(ports, Value::Array(expected));
    let table = home.banger(&["vm", "ports", "dev"]).exits(0).out();
    assert!(table.contains("tcp    127.0.0.1  8080  perl"), "{table}");
    home.finish();
}

/// R-CLI-2: a VM that is not well is exit status 1 and says why; one that is not there is 125.
#[test]
fn health_says_who_is_not_well() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.banger(&["vm", "create", "--name", "other"]).exits(0);
    home.banger(&["vm", "stop", "other"]).exits(0);
    let run = home
        .banger(&["vm", "health", "dev", "other", "--json"])
        .exits(1);
    let both = run.json();
    let healthy: Vec<_> = both
        .as_array()
        .expect("two")
        .iter()
        .map(|vm| &vm["healthy"])
        .collect();
    assert_eq!(healthy, [&Value::Bool(true), &Value::Bool(false)]);
    assert!(
        run.err()
            .contains("VM 'other' is not healthy: it is stopped"),
        "{}",
        run.err()
    );
    home.banger(&["vm", "health", "dev"]).exits(0);
    home.banger(&["vm", "health", "other", "nobody"]).exits(125);
    for verb in ["ports", "stats"] {
        let refused = home.banger(&["vm", verb, "other"]).exits(125).err();
        assert!(refused.contains("banger vm start other"), "{refused}");
    }
    home.finish();
}

/// R-GUEST-9: the next session sets a clock that is wrong.
#[test]
fn a_clock_that_is_wrong_is_set_by_the_next_session() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    close(&home, "at the start");
    home.guest_sh("dev", "date -s '+1 hour'").exits(0);
    let health = home.banger(&["vm", "health", "dev", "--json"]).exits(0);
    let off = one(&health)["agent"]["clock_offset_ms"].as_f64();
    assert!(off > Some(3_500_000.0), "{off:?}");
    assert!(
        health.err().contains("clock is off by +3"),
        "{}",
        health.err()
    );
    home.kill_daemon();
    close(&home, "after a new session");
    let said = home.guest_sh("dev", "date +%s").exits(0).out();
    let said: u64 = said.trim().parse().expect("a time");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("now")
        .as_secs();
    assert!(now.abs_diff(said) <= 5, "{said} in the guest, {now} here");
    home.finish();
}

/// R-GUEST-9: without a new session it is set within the interval of 30 s.
#[test]
fn a_clock_that_is_wrong_is_set_within_the_interval() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "date -s '-1 day'").exits(0);
    wait_until("the clock to be set", Duration::from_secs(60), || {
        let off = clock_offset_ms(&home);
        if off.abs() < CLOSE_MS {
            Ok(())
        } else {
            Err(format!("{off} ms"))
        }
    });
    home.finish();
}

/// R-GUEST-9: a guest that goes on after it was held still knows the time, and got entropy, before it is asked anything.
#[test]
fn a_guest_that_goes_on_knows_the_time() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "date -s '+1 hour'").exits(0);
    let socket = home.show("dev")["runtime"]["api_socket"]
        .as_str()
        .expect("a socket")
        .to_owned();
    // As the daemon holds it still when the disk is full; the next daemon finds it so, and the disk not full.
    stop_processors(&socket);
    home.kill_daemon();
    wait_until("the VM to go on", Duration::from_secs(60), || {
        let run = home.guest_sh("dev", "date +%s");
        if run.status == 0 {
            let said: u64 = run.out().trim().parse().expect("a time");
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("now")
                .as_secs();
            assert!(now.abs_diff(said) <= 5, "{said} in the guest, {now} here");
            return Ok(());
        }
        Err(run.err())
    });
    let log = std::fs::read_to_string(home.state().join("daemon.log")).expect("the log");
    let stepped = log
        .lines()
        .rfind(|line| line.contains("its clock was stepped"));
    assert!(
        stepped.is_some_and(|line| line.contains("Credited")),
        "{log}"
    );
    home.finish();
}

/// R-GUEST-8: the kernel has its random numbers from the host, and has enough of them for the first command.
#[test]
fn random_numbers_come_from_the_host_and_at_once() {
    let home = Home::new();
    let words =
        "timeout 1 head -c 16 /dev/random | wc -c; cat /sys/class/misc/hw_random/rng_current";
    let run = home
        .banger(&["vm", "run", "--name", "dev", "--", "sh", "-c", words])
        .exits(0);
    let said = run.out();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0].trim(), "16", "{said}");
    assert!(lines[1].starts_with("virtio_rng"), "{said}");
    home.finish();
}

/// The clock is as right as one that was set can be.
#[track_caller]
fn close(home: &Home, when: &str) {
    wait_until(
        &format!("the clock to be right {when}"),
        Duration::from_secs(10),
        || {
            let off = clock_offset_ms(home);
            if off.abs() < CLOSE_MS {
                Ok(())
            } else {
                Err(format!("{off} ms"))
            }
        },
    );
}

#[track_caller]
fn clock_offset_ms(home: &Home) -> f64 {
    let health = one(&home.banger(&["vm", "health", "dev", "--json"]).exits(0));
    let off = health["agent"]["clock_offset_ms"].as_f64();
    off.unwrap_or_else(|| panic!("no clock in {health}"))
}

/// The only element of a JSON array.
#[track_caller]
fn one(run: &Run) -> Value {
    let all = run.json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    all[0].clone()
}

/// Tells QEMU `stop` over a control socket (QMP).
fn stop_processors(socket: &str) {
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a limit");
    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
    let mut until = |word: &str| {
        let found = lines
            .by_ref()
            .map(|l| l.expect("an answer"))
            .find(|l| l.contains(word));
        assert!(found.is_some(), "waited for {word}");
    };
    until("QMP");
    for command in ["qmp_capabilities", "stop"] {
        writeln!(stream, "{{\"execute\":\"{command}\"}}").expect("a command");
        until("return");
    }
}
