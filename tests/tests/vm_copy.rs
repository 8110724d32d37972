//! `vm cp` both ways (R-CLI-2, R-GUEST-2): what a copy keeps, tar streams, what is refused, and what goes on meanwhile.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A tree with what copies tend to lose.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("empty")).expect("a tree");
    fs::write(root.join("tool"), "#!/bin/sh\necho ran\n").expect("a tree");
    fs::set_permissions(root.join("tool"), Permissions::from_mode(0o4750)).expect("a tree");
    fs::hard_link(root.join("tool"), root.join("again")).expect("a tree");
    symlink("../elsewhere", root.join("link")).expect("a tree");
    fs::write(root.join("two\nlines"), "x").expect("a tree");
    let sparse = File::create(root.join("sparse")).expect("a tree");
    sparse.write_all_at(b"end", (10 << 30) - 3).expect("a tree");
    let old = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    sparse.set_modified(old).expect("a tree");
}

#[test]
fn files_go_in_and_come_out_as_they_were() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let here = home.scratch();
    let (from, back) = (here.join("from"), here.join("back"));
    tree(&from);
    home.banger(&["vm", "cp", text(&from), "dev:"]).exits(0);
    let seen = home.guest_sh(
        "dev",
        "cd /root/from && stat -c '%a %u %h' tool && readlink link && ls -d empty && \
         stat -c '%s %b %.9Y' sparse && tail -c 3 sparse && echo && ls | grep -c lines",
    );
    let lines = seen.exits(0).out();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[..3], ["750 0 2", "../elsewhere", "empty"]);
    let sparse: Vec<&str> = lines[3].split(' ').collect();
    assert_eq!(
        (sparse[0], sparse[2]),
        ("10737418240", "1000000000.123456789")
    );
    assert!(sparse[1].parse::<u64>().expect("blocks") < 100, "{lines:?}");
    assert_eq!(lines[4..], ["end", "1"]);

    home.banger(&["vm", "cp", "dev:from", text(&back)]).exits(0);
    let tool = fs::metadata(back.join("tool")).expect("a tool");
    assert_eq!((tool.mode() & 0o7777, tool.nlink()), (0o750, 2));
    assert_eq!(tool.uid(), rustix::process::getuid().as_raw());
    let sparse = fs::metadata(back.join("sparse")).expect("a file with a hole");
    assert!(
        sparse.len() == 10 << 30 && sparse.blocks() < 100,
        "{sparse:?}"
    );
    assert_eq!(
        (sparse.mtime(), sparse.mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
    assert_eq!(
        fs::read_link(back.join("link")).expect("a link"),
        Path::new("../elsewhere")
    );
    assert_eq!(fs::read(back.join("two\nlines")).expect("a file"), b"x");

    // Into an existing directory under its name; contents with `/.`; one file under another name.
    home.banger(&["vm", "cp", "dev:from", text(&back)]).exits(0);
    assert!(back.join("from/empty").is_dir());
    home.banger(&["vm", "cp", &format!("{}/.", text(&from)), "dev:/srv/new"])
        .exits(0);
    home.banger(&[
        "vm",
        "cp",
        text(&from.join("tool")),
        "dev:/usr/local/bin/called",
    ])
    .exits(0);
    assert_eq!(
        home.guest_sh("dev", "ls /srv/new/tool >/dev/null; called")
            .exits(0)
            .out(),
        "ran"
    );
    // Files that do not know their size.
    home.banger(&[
        "vm",
        "cp",
        "dev:/proc/sys/kernel/random/boot_id",
        text(&here.join("id")),
    ])
    .exits(0);
    assert_eq!(fs::metadata(here.join("id")).expect("an id").len(), 37);

    tar_streams(&home, &from);
    refusals(&home, &from);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// `-` as either side, owners kept with `-a`, and setuid only with them.
fn tar_streams(home: &Home, from: &Path) {
    let archive = Command::new("tar")
        .args([
            "c",
            "--sparse",
            "--owner=1234",
            "--group=4321",
            "-C",
            text(from),
            "tool",
            "empty",
        ])
        .stdin(Stdio::null())
        .output()
        .expect("tar");
    home.guest_sh("dev", "mkdir -p /srv/a /srv/b").exits(0);
    home.banger_with(&["vm", "cp", "-", "dev:/srv/a"], &archive.stdout)
        .exits(0);
    home.banger_with(&["vm", "cp", "-a", "-", "dev:/srv/b"], &archive.stdout)
        .exits(0);
    let owners = home
        .guest_sh("dev", "stat -c %u:%g:%a /srv/a/tool /srv/b/tool")
        .exits(0);
    assert_eq!(owners.out(), "0:0:750\n1234:4321:4750");
    let out = home.banger(&["vm", "cp", "dev:/srv/b", "-"]).exits(0);
    let path = home.scratch().join("out.tar");
    fs::write(&path, &out.stdout).expect("an archive");
    let listed = Command::new("tar")
        .args(["tv", "--numeric-owner", "-f", text(&path)])
        .output()
        .expect("tar");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("1234/4321") && listed.contains(" b/tool"),
        "{listed}"
    );
}

/// What cannot be copied says which file and why, and leaves what was there.
fn refusals(home: &Home, from: &Path) {
    home.guest_sh(
        "dev",
        "mkdir -p /srv/odd && mkfifo /srv/odd/pipe && echo kept >/srv/odd/f && \
        mkdir -p /mnt/small && mount -t tmpfs -o size=1M none /mnt/small && echo old >/mnt/small/f",
    )
    .exits(0);
    let odd = home.scratch().join("odd");
    let warned = home
        .banger(&["vm", "cp", "dev:/srv/odd", text(&odd)])
        .exits(0);
    assert!(
        warned
            .err()
            .contains("/srv/odd/pipe' is a fifo and left out"),
        "{}",
        warned.err()
    );
    assert_eq!(fs::read(odd.join("f")).expect("a file"), b"kept\n");
    let big = home.scratch().join("f");
    fs::write(&big, vec![1; 8 << 20]).expect("a file");
    for (args, says) in [
        (
            ["vm", "cp", "dev:/no/such", text(&odd)],
            "'/no/such': No such file",
        ),
        (
            ["vm", "cp", text(&big), "dev:/mnt/small"],
            "/mnt/small/f': No space left on device",
        ),
        (["vm", "cp", text(from), "dev:/mnt/small/f"], "onto a file"),
        (["vm", "cp", text(&big), "dev:/mnt/none/"], "no directory"),
        (["vm", "cp", text(from), text(&odd.join("x"))], "VM:PATH"),
        (["vm", "cp", "nobody:x", text(&odd)], "no VM"),
        (["vm", "cp", "-a", "dev:x"], "required"),
    ] {
        let refused = home.banger(&args);
        assert!(
            matches!(refused.status, 125 | 2),
            "{args:?}: {}",
            refused.status
        );
        assert!(refused.err().contains(says), "{args:?}: {}", refused.err());
    }
    let left = home
        .guest_sh("dev", "ls -A /mnt/small; cat /mnt/small/f")
        .exits(0);
    assert_eq!(
        left.out(),
        "f\nold",
        "a file that did not fit replaced nothing and left nothing"
    );
    hostile(home);
}

/// A directory of the guest's is not written through a link of ours. (What a hostile agent might send is in
/// `tree/tests/trees.rs`: no agent of ours sends it.)
fn hostile(home: &Home) {
    let target = home.scratch().join("target");
    let outside = home.scratch().join("outside");
    fs::create_dir_all(target.join("tree")).expect("a directory");
    fs::create_dir(&outside).expect("a directory");
    symlink(&outside, target.join("tree/sub")).expect("a link");
    home.guest_sh("dev", "mkdir -p /srv/tree/sub && echo bad >/srv/tree/sub/f")
        .exits(0);
    let refused = home
        .banger(&["vm", "cp", "dev:/srv/tree", text(&target)])
        .exits(125);
    assert!(refused.err().contains("sub"), "{}", refused.err());
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}

/// R-GUEST-2: a big copy and one that stands still hinder nobody; one that is interrupted leaves nothing.
#[test]
fn commands_are_answered_while_files_are_copied() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let big = home.scratch().join("big");
    let size = 192 << 20;
    let data: Vec<u8> = (0..size)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&big, &data).expect("a big file");
    home.guest_sh("dev", "head -c 64M /dev/zero >/srv/hog")
        .exits(0);
    // One that nobody reads.
    let mut stalled = home
        .command(&["vm", "cp", "dev:/srv/hog", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("banger");
    let copy = home.start(&["vm", "cp", text(&big), "dev:/root/big"], b"");
    let began = Instant::now();
    let mut answered = 0;
    wait_until("the copy to end", Duration::from_secs(180), || {
        let names = home.guest_sh("dev", "ls -A /root").exits(0).out();
        answered += u32::from(names.contains("banger-cp"));
        let there = names.lines().any(|name| name == "big");
        there.then_some(()).ok_or(names)
    });
    let run = copy.finish().exits(0);
    let took = began.elapsed();
    println!(
        "{} MiB in {took:?} at most, {answered} commands meanwhile",
        size >> 20
    );
    assert!(run.stdout.is_empty());
    assert!(answered >= 1, "no command was answered during the copy");
    let sum = home.guest_sh("dev", "cksum </root/big").exits(0).out();
    let ours = Command::new("cksum")
        .stdin(File::open(&big).expect("a file"))
        .output()
        .expect("cksum");
    assert_eq!(sum, String::from_utf8_lossy(&ours.stdout).trim_end());

    // Interrupted on the way out: the file that was there stays, and nothing else is left.
    let target = home.scratch().join("target");
    fs::create_dir(&target).expect("a directory");
    fs::write(target.join("big"), "old").expect("a file");
    let copy = home.start(&["vm", "cp", "dev:big", text(&target)], b"");
    wait_until("the copy to begin", Duration::from_secs(60), || {
        let names = fs::read_dir(&target).expect("a directory").count();
        (names == 2)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
    let pid = Pid::from_raw(copy.pid().cast_signed()).expect("a process");
    kill_process(pid, Signal::INT).expect("a signal");
    copy.finish().exits(130);
    assert_eq!(fs::read(target.join("big")).expect("a file"), b"old");
    assert_eq!(fs::read_dir(&target).expect("a directory").count(), 1);

    // Killed on the way in: the guest tidies up by itself.
    let mut copy = home.start(&["vm", "cp", text(&big), "dev:/root/other"], b"");
    wait_until("the copy to begin", Duration::from_secs(60), || {
        let begun = home
            .guest_sh("dev", "ls -A /root | grep -c banger-cp")
            .out();
        (begun == "1").then_some(()).ok_or(begun)
    });
    copy.kill();
    copy.finish();
    wait_until("the guest to tidy up", Duration::from_secs(30), || {
        let names = home
            .guest_sh("dev", "ls -A /root | grep -e banger-cp -e other; true")
            .out();
        names.is_empty().then_some(()).ok_or(names)
    });
    stalled.kill().expect("a copy that stands still");
    stalled.wait().expect("its end");

    // The VM dies under a copy: that is no success.
    let copy = home.start(&["vm", "cp", "dev:big", text(&target)], b"");
    wait_until("the copy to begin", Duration::from_secs(60), || {
        let names = fs::read_dir(&target).expect("a directory").count();
        (names == 2)
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    });
    home.banger(&["vm", "kill", "dev"]).exits(0);
    let cut = copy.finish().exits(125);
    assert!(
        cut.err().contains("before the copy was complete"),
        "{}",
        cut.err()
    );
    assert_eq!(fs::read(target.join("big")).expect("a file"), b"old");
    assert_eq!(fs::read_dir(&target).expect("a directory").count(), 1);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}

/// R-CLI-6: a daemon that is stopped waits for a copy that is under way.
#[test]
fn stopping_the_daemon_lets_a_copy_end() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "mkdir /srv/in").exits(0);
    let from = home.scratch().join("from");
    fs::create_dir(&from).expect("a directory");
    fs::write(from.join("file"), vec![7; 4 << 20]).expect("a file");
    let archive = Command::new("tar")
        .args(["-c", "-C", text(&from), "file"])
        .output()
        .expect("tar")
        .stdout;
    let (first, rest) = archive.split_at(2 << 20);
    let mut copy = home
        .command(&["vm", "cp", "-", "dev:/srv/in"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("banger");
    let mut input = copy.stdin.take().expect("stdin");
    input.write_all(first).expect("input");
    wait_until("the copy to begin", Duration::from_secs(60), || {
        let names = home.guest_sh("dev", "ls -A /srv/in").out();
        names.contains("banger-cp").then_some(()).ok_or(names)
    });
    let stop = home.start(&["daemon", "stop"], b"");
    // Its socket goes first: from then on it drains.
    wait_until("the daemon to drain", Duration::from_secs(10), || {
        let there = home.runtime().join("bangerd.sock").exists();
        (!there).then_some(()).ok_or("its socket".to_owned())
    });
    // Longer than answers are waited for.
    std::thread::sleep(Duration::from_secs(1));
    input.write_all(rest).expect("input");
    drop(input);
    assert_eq!(copy.wait().expect("its status").code(), Some(0));
    stop.finish().exits(0);
    let size = home.guest_sh("dev", "stat -c %s /srv/in/file").exits(0);
    assert_eq!(size.out(), "4194304");
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.finish();
}
