//! Commands that are taken up again after the daemon was killed (R-PROG-2, R-CLI-1): no byte lost, none repeated.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test kills the product's programs"
)]

use banger_testkit::{Home, Running, wait_until};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(90);

/// Bytes that repeat with no short period, so that a piece that is lost or comes twice shows.
fn noise(count: u32) -> Vec<u8> {
    (0..count)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn no_vms(home: &Home) {
    wait_until("the VM to go", LIMIT, || {
        let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
        if listed == serde_json::json!([]) {
            Ok(())
        } else {
            Err(listed.to_string())
        }
    });
}

fn kill_while(home: &Home, run: &Running, times: usize) -> usize {
    let alive = || {
        fs::read_to_string(format!("/proc/{}/stat", run.pid())).is_ok_and(|s| !s.contains(") Z "))
    };
    let mut killed = 0;
    while killed < times && alive() {
        std::thread::sleep(Duration::from_millis(300));
        // Whose command was cut off starts the next one, and on a busy machine that takes its time.
        if home.daemon_pid().is_some() {
            home.kill_daemon();
            killed += 1;
        }
    }
    killed
}

/// Input and output of one command flow through daemon after daemon.
#[test]
fn an_exec_goes_on_through_killed_daemons() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let input = noise(4_000_000);
    // Slow enough to be killed in the middle, by its own pace and not by the machine's.
    let script = "for i in $(seq 40); do head -c 100000; sleep 0.1; done; echo end >&2; exit 9";
    let run = home.start(&["vm", "exec", "dev", "--", "sh", "-c", script], &input);
    let killed = kill_while(&home, &run, 5);
    let run = run.finish().exits(9);
    assert!(killed >= 3, "killed {killed} times");
    assert!(
        run.stdout == input,
        "{} of {} bytes",
        run.stdout.len(),
        input.len()
    );
    assert_eq!(run.err(), "end\n");
    // Nothing of it is kept in the guest.
    let left = home
        .guest_sh("dev", "pgrep -f 'seq 4[0]' || echo none")
        .exits(0);
    assert_eq!(left.out(), "none");
    home.finish();
}

/// `vm run --rm`: the command ends under another daemon than it began, its status comes, the VM goes.
#[test]
fn a_run_keeps_its_status_and_its_vm_goes() {
    let home = Home::new();
    let script = "echo up; read line; echo got $line; sleep 1; exit 42";
    let mut child = home
        .command(&[
            "vm", "run", "--rm", "--name", "once", "--", "sh", "-c", script,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("banger");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "up");
    // Running, by the row: from here on the VM is acknowledged.
    wait_until(
        "the VM to run",
        LIMIT,
        || match home.show("once")["state"].as_str() {
            Some("running") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    home.kill_daemon();
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"words\n")
        .expect("input");
    assert_eq!(lines.next().expect("a line").expect("text"), "got words");
    home.kill_daemon();
    assert_eq!(child.wait().expect("its status").code(), Some(42));
    // The end of the command line says that the VM is gone.
    home.assert_no_vms();
    home.finish();
}

/// A daemon that is stopped lets a command go on, and does not wait for it.
#[test]
fn stopping_the_daemon_stops_no_command() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let run = home.start(
        &["vm", "exec", "dev", "--", "sh", "-c", "sleep 3; echo done"],
        b"",
    );
    std::thread::sleep(Duration::from_millis(500));
    let pid = home.daemon_pid().expect("a daemon");
    home.banger(&["daemon", "stop"]).exits(0);
    wait_until("the next daemon", Duration::from_secs(20), || {
        match home.daemon_pid() {
            Some(next) if next != pid => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(run.finish().exits(0).out(), "done");
    home.finish();
}

/// Nobody comes back for a command whose client and daemon were killed: it gets a hang-up, and its VM goes.
#[test]
fn a_run_that_nobody_comes_back_to_is_removed() {
    let home = Home::new();
    let mut run = home.start(
        &["vm", "run", "--rm", "--name", "once", "--", "sleep", "600"],
        b"",
    );
    wait_until("the VM to run", LIMIT, || {
        let listed = home.banger(&["ps", "--json"]).exits(0).json();
        match listed[0]["state"].as_str() {
            Some("running") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    run.kill();
    home.kill_daemon();
    no_vms(&home);
    home.finish();
}

/// A VM that dies under a command is told at once, not looked for.
#[test]
fn a_vm_that_dies_is_no_lost_connection() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let run = home.start(&["vm", "exec", "dev", "--", "sleep", "600"], b"");
    std::thread::sleep(Duration::from_millis(500));
    home.banger(&["vm", "kill", "dev"]).exits(0);
    let run = run.finish_within(Duration::from_secs(20)).exits(125);
    assert!(run.err().contains("while the command ran"), "{}", run.err());
    home.finish();
}

/// Detached, and with the variables of a file.
#[test]
fn detached_commands_and_files_of_variables() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let variables = home.scratch().join("variables");
    fs::write(&variables, "# words\nA=from the file\nB=also\n").expect("a file");
    let variables = variables.display().to_string();
    let exec = |flags: &[&str], words: &str| {
        let mut args = vec!["vm", "exec"];
        args.extend(flags);
        args.extend(["dev", "--", "sh", "-c", words]);
        home.banger(&args)
    };
    let told = exec(&["--env-file", &variables, "-e", "B=flag"], "echo $A, $B").exits(0);
    assert_eq!(told.out(), "from the file, flag");
    exec(&["-d", "-e", "A=1"], "sleep 1; echo $A >/root/mark").exits(0);
    home.kill_daemon();
    wait_until("the detached command's mark", LIMIT, || {
        let mark = home.guest_sh("dev", "cat /root/mark");
        if mark.out() == "1" {
            Ok(())
        } else {
            Err(mark.err())
        }
    });
    home.banger(&["vm", "exec", "-d", "dev", "--", "/nonexistent"])
        .exits(127);
    let missing = home.banger(&[
        "vm",
        "exec",
        "--env-file",
        "/nonexistent",
        "dev",
        "--",
        "true",
    ]);
    assert!(
        missing
            .exits(125)
            .err()
            .contains("cannot read the variables")
    );
    home.finish();
}

/// Hundreds of commands (a hundred and `BANGER_COMMANDS` more): the daemon keeps no descriptor, no memory and no child, the guest no process.
#[test]
fn many_commands_leave_nothing() {
    let count =
        std::env::var("BANGER_COMMANDS").map_or(300, |n| n.parse().expect("BANGER_COMMANDS"));
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let some = |count: usize| {
        for batch in 0..count / 10 {
            let runs: Vec<Running> = (0..10)
                .map(|_| home.start(&["vm", "exec", "dev", "--", "echo", "word"], b""))
                .collect();
            for run in runs {
                assert_eq!(run.finish().exits(0).out(), "word", "batch {batch}");
            }
        }
    };
    some(100);
    let pid = home.daemon_pid().expect("a daemon");
    let descriptors = || {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .count()
    };
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("RssAnon:"))
            .expect("RssAnon");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("KiB")
    };
    let guest = || {
        let words = "cat /proc/1/status | sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p'; \
                     ls /proc/1/fd | wc -l; ls -d /proc/[0-9]* | wc -l";
        let told = home.guest_sh("dev", words).exits(0).out();
        let numbers: Vec<u64> = told.lines().map(|n| n.parse().expect("a number")).collect();
        numbers
    };
    let (fds, kib, inside) = (descriptors(), memory(), guest());
    some(count);
    wait_until("descriptors to be closed", Duration::from_secs(20), || {
        let now = descriptors();
        if now <= fds {
            Ok(())
        } else {
            Err(format!("{now} of {fds}"))
        }
    });
    let grown = memory().saturating_sub(kib);
    assert!(grown < 2048, "the daemon grew by {grown} KiB");
    let after = guest();
    assert!(
        after[0] < inside[0] + 512,
        "the agent grew: {inside:?} {after:?}"
    );
    assert_eq!(after[1], inside[1], "descriptors of the agent");
    assert!(after[2] <= inside[2] + 1, "processes: {inside:?} {after:?}");
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let zombies = children.split_whitespace().filter(|child| {
        fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|s| s.contains(") Z "))
    });
    assert_eq!(zombies.count(), 0);
    home.finish();
}
