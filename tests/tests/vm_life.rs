//! Restart, wait, rename, prune, and when a VM was last used (R-CLI-2, R-SVC-7).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, OnTerminal, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, time::Duration};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// R-CLI-2: a restart is one boot later, and goes on without the command that asked for it.
#[test]
fn a_restart_is_the_daemons_work() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let boot = |home: &Home| home.guest_sh("dev", BOOT_ID).exits(0).out();
    let first = boot(&home);
    home.guest_sh("dev", "echo kept >/root/note").exits(0);
    let restarted = home.banger(&["vm", "restart", "dev", "dev"]).exits(0);
    assert_eq!(restarted.out(), "dev");
    let second = boot(&home);
    assert_ne!(first, second);
    assert_eq!(
        home.guest_sh("dev", "cat /root/note").exits(0).out(),
        "kept"
    );

    let mut asked = home.start(&["vm", "restart", "dev"], b"");
    wait_until("the restart to begin", Duration::from_secs(20), || {
        let state = home.show("dev")["state"].clone();
        (state != "running").then_some(()).ok_or(state.to_string())
    });
    asked.kill();
    asked.finish();
    home.banger(&["vm", "wait", "dev", "--for", "healthy", "--timeout", "60s"])
        .exits(0);
    assert_ne!(boot(&home), second);

    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "restart", "dev"]).exits(0);
    assert_eq!(
        home.show("dev")["state"],
        "running",
        "one that is stopped is started"
    );
    home.finish();
}

/// A daemon that dies between the halves leaves a stopped VM that says what became of it.
#[test]
fn a_restart_cut_short_leaves_a_stopped_vm_that_says_so() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    // A guest that stands still does not power off: the daemon is killed within the first half.
    let vmm = home.show("dev")["handles"]["processes"]["vmm"]["pid"].clone();
    let vmm = i32::try_from(vmm.as_i64().expect("its pid")).expect("a pid");
    let vmm = Pid::from_raw(vmm).expect("a pid");
    kill_process(vmm, Signal::STOP).expect("its VMM");
    let mut asked = home.start(&["vm", "restart", "dev"], b"");
    wait_until("the restart to begin", Duration::from_secs(20), || {
        let state = home.show("dev")["state"].clone();
        (state != "running").then_some(()).ok_or(state.to_string())
    });
    home.kill_daemon();
    asked.kill();
    asked.finish();
    kill_process(vmm, Signal::CONT).expect("its VMM");
    home.banger(&["vm", "wait", "dev", "--timeout", "60s"])
        .exits(0);
    let vm = home.show("dev");
    assert_eq!(
        (&vm["state"], &vm["goal"]),
        (&"stopped".into(), &"stopped".into()),
        "{vm}"
    );
    assert_eq!(vm["reason"]["kind"], "interrupted", "{vm}");
    let text = home.banger(&["vm", "show", "dev"]).exits(0).out();
    assert!(text.contains("banger vm start dev"), "{text}");
    home.banger(&["vm", "start", "dev"]).exits(0);
    home.finish();
}

/// Waits end when what is waited for happens, when it cannot happen any more, and when their time is over.
#[test]
fn waits_end_for_each_reason() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "one"]).exits(0);
    home.banger(&["vm", "create", "--name", "two"]).exits(0);
    let id = home.show("one")["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let healthy = home
        .banger(&["vm", "wait", "two", "one", &id, "--for", "healthy"])
        .exits(0);
    assert_eq!(
        healthy.out(),
        "two\none",
        "in the order given, duplicates dropped"
    );

    let late = home
        .banger(&["vm", "wait", "one", "--timeout", "1s"])
        .exits(1);
    assert_eq!(
        (late.out(), late.err()),
        (
            String::new(),
            "banger: VM 'one' is not stopped after 1s, it is running (the guest is up)\n"
                .to_owned()
        )
    );

    // It outlives the daemon, and ends with the VM's end.
    let waiting = home.start(&["vm", "wait", "one", "two"], b"");
    home.kill_daemon();
    home.banger(&["vm", "stop", "one"]).exits(0);
    home.banger(&["vm", "kill", "two"]).exits(0);
    assert_eq!(waiting.finish().exits(0).out(), "one\ntwo");

    let up = home.start(&["vm", "wait", "one", "--for", "running", "--json"], b"");
    let gone = home.start(&["vm", "wait", "two", "--for", "deleted"], b"");
    let never = home.start(&["vm", "wait", "two", "--for", "running"], b"");
    std::thread::sleep(Duration::from_millis(300));
    home.banger(&["vm", "start", "one"]).exits(0);
    home.banger(&["vm", "delete", "two"]).exits(0);
    let up = up.finish().exits(0).json();
    assert_eq!(
        (&up[0]["name"], &up[0]["reached"]),
        (&"one".into(), &true.into()),
        "{up}"
    );
    assert_eq!(gone.finish().exits(0).out(), "two");
    let never = never.finish().exits(1);
    assert_eq!(
        never.err(),
        "banger: VM 'two' was deleted; it will not be running\n"
    );
    home.banger(&["vm", "wait", "two", "--for", "deleted"])
        .exits(0);
    home.banger(&["vm", "wait", "two"]).exits(125);
    home.finish();
}

/// R-CLI-7: a new name is unique, known at once, in the guest at its next start, and outlives database and daemon.
#[test]
fn a_vm_is_renamed_while_it_runs() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "old"]).exits(0);
    home.banger(&["vm", "create", "--name", "other"]).exits(0);
    let boot = home.guest_sh("old", BOOT_ID).exits(0).out();
    let renamed = home.banger(&["vm", "rename", "old", "new"]).exits(0);
    assert_eq!(renamed.out(), "new");
    assert!(
        renamed.err().contains("from its next start on"),
        "{}",
        renamed.err()
    );
    assert_eq!(
        home.guest_sh("new", BOOT_ID).exits(0).out(),
        boot,
        "it runs on"
    );
    home.banger(&["vm", "show", "old"]).exits(125);
    let taken = home.banger(&["vm", "rename", "new", "other"]).exits(125);
    assert!(
        taken.err().contains("'other' exists already"),
        "{}",
        taken.err()
    );
    assert_eq!(home.guest_sh("new", "hostname").exits(0).out(), "old");
    home.banger(&["vm", "restart", "new"]).exits(0);
    assert_eq!(home.guest_sh("new", "hostname").exits(0).out(), "new");

    home.banger(&["daemon", "stop"]).exits(0);
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(home.state().join(file));
    }
    home.banger(&["recover"]).exits(0);
    assert_eq!(home.show("new")["state"], "running");
    home.finish();
}

/// What is stopped goes, disks and all, with what is left of what failed; what runs stays.
#[test]
fn prune_takes_what_nobody_uses() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "runs"]).exits(0);
    home.banger(&["vm", "create", "--name", "down"]).exits(0);
    // What the shared templates have of older agents.
    home.banger(&["vm", "prune", "--force"]).exits(0);
    home.banger(&["vm", "stop", "down"]).exits(0);
    let log = home.state().join("failed/00000000abcd/console.log");
    let stale = home
        .state()
        .join("templates/initramfs-v1-0123456789abcdef-0123456789abcdef.cpio");
    fs::create_dir_all(log.parent().expect("a directory")).expect("failed/");
    fs::write(&log, "panic").expect("a log");
    fs::write(&stale, vec![1; 8192]).expect("a file");
    let templates = || {
        fs::read_dir(home.state().join("templates"))
            .expect("templates")
            .count()
    };
    let before = templates();

    let refused = home.banger(&["vm", "prune"]).exits(125);
    assert!(refused.err().contains("--force"), "{}", refused.err());
    let dry = home
        .banger(&["vm", "prune", "--dry-run", "--json"])
        .exits(0)
        .json();
    assert_eq!(dry["vms"].as_array().map(Vec::len), Some(1), "{dry}");
    assert_eq!(dry["vms"][0]["name"], "down");
    assert_eq!(dry["cache"].as_array().map(Vec::len), Some(1), "{dry}");
    assert!(dry["bytes"].as_u64() > Some(8192 + 5), "{dry}");
    let young = home
        .banger(&["vm", "prune", "--older-than", "1h", "--force"])
        .exits(0);
    assert!(!young.out().contains("down"), "{}", young.out());
    assert!(!stale.exists() && log.exists(), "a cache has no age");
    home.banger(&["vm", "show", "down"]).exits(0);

    let mut person = OnTerminal::start(&home, &["vm", "prune"]);
    person.looks("asks", |s| s.ends_with("[y/N]") && s.contains("down"));
    person.types("n\r");
    person.exits(0);
    assert!(log.exists());
    let mut person = OnTerminal::start(&home, &["vm", "prune"]);
    person.looks("asks", |s| s.ends_with("[y/N]"));
    person.types("y\r");
    person.shows("freed ");
    person.exits(0);
    let left = home
        .banger(&["vm", "list", "-q", "--filter", "name=down"])
        .exits(0);
    assert_eq!(left.out(), "");
    assert!(!log.exists());
    assert_eq!(templates(), before - 1, "what is used stays");
    assert_eq!(
        home.banger(&["vm", "prune", "-f"]).exits(0).out(),
        "freed 0 B"
    );
    home.guest_sh("runs", "true").exits(0);
    home.finish();
}

/// R-SVC-7: a use is shown at once, and written though the daemon ends.
#[test]
fn a_use_is_shown_at_once_and_kept() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let used = |home: &Home| {
        home.show("dev")["last_used_at"]
            .as_u64()
            .unwrap_or_default()
    };
    let created = used(&home);
    let mut last = created;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1100));
        home.guest_sh("dev", "true").exits(0);
        assert!(used(&home) > last);
        last = used(&home);
    }
    home.banger(&["daemon", "stop"]).exits(0);
    assert_eq!(used(&home), last, "it was written when the daemon ended");
    let listed = home.banger(&["vm", "list"]).exits(0).out();
    assert!(listed.contains("LAST USED"), "{listed}");
    home.finish();
}
