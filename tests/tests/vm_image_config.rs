//! R-CLI-1, R-GUEST-1: an image is run as its builder said, whatever it is made of.

use banger_testkit::{Home, wait_until};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long something in a guest may take that is about to happen.
const SOON: Duration = Duration::from_secs(20);

/// What runs `--entrypoint` of the image `web`: it says how it is run, and serves until it is asked to end as its image
/// says.
const ENTRY: &str = r#"#!/bin/sh
echo "$0 $* in $PWD as $(id -un):$(id -gn) $LEVEL"
[ "$1" = serve ] || exit 7
trap 'echo asked > /srv/asked; sleep 1; echo ended > /srv/asked; exit 0' QUIT
trap '' TERM
echo up > /srv/up
while :; do sleep 0.05; done
"#;

#[allow(clippy::disallowed_methods, reason = "a tar as a user would make it")]
fn tar(dir: &Path, to: &Path) {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(to)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .status()
        .expect("tar");
    assert!(status.success(), "a tar of {}", dir.display());
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `docker save` writes of an image of one layer with this root and this configuration.
fn archive(home: &Home, name: &str, root: &Path, config: &Value) -> PathBuf {
    let dir = home.scratch().join(format!("{name}-saved"));
    fs::create_dir_all(&dir).expect("a directory");
    let layer = dir.join("layer.tar");
    tar(root, &layer);
    let digest = hex(&fs::read(&layer).expect("the layer"));
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": arch, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"]}]);
    for (file, text) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(dir.join(file), text.to_string()).expect("a file");
    }
    let saved = home.scratch().join(format!("{name}.tar"));
    tar(&dir, &saved);
    saved
}

fn import(home: &Home, name: &str, source: &Path) {
    let source = source.display().to_string();
    home.banger(&["image", "import", &source, "--name", name])
        .exits(0);
}

fn root(home: &Home, name: &str, dirs: &[&str]) -> PathBuf {
    let root = home.scratch().join(name);
    for dir in dirs {
        fs::create_dir_all(root.join(dir)).expect("a tree");
    }
    root
}

/// An image of one static program and nothing else: no shell where one is looked for, no `/etc/passwd`, no directory it
/// begins in.
#[test]
fn an_image_of_one_program_runs() {
    let home = Home::new();
    let dir = root(&home, "scratch", &["opt/bin"]);
    fs::copy("/bin/busybox", dir.join("busybox")).expect("busybox-static is installed");
    symlink("/busybox", dir.join("opt/bin/id")).expect("a link");
    let config = json!({
        "Entrypoint": ["/busybox"], "Cmd": ["env"], "User": "1234:77", "WorkingDir": "/not/there",
        "Env": ["PATH=/opt/bin", "LEVEL=image"], "ExposedPorts": {"80/tcp": {}},
    });
    import(&home, "one", &archive(&home, "one", &dir, &config));
    let bare = home.scratch().join("bare.tar");
    tar(&dir, &bare);
    import(&home, "bare", &bare);

    // What says no program is refused before there is a VM.
    let refused = home
        .banger(&["run", "--image", "bare", "--entrypoint"])
        .exits(125)
        .err();
    for says in [
        "the image names no program",
        "hint: name one: banger vm run",
    ] {
        assert!(refused.contains(says), "no {says:?} in {refused}");
    }
    home.assert_no_vms();

    let run = [
        "run",
        "--name",
        "one",
        "--image",
        "one",
        "--entrypoint",
        "-e",
        "EXTRA=1",
    ];
    let out = home.banger(&run).exits(0).out();
    for says in ["PATH=/opt/bin", "LEVEL=image", "EXTRA=1", "HOME=/root"] {
        assert!(out.lines().any(|line| line == says), "no {says} in {out}");
    }
    let exec = |words: &[&str]| home.banger(&[&["vm", "exec"], words].concat());
    // A command is looked up where the image says, and runs as root in root's home.
    assert_eq!(exec(&["one", "--", "id", "-u"]).exits(0).out(), "0");
    assert_eq!(
        exec(&["one", "--", "/busybox", "pwd"]).exits(0).out(),
        "/root"
    );
    assert_eq!(
        exec(&["-u", "image", "one", "--", "id", "-u"])
            .exits(0)
            .out(),
        "1234"
    );
    assert_eq!(
        exec(&["-u", "image", "one", "--", "id", "-G"])
            .exits(0)
            .out(),
        "77"
    );
    let words = ["-e", "LEVEL=mine", "one", "--", "/busybox", "env"];
    let mine = exec(&words).exits(0).out();
    assert!(mine.lines().any(|line| line == "LEVEL=mine"), "{mine}");
    let unknown = exec(&["-u", "web", "one", "--", "id"]).exits(126).err();
    assert!(
        unknown.contains("user \"web\" is not in the guest's /etc/passwd"),
        "{unknown}"
    );
    let missing = exec(&["one", "--", "sh"]).exits(127).err();
    assert!(missing.contains("(PATH is /opt/bin)"), "{missing}");

    let shown = home.show("one");
    assert_eq!(shown["image_config"]["user"], "1234:77");
    let text = home.banger(&["vm", "show", "one"]).exits(0).out();
    for says in [
        "image entrypoint  [\"/busybox\"]",
        "image ports       80/tcp",
    ] {
        assert!(text.contains(says), "no {says:?} in {text}");
    }

    // A shell is what it has not.
    let bare = home
        .banger(&["run", "--name", "bare", "--image", "one"])
        .exits(127)
        .err();
    for says in [
        "the image has no shell: sh: command not found in the guest (PATH is /opt/bin)",
        "-- PROGRAM ARGUMENT…, or --entrypoint",
        "banger vm exec bare -- PROGRAM",
    ] {
        assert!(bare.contains(says), "no {says:?} in {bare}");
    }
    home.finish();
}

/// An image with a shell and users, whose program is asked to end in its own way.
fn web(home: &Home) {
    let dir = root(home, "web", &["bin", "etc", "srv", "root", "tmp"]);
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "id", "sleep", "cat"] {
        symlink("busybox", dir.join("bin").join(name)).expect("a link");
    }
    let mode = |path: &str, mode| {
        fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    fs::write(dir.join("entry.sh"), ENTRY).expect("a file");
    mode("entry.sh", 0o755);
    mode("srv", 0o777);
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/false\n";
    fs::write(dir.join("etc/passwd"), passwd).expect("a file");
    fs::write(dir.join("etc/group"), "root:x:0:\nweb:x:33:\nwww:x:34:\n").expect("a file");
    fs::write(dir.join("etc/profile"), "export PATH=/of/the/profile\n").expect("a file");
    let config = json!({
        "Entrypoint": ["/entry.sh"], "Cmd": ["serve"], "User": "web:www", "WorkingDir": "/srv",
        "Env": ["PATH=/bin:/image/bin", "LEVEL=image"], "StopSignal": "SIGQUIT",
    });
    import(home, "web", &archive(home, "web", &dir, &config));
}

#[test]
fn an_image_is_run_as_its_builder_said_and_as_its_user_says() {
    let home = Home::new();
    web(&home);
    let image = ["run", "--rm", "--image", "web"];
    let run = |words: &[&str]| home.banger(&[&image, words].concat());
    let words = [
        "--entrypoint",
        "-u",
        "image",
        "-w",
        "/tmp",
        "-e",
        "LEVEL=mine",
        "--",
        "once",
        "more",
    ];
    assert_eq!(
        run(&words).exits(7).out(),
        "/entry.sh once more in /tmp as web:www mine"
    );

    // A shell has the PATH of the image, and not that of its /etc/profile.
    let shell = home
        .banger_with(&image, b"echo $PATH; id -u; pwd\n")
        .exits(0)
        .out();
    assert_eq!(shell, "/bin:/image/bin\n0\n/root");

    let refused = run(&["-d", "--entrypoint"]).exits(2).err();
    assert!(refused.contains("cannot be used with"), "{refused}");
    let detached = [
        "run",
        "-d",
        "--name",
        "srv",
        "--image",
        "web",
        "--entrypoint",
        "-u",
        "image",
    ];
    // What cannot be started is told, though nobody attends to it, and so is the VM that was made for it.
    let nothing = [
        "run", "-d", "--name", "none", "--image", "web", "--", "/none",
    ];
    let failed = home.banger(&nothing).exits(127);
    assert_eq!(failed.out(), "");
    for says in ["/none: no such file in the guest", "VM 'none' stays"] {
        assert!(failed.err().contains(says), "{}", failed.err());
    }
    assert_eq!(home.banger(&detached).exits(0).out(), "srv");
    let cat = |file: &str| {
        let run = home.banger(&["vm", "exec", "srv", "--", "cat", file]);
        if run.out().is_empty() {
            Err(run.err())
        } else {
            Ok(run.out())
        }
    };
    assert_eq!(
        wait_until("the entrypoint to be up", SOON, || cat("/srv/up")),
        "up"
    );
    let began = Instant::now();
    home.banger(&["vm", "stop", "srv"]).exits(0);
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(6),
        "it had ended after 1 s, and was waited for {took:?}"
    );
    home.banger(&["vm", "start", "srv"]).exits(0);
    assert_eq!(cat("/srv/asked"), Ok("ended".to_owned()));
    home.finish();
}
