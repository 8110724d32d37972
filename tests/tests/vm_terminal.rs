//! A command in a guest as a person meets it: keys, signals, a terminal, output that cannot be written.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, OnTerminal};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::Duration,
};

fn wait_until(what: &str, limit: Duration, mut seen: impl FnMut() -> bool) {
    banger_testkit::wait_until(what, limit, || {
        seen().then_some(()).ok_or_else(|| "not yet".to_owned())
    });
}

/// Starts a command that says when it is up, and sends the command line a signal then.
fn signalled(home: &Home, args: &[&str], signal: Signal) -> (Option<i32>, String) {
    let mut child = home
        .command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("banger");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut said = String::new();
    output.read_line(&mut said).expect("its first line");
    kill_process(Pid::from_child(&child), signal).expect("the signal");
    output.read_to_string(&mut said).expect("the rest");
    (child.wait().expect("its status").code(), said)
}

/// R-CLI-1: ^C while the VM is made ends the making, and nothing is left of it; later it is the command's.
#[test]
fn keys_are_ours_until_the_command_has_them() {
    let home = Home::new();
    let mut making = OnTerminal::start(&home, &["run", "--name", "early"]);
    making.shows("boot:");
    making.types("\x03");
    making.exits(130);
    wait_until("nothing is left of it", Duration::from_secs(30), || {
        home.banger(&["vm", "list", "-q"]).exits(0).out().is_empty()
    });

    let shell = "trap 'echo heard; exit 9' INT; stty size >/dev/null && echo on-a-terminal; \
                 while :; do sleep 0.1; done";
    let mut running = OnTerminal::start(&home, &["run", "--name", "late", "--", "sh", "-c", shell]);
    running.shows("on-a-terminal");
    running.types("\x03");
    running.exits(9);
    running.shows("heard");
    // Not with --rm: a reminder how to get back and how to be rid of it.
    running.shows("banger vm exec late -- sh");
    running.shows("banger vm delete --force late");
    home.banger(&["vm", "delete", "--force", "late"]).exits(0);
    home.finish();
}

/// Signals sent to the command line are the command's; one that cannot reach it ends us.
#[test]
fn signals_reach_the_command_or_end_us() {
    let home = Home::new();
    home.banger(&["vm", "run", "--name", "dev", "-d"]).exits(0);
    let trap = "trap 'echo heard; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    for args in [
        &["vm", "exec", "dev", "--", "sh", "-c", trap][..],
        &["vm", "run", "--rm", "--", "sh", "-c", trap],
    ] {
        let ended = signalled(&home, args, Signal::TERM);
        assert_eq!(ended, (Some(9), "up\nheard\n".to_owned()), "{args:?}");
    }
    let deaf = "trap '' INT; echo up; exec sleep 5";
    let args = ["vm", "exec", "dev", "--", "sh", "-c", deaf];
    let ended = signalled(&home, &args, Signal::INT);
    assert_eq!(ended.0, Some(0), "one signal is the command's to ignore");

    // Input that nobody reads lies before the signal.
    let unread = vec![b'x'; 8 << 20];
    let run = home.start(&["vm", "exec", "dev", "--", "sleep", "60"], &unread);
    std::thread::sleep(Duration::from_secs(2));
    let pid = i32::try_from(run.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), Signal::INT).expect("the signal");
    let sent = std::time::Instant::now();
    run.finish().exits(130);
    assert!(
        sent.elapsed() < Duration::from_secs(20),
        "it did not wait for the command"
    );
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// Output that cannot be written is a failure, a message that cannot be is none.
#[test]
fn output_that_cannot_be_written_is_no_success() {
    let home = Home::new();
    home.banger(&["vm", "run", "--name", "dev", "-d"]).exits(0);
    let full = || {
        OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full")
    };
    let mut command = home.command(&["vm", "exec", "dev", "--", "echo", "hi"]);
    let ended = command.stdin(Stdio::null()).stdout(full()).status();
    assert_eq!(ended.expect("its status").code(), Some(125));
    let mut command = home.command(&["vm", "show", "nobody"]);
    let ended = command.stdin(Stdio::null()).stderr(full()).status();
    assert_eq!(
        ended.expect("its status").code(),
        Some(125),
        "not a panic's 101"
    );
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// R-PROG-2: a command that comes while a daemon ends gets the next daemon.
#[test]
fn a_command_waits_for_a_daemon_that_drains() {
    let home = Home::new();
    home.banger(&["version"]).exits(0);
    home.banger(&["ps"]).exits(0);
    let making = home.start(&["vm", "create", "--name", "slow"], b"");
    wait_until("it is being made", Duration::from_secs(30), || {
        home.banger(&["vm", "list", "-q"]).exits(0).out().len() > 3
    });
    let stopping = home.start(&["daemon", "stop"], b"");
    let listed = home.banger(&["vm", "list", "--json"]).exits(0).json();
    assert_eq!(listed[0]["name"], "slow");
    stopping.finish().exits(0);
    making.finish().exits(0);
    home.banger(&["vm", "delete", "--force", "slow"]).exits(0);
    home.finish();
}
