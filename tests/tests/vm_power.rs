//! The end of a guest, from inside and from outside: in order, in time, with nothing lost, and told for what it was
//! (R-STATE-11, R-HOST-5, R-GUEST-2).

use banger_testkit::{Home, wait_until};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until the VM is shown as stopped; gives kind and text of the reason.
#[track_caller]
fn stopped(home: &Home, vm: &str) -> (String, String) {
    let shown = wait_until("the VM to be seen stopped", LIMIT, || {
        let shown = home.show(vm);
        match shown["state"].as_str() {
            Some("stopped") => Ok(shown),
            _ => Err(shown["state"].to_string()),
        }
    });
    let text = |key: &str| shown["reason"][key].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("text"))
}

/// Sends a signal to the VMM of `dev`.
#[track_caller]
fn signal_vmm(home: &Home, signal: rustix::process::Signal) {
    let pid = home.show("dev")["handles"]["processes"]["vmm"]["pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("the VMM's pid"), signal).expect("a signal");
}

/// What `telinit 0` and systemd's `poweroff` write to sysvinit's pipe: four numbers and 368 bytes of nothing.
const TELINIT_0: &str = "{ printf '\\151\\31\\11\\3\\1\\0\\0\\0\\060\\0\\0\\0\\0\\0\\0\\0'; head -c 368 /dev/zero; } | dd of=/run/initctl bs=384 iflag=fullblock";

/// Everything that ends a guest from inside, its signals and pipe, the bare system call, and the kernel's own death.
#[test]
fn the_end_from_inside_is_told_for_what_it_was() {
    let home = Home::new();
    home.banger(&["vm", "run", "--name", "dev", "-d"]).exits(0);
    let ends = [
        ("kill -USR2 1", "guest-power-off", "powered itself off"),
        ("kill -TERM 1", "guest-reboot", "banger vm start dev"),
        (TELINIT_0, "guest-power-off", "powered itself off"),
        (
            "echo o >/proc/sysrq-trigger",
            "guest-power-off",
            "powered itself off",
        ),
        ("kill -39 1", "guest-reboot", "banger vm start dev"),
        (
            "echo b >/proc/sysrq-trigger",
            "guest-reboot",
            "without a word",
        ),
        (
            "echo c >/proc/sysrq-trigger",
            "guest-panic",
            "sysrq triggered crash",
        ),
    ];
    for (turn, (end, kind, text)) in ends.into_iter().enumerate() {
        if turn > 0 {
            home.banger(&["vm", "start", "dev"]).exits(0);
        }
        let began = Instant::now();
        let run = home.guest_sh("dev", &format!("{end}; sleep 60"));
        let in_order = !end.contains("sysrq");
        // In order the command is asked to end, by TERM and HUP; else its client is told that it was cut off.
        assert!(
            run.status == 125 || in_order && [129, 143].contains(&run.status),
            "{run:?}"
        );
        assert_eq!(run.status == 125, run.err().contains("hint: "), "{run:?}");
        let (told, why) = stopped(&home, "dev");
        assert_eq!(told, kind, "{end}: {why}");
        assert!(why.contains(text), "{end}: {why}");
        eprintln!("{end}: {kind} after {:?}", began.elapsed());
    }
    // One that is killed said nothing, whatever it said the time before.
    home.banger(&["vm", "start", "dev"]).exits(0);
    signal_vmm(&home, rustix::process::Signal::KILL);
    assert_eq!(stopped(&home, "dev").0, "vmm-exited");
    home.finish();
}

/// The daemon was not there to hear it: the console is.
#[test]
fn an_end_that_nobody_heard_is_told_all_the_same() {
    let home = Home::new();
    home.banger(&["vm", "run", "--name", "dev", "-d"]).exits(0);
    home.guest_sh(
        "dev",
        "echo fresh >/root/f; (sleep 2; kill -USR2 1) >/dev/null 2>&1 &",
    )
    .exits(0);
    home.kill_daemon();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(stopped(&home, "dev").0, "guest-power-off");
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert_eq!(home.guest_sh("dev", "cat /root/f").exits(0).out(), "fresh");
    home.finish();
}

/// Processes that ignore every question or hear none, full disks and attached commands keep no guest from a stop in
/// order: what was written is there, no journal has to be replayed, and who was attached is told.
#[test]
fn a_stop_is_in_order_whatever_runs() {
    let home = Home::new();
    let sizes = ["--disk-size", "64M", "--system-overlay-size", "64M"];
    let create = ["vm", "create", "--name", "dev"];
    home.banger(&[&create[..], &sizes].concat()).exits(0);
    let busy = "echo fresh >/root/f; echo kept >/var/kept
        (trap '' TERM HUP; while :; do sleep 1; done) >/dev/null 2>&1 &
        sleep 1000 >/dev/null 2>&1 & kill -STOP $!
        for full in /root/full /var/full; do cat /dev/zero >$full; done 2>&1 | grep -c 'No space'";
    assert_eq!(home.guest_sh("dev", busy).exits(0).out(), "2");
    let attached = |words| {
        let args = ["vm", "exec", "dev", "--", "sh", "-c", words];
        home.start(&args, b"")
    };
    let heeding = attached("echo >/dev/shm/1; exec sleep 1000");
    let deaf = attached("trap '' TERM HUP; echo >/dev/shm/2; while :; do sleep 1; done");
    wait_until("both commands to run", LIMIT, || {
        let seen = home.guest_sh("dev", "ls /dev/shm/1 /dev/shm/2").err();
        if seen.is_empty() { Ok(()) } else { Err(seen) }
    });
    let began = Instant::now();
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(9), "not in order: {took:?}");
    for (run, by_signal) in [(heeding.finish(), [129, 143]), (deaf.finish(), [137, 137])] {
        let cut_off = run.status == 125 && run.err().contains("while the command ran");
        assert!(cut_off || by_signal.contains(&run.status), "{run:?}");
    }
    assert_eq!(stopped(&home, "dev").0, "requested");
    home.banger(&["vm", "start", "dev"]).exits(0);
    let kept = "cat /root/f /var/kept; dmesg | grep -c 'mounted filesystem'; dmesg | grep -c 'recovery complete'";
    let kept = home.guest_sh("dev", kept).out();
    // Base, overlay, work disk and modules.
    assert_eq!(kept, "fresh\nkept\n4\n0");
    home.finish();
}

/// A guest that cannot be asked is ended after 10 s and 5 s, which is no error.
#[test]
fn a_guest_that_stands_still_is_stopped_in_bounded_time() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "echo synced >/root/f; sync").exits(0);
    signal_vmm(&home, rustix::process::Signal::STOP);
    let began = Instant::now();
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let took = began.elapsed();
    assert!((9..20).contains(&took.as_secs()), "{took:?}");
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert_eq!(home.guest_sh("dev", "cat /root/f").exits(0).out(), "synced");
    home.finish();
}
