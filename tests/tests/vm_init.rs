//! `--init`: the image's own init as PID 1, the agent beside it (R-GUEST-1, R-CLI-1).

use banger_testkit::{Home, skip, wait_until};
use std::time::{Duration, Instant};

/// A whole systemd on a machine without virtualisation that others use too. Any one wait for a device that is not
/// there is 90 s more.
const BOOT: Duration = Duration::from_secs(110);
/// How long a guest that is asked to stop is waited for, and a little.
const STOP: Duration = Duration::from_secs(11);

fn systemd_says(home: &Home) -> Result<(), String> {
    let said = home
        .guest_sh("dev", "systemctl is-system-running --wait")
        .out();
    if said == "running" { Ok(()) } else { Err(said) }
}

/// systemd in an image that was made for another machine comes up whole, with nothing waited for, and goes down in
/// order; commands run at any time.
#[test]
fn systemd_comes_up_whole_and_goes_down_in_order() {
    let home = Home::new();
    let image = match home.share_systemd_image() {
        Ok(image) => image,
        Err(why) => return skip(&why),
    };
    let create = [
        "vm", "create", "--name", "dev", "--image", image, "--init", "image",
    ];
    home.banger(&create).exits(0);
    // At once, long before systemd is there.
    let cmdline = home.guest_sh("dev", "cat /proc/1/cmdline").exits(0).out();
    assert_eq!(cmdline, "/sbin/init\0");
    assert_eq!(home.show("dev")["init"], "image");
    wait_until("systemd to be up", BOOT, || {
        let said = systemd_says(&home);
        if said.as_ref().is_err_and(|said| said == "degraded") {
            panic!(
                "{}",
                home.guest_sh("dev", "systemctl --failed --no-legend").out()
            );
        }
        said
    });
    // The agent is not systemd's to end, and what it was told about file systems and network was heard.
    let look = "tr '\\0' ' ' </proc/$PPID/cmdline; stat -f -c %T /mnt; ls -d /data 2>&1; \
                networkctl --no-legend list eth0; ip -4 -o addr show eth0; wc -c </etc/machine-id; wc -l </etc/fstab; cat /proc/$PPID/oom_score_adj /proc/self/oom_score_adj";
    let seen = home.guest_sh("dev", look).exits(0).out();
    for expected in [
        "@banger-agent service",
        "tmpfs",
        "'/data': No such",
        "configured",
        "10.0.2.15/24",
        "\n33\n5\n-1000\n0",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
    home.guest_sh("dev", "echo fresh >/root/f; echo kept >/var/kept")
        .exits(0);
    let began = Instant::now();
    home.banger(&["vm", "stop", "dev"]).exits(0);
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
    let console = home.banger(&["vm", "logs", "dev"]).exits(0).out();
    // systemd did it, not the agent in its place.
    assert!(console.contains("reboot: Power down"), "{console}");
    assert!(!console.contains("banger-agent: powering off"), "{console}");
    home.banger(&["vm", "start", "dev"]).exits(0);
    let kept = home.guest_sh("dev", "cat /root/f /var/kept").exits(0);
    assert_eq!(kept.out(), "fresh\nkept");
    home.finish();
}

/// An init that hears nothing is given its time, then the guest ends in order all the same.
#[test]
fn a_deaf_init_does_not_keep_a_guest_up() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev", "--init", "/bin/cat"])
        .exits(0);
    let seen = home.guest_sh(
        "dev",
        "cat /proc/1/comm; (sleep 0.1 &) ; sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status",
    );
    assert_eq!(seen.out(), "cat", "orphans of commands are collected");
    home.guest_sh("dev", "echo fresh >/root/f").exits(0);
    let began = Instant::now();
    home.banger(&["vm", "stop", "dev"]).exits(0);
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
    let console = home.banger(&["vm", "logs", "dev"]).exits(0).out();
    assert!(console.contains("banger-agent: powering off"), "{console}");
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert_eq!(home.guest_sh("dev", "cat /root/f").exits(0).out(), "fresh");
    home.finish();
}

/// What cannot be PID 1 was never made, with the reason.
#[test]
fn an_image_without_that_init_is_refused() {
    let home = Home::new();
    for (init, why) in [
        ("image", "there is no init 'image' in the image"),
        (
            "/sbin/nothing",
            "there is no init '/sbin/nothing' in the image",
        ),
        ("/etc/passwd", "there is no init '/etc/passwd' in the image"),
    ] {
        let run = home
            .banger(&["vm", "run", "--init", init, "--", "true"])
            .exits(125);
        assert!(run.err().contains(why), "{}", run.err());
        home.assert_no_vms();
    }
    // One that ends at once takes the machine with it, before or after the command was taken.
    let run = home.start(
        &[
            "vm",
            "run",
            "--name",
            "dev",
            "--init",
            "/bin/true",
            "--",
            "sleep",
            "60",
        ],
        b"",
    );
    let error = run.finish().exits(125).err();
    if !error.contains("/failed/") {
        let panicked = || {
            let reason = home.show("dev")["reason"].to_string();
            if reason.contains("Attempted to kill init") {
                Ok(())
            } else {
                Err(reason)
            }
        };
        wait_until(
            "the kernel's panic to be told",
            Duration::from_secs(10),
            panicked,
        );
    }
    home.finish();
}
