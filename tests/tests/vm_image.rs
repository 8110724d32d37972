//! Images a user brings along: imported, booted, kept while a VM uses them, and gone without a trace.

use banger_testkit::Home;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest a test waits for something the daemon does by itself.
const SOON: Duration = Duration::from_secs(60);

/// A root file system of one static program.
fn tree(home: &Home) -> PathBuf {
    let root = home.scratch().join("root-fs");
    if root.is_dir() {
        return root;
    }
    for dir in ["bin", "etc", "root/sub", "usr/lib"] {
        fs::create_dir_all(root.join(dir)).expect("a tree");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for (text, link) in [
        ("busybox", "bin/sh"),
        ("busybox", "bin/cat"),
        ("busybox", "bin/id"),
    ] {
        std::os::unix::fs::symlink(text, root.join(link)).expect("a symlink");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
    fs::write(root.join("root/sub/marker"), "of the image\n").expect("a file");
    root
}

#[allow(
    clippy::disallowed_methods,
    reason = "a tar and a file system as a user would make them"
)]
fn shell(words: &str) {
    let status = Command::new("sh")
        .args(["-ec", words])
        .status()
        .expect("sh");
    assert!(status.success(), "{words}");
}

fn tar(home: &Home, flags: &str, name: &str) -> String {
    let (root, path) = (tree(home), home.scratch().join(name));
    shell(&format!(
        "tar -C {} {flags} {} .",
        root.display(),
        path.display()
    ));
    path.display().to_string()
}

/// What is in the directory of images besides images.
fn left_of_imports(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.state().join("images"));
    let names = entries.into_iter().flatten().flatten();
    let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .filter(|n| n.starts_with(".staging") || n.starts_with(".trash"))
        .collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "waited {SOON:?} until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_imported_tar_boots_and_stays_while_a_vm_uses_it() {
    let home = Home::new();
    let path = tar(&home, "-czf", "box.tar.gz");
    let imported = home.banger(&["image", "import", &path]).exits(0);
    let id = imported.out();
    assert!(
        imported.err().contains("image: receiving"),
        "{}",
        imported.err()
    );

    let words = "cat /root/sub/marker; id -u";
    let run = ["run", "--rm", "--image", "box", "--", "sh", "-c", words];
    assert_eq!(home.banger(&run).exits(0).out(), "of the image\n0");

    home.banger(&["vm", "create", "--name", "dev", "--image", &id[..5]])
        .exits(0);
    assert_eq!(home.show("dev")["image_id"], id.as_str());
    assert_eq!(home.show("dev")["image"], "box");
    let shown = home
        .banger(&["image", "show", "box", "--json"])
        .exits(0)
        .json();
    assert_eq!(shown[0]["used_by"], serde_json::json!(["dev"]));
    assert!(shown[0]["disk_usage"].as_u64() > Some(0));
    for how in [vec!["box"], vec!["--force", "box"]] {
        let delete = [vec!["image", "delete"], how].concat();
        let refused = home.banger(&delete).exits(125).err();
        for says in ["is used by VM 'dev'", "hint: banger vm delete --force dev"] {
            assert!(refused.contains(says), "no {says:?} in {refused}");
        }
    }
    // A stopped VM pins it as well.
    home.banger(&["vm", "kill", "dev"]).exits(0);
    home.banger(&["image", "delete", &id]).exits(125);
    home.banger(&["vm", "delete", "dev"]).exits(0);
    let templates = || {
        fs::read_dir(home.state().join("templates"))
            .into_iter()
            .flatten()
            .flatten()
    };
    let of_it = || {
        templates()
            .filter(|e| e.file_name().to_string_lossy().contains(&id))
            .count()
    };
    assert!(of_it() > 0, "work disks of it were made from a template");
    assert_eq!(home.banger(&["image", "delete", "box"]).exits(0).out(), id);
    assert_eq!(of_it(), 0, "templates go with their image");
    let gone = home
        .banger(&["run", "--image", &id, "--", "true"])
        .exits(125)
        .err();
    assert!(
        gone.contains(&format!("no image is called '{id}'"))
            && gone.contains("hint: there are: debian"),
        "{gone}"
    );
    assert!(left_of_imports(&home).is_empty());
    home.finish();
}

#[test]
fn a_directory_and_an_ext4_file_boot_too() {
    let home = Home::new();
    let root = tree(&home);
    let from_dir = home.banger(&[
        "image",
        "import",
        &root.display().to_string(),
        "--name",
        "dir",
    ]);
    from_dir.exits(0);
    let disk = home.scratch().join("disk.ext4");
    shell(&format!(
        "mke2fs -q -t ext4 -d {} {} 32M",
        root.display(),
        disk.display()
    ));
    let bytes = fs::read(&disk).expect("the file");
    home.banger_with(
        &["image", "import", "-", "--name", "disk", "--tag", "again"],
        &bytes,
    )
    .exits(0);
    for name in ["dir", "disk", "again"] {
        let run = [
            "run",
            "--rm",
            "--image",
            name,
            "--",
            "cat",
            "/root/sub/marker",
        ];
        assert_eq!(home.banger(&run).exits(0).out(), "of the image", "{name}");
    }
    // Refused at once, and who is still sending gets to read why.
    let taken = ["image", "import", "-", "--name", "disk"];
    let refused = home.banger_with(&taken, &bytes).exits(125).err();
    for says in ["an image named 'disk' already exists", "--replace"] {
        assert!(refused.contains(says), "no {says:?} in {refused}");
    }
    let mut cut = bytes.clone();
    cut.truncate(20 << 20);
    let refused = home.banger_with(&["image", "import", "-", "--name", "cut"], &cut);
    assert!(refused.exits(125).err().contains("cut short"));
    // A directory that cannot be read whole is none.
    let blocked = home.banger(&[
        "image",
        "import",
        "/proc/1/task/1/fd/nothing",
        "--name",
        "x",
    ]);
    assert!(blocked.exits(125).err().contains("cannot open"));
    home.finish();
}

/// An import whose sender holds still after half of the archive.
fn half_import(home: &Home, name: &str) -> Child {
    let path = tar(home, "-cf", "half.tar");
    let bytes = fs::read(Path::new(&path)).expect("the archive");
    let mut command = home.command(&["image", "import", "-", "--name", name]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("an import");
    let half = &bytes[..bytes.len() / 2];
    let stdin = child.stdin.as_mut().expect("its stdin");
    stdin.write_all(half).expect("half of it");
    until("the import has begun", || !left_of_imports(home).is_empty());
    child
}

fn assert_nothing_of_it(home: &Home) {
    until("nothing is left of it", || left_of_imports(home).is_empty());
    let listed = home.banger(&["image", "list", "--json"]).exits(0).json();
    assert_eq!(
        listed.as_array().map(Vec::len),
        Some(1),
        "only the default image: {listed}"
    );
}

/// R-IMG-5: whoever is interrupted or killed, nothing is registered and nothing stays.
#[test]
fn an_import_that_is_interrupted_or_killed_leaves_nothing() {
    let home = Home::new();
    home.banger(&["vm", "list"]).exits(0);
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let mut child = half_import(&home, "half");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("the import");
        child.wait().expect("its end");
        assert_nothing_of_it(&home);
    }
    // An import that waits for its sender can be cancelled by another client.
    let mut child = half_import(&home, "half");
    home.banger(&["daemon", "stop"]).exits(0);
    let ended = child.wait().expect("its end");
    assert_eq!(ended.code(), Some(125));
    assert_nothing_of_it(&home);

    let mut child = half_import(&home, "half");
    home.kill_daemon();
    assert_eq!(child.wait().expect("its end").code(), Some(125));
    assert!(
        !left_of_imports(&home).is_empty(),
        "a killed daemon clears nothing"
    );
    home.banger(&["image", "list"]).exits(0);
    assert_nothing_of_it(&home);
    home.finish();
}
