//! Images of a distribution's packages, made by somebody who is not root (R-IMG-3): they are what root would have made, and
//! nothing is left of one that is cut off, whoever its files belong to.

#![allow(
    clippy::disallowed_methods,
    reason = "tests run the product's programs, as another user"
)]

mod user;

use banger_testkit::{Home, Running, Signal, signal, wait_until};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use user::User;

/// A build takes half a minute on two idle cores.
const BUILD: Duration = Duration::from_secs(150);
/// Longest until what was cut off is gone: a tool gets 2 s to end, then its tree is removed.
const GONE: Duration = Duration::from_secs(30);
/// Longest until the kernel has killed what worked for a daemon that was killed. Without that it would break down by itself, a little
/// later, at the first line that nobody reads.
const KILLED: Duration = Duration::from_secs(1);

/// The tree that is being made, once the packages are being unpacked into it.
fn tree(user: &User) -> PathBuf {
    wait_until("packages to be unpacked", BUILD, || {
        let names = user.files();
        let staging = names.iter().find(|name| name.starts_with(".staging"));
        let root = user
            .images()
            .join(staging.ok_or("no staging directory")?)
            .join("root");
        match root.join("usr/bin/dpkg").exists() {
            true => Ok(root),
            false => Err(format!("no dpkg in {}", root.display())),
        }
    })
}

/// A full directory that only one of the user's further ids may enter.
fn plant(user: &User, root: &Path) {
    let foreign = root.join("foreign");
    fs::create_dir(&foreign).expect("a directory");
    fs::write(foreign.join("file"), "x").expect("a file");
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).expect("a mode");
    for path in [foreign.join("file"), foreign] {
        chown(path, Some(user.further(6)), Some(user.further(6))).expect("an owner");
    }
}

#[track_caller]
fn nothing_is_left(user: &User) {
    wait_until("nothing to be left", GONE, || {
        let files = user.files();
        let mut building = user.processes();
        building.retain(|(_, line)| !line.contains("bangerd"));
        match files.is_empty() && building.is_empty() {
            true => Ok(()),
            false => Err(format!("{files:?} {building:?}")),
        }
    });
}

#[test]
fn a_user_without_further_ids_is_told_how_to_get_them() {
    let Some(user) = User::new(false) else { return };
    let refused = user.banger(&["image", "build", "--name", "x"]).exits(125);
    let told = refused.err();
    assert!(
        told.contains("/etc/subuid and /etc/subgid give 'tester' fewer"),
        "{told}"
    );
    let hint = "hint: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 tester;";
    assert!(told.contains(hint), "{told}");
    let rows = user.banger(&["doctor", "--json"]).json();
    let rows = rows.as_array().expect("rows");
    let row = rows.iter().find(|row| row["what"] == "default image");
    let seen = row.and_then(|row| row["seen"].as_str()).expect("a row");
    assert!(seen.contains("/etc/subuid"), "{seen}");
    assert_eq!(user.files(), Vec::<String>::new());
    user.banger(&["daemon", "stop"]).exits(0);
}

#[test]
fn nothing_is_left_of_a_users_build_that_is_killed_cancelled_or_fails() {
    let Some(user) = User::new(true) else { return };
    let build = ["image", "build", "--name", "x"];

    let mut killed = user.start(&build);
    plant(&user, &tree(&user));
    user.kill_daemon();
    wait_until("all that worked for the daemon to be dead", KILLED, || {
        let mut left = user.processes();
        left.retain(|(pid, _)| *pid != killed.pid());
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    });
    killed.kill();
    assert_ne!(killed.finish().status, 0);
    assert_ne!(
        user.files(),
        Vec::<String>::new(),
        "the next daemon has something to do"
    );
    user.banger(&["image", "list"]).exits(0);
    nothing_is_left(&user);

    let cancelled = user.start(&build);
    plant(&user, &tree(&user));
    signal(cancelled.pid(), Signal::INT);
    let ended = cancelled.finish_within(GONE);
    assert_eq!(ended.status, 130, "{}", ended.err());
    nothing_is_left(&user);

    let nonsuch = ["--package", "there-is-no-such-package"];
    let failed = user.banger(&[&build[..], &nonsuch].concat()).exits(125);
    assert!(
        failed.err().contains("there-is-no-such-package"),
        "{}",
        failed.err()
    );
    nothing_is_left(&user);
    user.banger(&["daemon", "stop"]).exits(0);
}

#[test]
fn an_image_that_a_user_builds_has_the_owners_that_its_packages_say() {
    let Some(user) = User::new(true) else { return };
    let packages = ["--package", "man-db", "--package", "iputils-ping"];
    let build = [
        &["image", "build", "--name", "tools", "--json"][..],
        &packages,
    ]
    .concat();
    let built = user.start(&build).finish_within(BUILD).exits(0).json();
    assert_eq!(built["names"], json!(["tools"]));
    let id = built["id"].as_str().expect("an id");
    assert_eq!(user.files(), [id], "the image and nothing else");
    let rootfs = user.images().join(id).join("rootfs.ext4");
    for (path, mode, uid, gid) in [
        ("/", "0755", 0, 0),
        ("/usr/bin/passwd", "04755", 0, 0),
        ("/usr/bin/chage", "02755", 0, 42),
        ("/etc/shadow", "0640", 0, 42),
        ("/var/mail", "02775", 0, 8),
        ("/var/cache/man", "0755", 6, 12),
        ("/root", "0700", 0, 0),
    ] {
        let told = debugfs(&rootfs, &format!("stat {path}"));
        let words: Vec<&str> = told.split_whitespace().collect();
        let of = |key: &str| {
            let at = words.iter().position(|word| *word == key);
            at.and_then(|at| words.get(at + 1).copied())
        };
        let (uid, gid) = (uid.to_string(), gid.to_string());
        let seen = (of("Mode:"), of("User:"), of("Group:"));
        assert_eq!(
            seen,
            (Some(mode), Some(&*uid), Some(&*gid)),
            "{path}: {told}"
        );
    }
    // CAP_NET_RAW, permitted and effective, as the file system of the machine would have it: version 2, of no namespace.
    let capability = debugfs(&rootfs, "ea_get -x /usr/bin/ping security.capability");
    assert!(
        capability.contains("01 00 00 02 00 20 00 00"),
        "{capability}"
    );
    user.banger(&["daemon", "stop"]).exits(0);
}

fn debugfs(rootfs: &Path, request: &str) -> String {
    let mut command = Command::new("debugfs");
    command.args(["-R", request]).arg(rootfs);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    Running::start(command, b"").finish().exits(0).out()
}

#[test]
#[ignore = "three builds take minutes; ./soak runs it"]
fn whoever_builds_it_the_same_packages_are_the_same_image() {
    let Some(user) = User::new(true) else { return };
    let id = |built: serde_json::Value| built["id"].as_str().expect("an id").to_owned();
    let build = ["image", "build", "--name", "x", "--json", "--replace"];
    let of_user = || id(user.start(&build).finish_within(BUILD).exits(0).json());
    let once = of_user();
    user.banger(&["image", "delete", "x"]).exits(0);
    assert_eq!(of_user(), once, "twice by a user");
    user.banger(&["daemon", "stop"]).exits(0);

    let home = Home::bare();
    let of_root = id(home.start(&build, b"").finish_within(BUILD).exits(0).json());
    assert_eq!(of_root, once, "by root");
    home.finish();
}
