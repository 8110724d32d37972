//! `vm cp` out of a VM that is down: what its disks hold is what came out while it ran.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests run the product's programs"
)]

use banger_testkit::{Home, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Every kind of change, in the image's tree and in the work disk.
const CHANGES: &str = "set -e
    mkdir -p /srv/kinds/empty; cd /srv/kinds; echo text >file; ln file again; ln -s /etc/passwd link; mkfifo pipe
    chmod 4751 file; chown 1234:100000 file; touch -d '2001-02-03 04:05:06.789' file; mknod null c 1 3
    truncate -s 3G sparse; echo end >>sparse; head -c 48M /dev/zero >/var/tmp/zeros; printf 'two\\nlines' >'two
lines'
    rm -r /usr/share/doc/base-files; mkdir /usr/share/doc/base-files; echo new >/usr/share/doc/base-files/new
    mv /usr/share/doc /usr/share/doc.moved; echo in >/usr/share/doc.moved/in; mv /usr/share/doc.moved /srv/doc
    rm /etc/issue; echo more >>/etc/passwd; chmod 700 /etc/cron.d 2>/dev/null || true; mv /etc/profile /etc/profile.old
    mkdir -p /root/work/deep; echo mine >/root/work/deep/file; ln -s ../deep /root/work/deep/up
    mkdir -p /var/lib/docker/overlay2; echo layer >/var/lib/docker/overlay2/x; sync";

/// What is compared, and where it lies.
const PLACES: &[&str] = &[
    "/srv",
    "/etc",
    "/root",
    "/var/lib/docker",
    "/usr/sbin",
    "/run/nothing",
];

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What comes out at each place: the archive's tree line by line, or what is said instead.
fn out(home: &Home, dir: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (at, place) in PLACES.iter().enumerate() {
        let run = home.banger(&["vm", "cp", &format!("dev:{place}"), "-"]);
        let mut said: Vec<String> = run.err().lines().map(str::to_owned).collect();
        said.sort();
        all.push(format!("{place}: {} {said:?}", run.status));
        if run.status != 0 {
            continue;
        }
        let tree = home.scratch().join(format!("{dir}{at}"));
        fs::create_dir(&tree).expect("a directory");
        let archive = tree.with_extension("tar");
        fs::write(&archive, &run.stdout).expect("an archive");
        let listed = Command::new("sh")
            .args(["-euc", LIST, "sh", text(&archive), text(&tree)])
            .output()
            .expect("tar");
        let complaint = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(listed.status.success(), "{complaint}");
        let lines = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(lines.lines().count() > 1, "{place}: {lines}");
        all.extend(lines.lines().map(str::to_owned));
        fs::remove_dir_all(&tree).expect("a tree");
        fs::remove_file(&archive).expect("an archive");
    }
    all
}

/// The archive, and the directory to unpack it in.
const LIST: &str = "tar xpf \"$1\" --numeric-owner -C \"$2\"; cd \"$2\"
    find . -mindepth 1 ! -type d -printf '%P|%y|%m|%U:%G|%s|%T@|%n|%l\\n' -o -printf '%P|%y|%m|%U:%G|%T@\\n' | LC_ALL=C sort
    find . -type f -size -1G -exec cksum {} + | LC_ALL=C sort -k3";

fn assert_alike(expected: &[String], found: &[String]) {
    for (expected, found) in expected.iter().zip(found) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

/// Copies the guest's zeros to a pipe that is read at leisure; the exit status and what was said.
fn slowly(mut copy: Command) -> std::thread::JoinHandle<(Option<i32>, String)> {
    let mut copy = copy
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("banger");
    std::thread::spawn(move || {
        let mut stdout = copy.stdout.take().expect("a pipe");
        let mut piece = vec![0; 16 << 10];
        while stdout.read(&mut piece).expect("a stream") > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = copy.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), said)
    })
}

/// Waits until so many operations of a kind run.
fn wait_for(home: &Home, method: &str, wanted: usize) {
    wait_until(
        &format!("{wanted} of {method}"),
        Duration::from_secs(30),
        || {
            let all = home
                .banger(&["operation", "list", "--json"])
                .exits(0)
                .json();
            let all = all.as_array().expect("a list").iter();
            let run = all.filter(|op| op["method"] == method && op["ended_at"].is_null());
            match run.count() {
                n if n == wanted => Ok(()),
                n => Err(format!("{n} run")),
            }
        },
    );
}

#[test]
fn files_come_out_of_a_vm_that_is_down() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", CHANGES).exits(0);
    let running = out(&home, "running");

    // Killed: its journal was not written back, and nobody told the daemon.
    let vmm = home.vmms()[0];
    let vmm = Pid::from_raw(vmm.cast_signed()).expect("a process");
    kill_process(vmm, Signal::KILL).expect("a signal");
    wait_until("the VM to be seen down", Duration::from_secs(10), || {
        let state = home.show("dev")["state"].clone();
        (state == "stopped").then_some(()).ok_or(state.to_string())
    });
    assert_alike(&running, &out(&home, "killed"));

    // As files here, without the archive.
    let here = home.scratch().join("deep");
    home.banger(&["vm", "cp", "dev:work/deep", text(&here)])
        .exits(0);
    assert_eq!(fs::read(here.join("file")).expect("a file"), b"mine\n");
    assert_eq!(
        fs::read_link(here.join("up")).expect("a link"),
        PathBuf::from("../deep")
    );
    home.banger(&[
        "vm",
        "cp",
        "-L",
        "dev:/srv/kinds/link",
        text(&here.join("passwd")),
    ])
    .exits(0);
    let passwd = fs::read_to_string(here.join("passwd")).expect("a file");
    assert!(
        passwd.starts_with("root:") && passwd.ends_with("more\n"),
        "{passwd}"
    );

    // Into it there is no way but by its guest.
    let refused = home.banger(&["vm", "cp", text(&here), "dev:"]).exits(125);
    assert!(
        refused.err().contains("banger vm start dev"),
        "{}",
        refused.err()
    );

    who_takes_nothing_holds_up_nobody(&home);

    // A start goes first: the copy is none, and says so.
    let zeros = slowly(home.command(&["vm", "cp", "dev:/var/tmp/zeros", "-"]));
    wait_for(&home, "vm.copy", 1);
    home.banger(&["vm", "start", "dev"]).exits(0);
    is_told_of_a_disturbance(zeros);

    home.banger(&["vm", "stop", "dev"]).exits(0);
    assert_alike(&running, &out(&home, "stopped"));
    // So does a delete.
    let zeros = slowly(home.command(&["vm", "cp", "dev:/var/tmp/zeros", "-"]));
    wait_for(&home, "vm.copy", 1);
    home.banger(&["vm", "delete", "dev"]).exits(0);
    is_told_of_a_disturbance(zeros);
    home.finish();
}

fn is_told_of_a_disturbance(copy: std::thread::JoinHandle<(Option<i32>, String)>) {
    let (status, said) = copy.join().expect("a reader");
    assert_eq!(status, Some(125), "{said}");
    assert!(
        said.contains("was started or deleted while its files were copied"),
        "{said}"
    );
}

/// More clients at once that take or give nothing than the daemon has threads for what is short.
fn who_takes_nothing_holds_up_nobody(home: &Home) {
    const COPIES: usize = 32;
    const IMPORTS: usize = 40;
    let daemon = home.daemon_pid().expect("a daemon");
    let still = |args: &[&str]| {
        let mut command = home.command(args);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        piped.stderr(Stdio::null()).spawn().expect("banger")
    };
    let copy = ["vm", "cp", "dev:/var/tmp/zeros", "-"];
    let copies = (0..COPIES).map(|_| still(&copy));
    let imports =
        (0..IMPORTS).map(|n| still(&["image", "import", "-", "--name", &format!("still-{n}")]));
    let clients: Vec<_> = copies.chain(imports).collect();
    wait_for(home, "vm.copy", COPIES);
    wait_for(home, "image.import", IMPORTS);
    home.banger(&["vm", "list"]).exits(0);
    let one_more = home.banger(&copy).exits(125).err();
    assert!(one_more.contains("are read by 32"), "{one_more}");
    let kept = home.banger(&["vm", "prune", "--force"]).err();
    assert!(kept.contains("files are copied from it"), "{kept}");
    assert_eq!(home.show("dev")["state"], "stopped");
    // Whoever leaves leaves nothing behind, in the daemon neither.
    for mut client in clients {
        client.kill().expect("a client");
        client.wait().expect("its end");
    }
    wait_for(home, "vm.copy", 0);
    wait_for(home, "image.import", 0);
    wait_until("the threads to end", Duration::from_secs(20), || {
        let tasks = fs::read_dir(format!("/proc/{daemon}/task")).expect("the daemon's threads");
        let names =
            tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("comm")));
        match names.flatten().filter(|name| name == "lasting\n").count() {
            0 => Ok(()),
            n => Err(format!("{n} are there")),
        }
    });
}
