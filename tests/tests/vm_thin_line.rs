//! The thin line: command line → daemon → a real kernel → a command's output and status back.

use banger_testkit::Home;

/// R-CLI-1: stdin in, stdout and stderr apart, binary-safe, the command's own exit status.
#[test]
fn run_passes_streams_and_status_through_and_leaves_nothing() {
    let home = Home::new();
    let every_byte: Vec<u8> = (0..=255u8).cycle().take(1 << 20).collect();
    let run = home.banger_with(
        &[
            "vm",
            "run",
            "--rm",
            "--",
            "sh",
            "-c",
            "cat; echo to-stderr >&2; exit 42",
        ],
        &every_byte,
    );
    let run = run.exits(42);
    assert!(
        run.stdout == every_byte,
        "stdout differs from stdin ({} bytes)",
        run.stdout.len()
    );
    assert!(run.err().lines().any(|l| l == "to-stderr"), "{}", run.err());
    assert!(
        run.err().contains("spec:"),
        "the spec line is on stderr: {}",
        run.err()
    );
    home.assert_no_vms();
    home.finish();
}

/// R-GUEST-7: `/root` is a copy of the image's, whether it came with the disk or the guest made it.
#[test]
fn the_work_disk_starts_as_the_images_home() {
    let home = Home::new();
    let look = "cd /root && find . -mindepth 1 ! -name lost+found ! -path './.ssh*' -printf '%p %y %m %U:%G %s %T@ %l\\n' | cut -d. -f1-3 | sort; \
                cat .profile .bashrc; grep ' /root ' /proc/mounts | cut -d' ' -f2,3; stat -c %a:%u .";
    let seen = || {
        let run = home.banger(&["vm", "run", "--rm", "--", "sh", "-c", look]);
        run.exits(0).out().to_owned()
    };
    let brought = seen();
    assert!(brought.contains(".bashrc f 644 0:0 "), "{brought}");
    assert!(brought.ends_with("/root ext4\n755:0"), "{brought}");
    let images = std::fs::read_dir(home.state().join("images")).expect("images");
    let copies = images.map(|image| image.expect("an image").path().join("home.tar"));
    let copies: Vec<_> = copies.filter(|copy| copy.exists()).collect();
    assert!(!copies.is_empty(), "the image has no copy of its /root");
    for copy in copies {
        std::fs::remove_file(copy).expect("the copy");
    }
    std::fs::remove_dir_all(home.state().join("templates")).expect("the templates");
    assert_eq!(seen(), brought);
    home.finish();
}

/// R-CLI-1: 127 not found, 126 not executable, 128+n for a signal.
#[test]
fn exit_statuses_are_those_of_a_shell() {
    let home = Home::new();
    home.banger(&["vm", "run", "--name", "dev", "-d"]).exits(0);
    for (command, status) in [
        (&["no-such-program"][..], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "exit 7"], 7),
        (&["true"], 0),
    ] {
        let args: Vec<&str> = ["vm", "exec", "dev", "--"]
            .iter()
            .chain(command)
            .copied()
            .collect();
        home.banger(&args).exits(status);
    }
    home.finish();
}

/// R-STATE-11, R-HOST-5: stop keeps what was written, start finds it, delete ends it all.
#[test]
fn a_vm_lives_through_stop_and_start_and_dies_by_delete() {
    let home = Home::new();
    let name = home
        .banger(&["vm", "create", "--name", "dev"])
        .exits(0)
        .out();
    assert_eq!(name, "dev");
    home.guest_sh("dev", "echo kept >/root/work; echo kept >/opt/system")
        .exits(0);
    assert_eq!(home.show("dev")["state"], "running");

    home.banger(&["vm", "stop", "dev"]).exits(0);
    assert_eq!(home.show("dev")["state"], "stopped");
    home.banger(&["vm", "exec", "dev", "--", "true"]).exits(125);

    home.banger(&["vm", "start", "dev"]).exits(0);
    let kept = home
        .banger(&[
            "vm",
            "exec",
            "dev",
            "--",
            "cat",
            "/root/work",
            "/opt/system",
        ])
        .exits(0);
    assert_eq!(kept.out(), "kept\nkept");

    let refused = home.banger(&["vm", "delete", "dev"]).exits(125);
    assert!(
        refused.err().contains("--force"),
        "a running VM wants --force: {}",
        refused.err()
    );
    assert_eq!(home.show("dev")["state"], "running");

    home.banger(&["vm", "kill", "dev"]).exits(0);
    assert_eq!(home.show("dev")["state"], "stopped");
    home.banger(&["vm", "delete", "dev"]).exits(0);
    let gone = home.banger(&["vm", "show", "dev"]).exits(125);
    assert!(gone.err().contains("no VM"), "{}", gone.err());
    home.finish();
}

/// R-CLI-2: running ones in `ps`, all in `vm list`, a second VM of a name refused with the way in.
#[test]
fn names_are_unique_and_lists_tell_the_truth() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "a"]).exits(0);
    home.banger(&["vm", "run", "--name", "b", "-d"]).exits(0);
    let again = home
        .banger(&["vm", "run", "--name", "a", "--", "true"])
        .exits(125);
    assert!(
        again.err().contains("already") && again.err().contains("banger vm exec a"),
        "{}",
        again.err()
    );
    home.banger(&["vm", "stop", "a"]).exits(0);
    let names = |run: banger_testkit::Run| -> Vec<String> {
        let json = run.json();
        json.as_array()
            .into_iter()
            .flatten()
            .map(|v| v["name"].as_str().unwrap_or("?").to_owned())
            .collect()
    };
    assert_eq!(names(home.banger(&["ps", "--json"]).exits(0)), ["b"]);
    assert_eq!(
        names(home.banger(&["vm", "list", "--json"]).exits(0)),
        ["a", "b"]
    );
    home.banger(&["vm", "delete", "--force", "a", "b"]).exits(0);
    home.finish();
}
