//! Guests and machines that misbehave: a clear error in bounded time that names the kept log, or the
//! VM held safe until things are better; the machine as before (R-HOST-7, R-HOST-10).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "mounts a small file system"
)]

mod api;

use api::Lines;
use banger_testkit::{Home, Signal, binaries, signal, skip, wait_until};
use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, UNIX_EPOCH},
};

/// The path after `see ` or in the text of an error that lies under `failed/`.
fn kept_logs(error: &str) -> PathBuf {
    let word = error.split_whitespace().find(|w| w.contains("/failed/"));
    let word = word.unwrap_or_else(|| panic!("names no kept log: {error}"));
    PathBuf::from(word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/'))
}

/// A guest that never says its first word: every boot ends in bounded time, it is tried again, then
/// refused with its logs kept.
#[test]
fn a_silent_guest_is_given_up_with_its_logs_kept() {
    let home = Home::new();
    fs::write(home.config(), "boot_timeout = 1\n").expect("config");
    let began = Instant::now();
    let run = home.start(&["vm", "create", "--name", "dev"], b"");
    // A VMM that is stopped says nothing, whatever kernel is in it.
    let mut stopped = Vec::new();
    while Path::new(&format!("/proc/{}/exe", run.pid()))
        .read_link()
        .is_ok()
    {
        for pid in home
            .vmms()
            .into_iter()
            .filter(|pid| !stopped.contains(pid))
            .collect::<Vec<_>>()
        {
            signal(pid, Signal::STOP);
            stopped.push(pid);
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it was not given up"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = run.finish().exits(125);
    assert!(stopped.len() >= 2, "the boot was tried again: {stopped:?}");
    assert!(kept_logs(&run.err()).exists(), "{}", run.err());
    home.assert_no_vms();
    home.finish();
}

/// A guest that panics at boot: the VMM ends, the error comes at once and its console is kept.
#[test]
fn a_guest_that_panics_is_an_error_with_its_console() {
    let mut home = Home::new();
    // A directory of programs whose agent the guest's kernel cannot run.
    let programs = home.scratch().join("bin");
    fs::create_dir(&programs).expect("a directory");
    for name in ["banger", "bangerd"] {
        fs::copy(binaries().join(name), programs.join(name)).expect("a program");
    }
    let agent = programs.join("banger-agent");
    fs::write(&agent, b"this is no program").expect("an agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("an agent");
    home.set_programs(&programs);
    let run = home.banger(&["vm", "run", "--rm", "--", "true"]).exits(125);
    let logs = kept_logs(&run.err());
    let dir = if logs.is_dir() {
        logs
    } else {
        logs.parent().expect("a directory").to_owned()
    };
    let console = fs::read_to_string(dir.join("console.log")).unwrap_or_default();
    assert!(console.contains("Kernel panic"), "{}: {console}", run.err());
    home.assert_no_vms();
    home.finish();
}

/// A small file system of its own, mounted where the home keeps its state.
struct SmallDisk {
    mounted: PathBuf,
}

impl SmallDisk {
    fn mount(home: &Home, size: u64) -> Result<SmallDisk, String> {
        let (image, mounted) = (home.scratch().join("disk.img"), home.state());
        let file = fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(size).map_err(|e| e.to_string())?;
        run(
            "mkfs.ext4",
            &["-q", "-m", "0", &image.display().to_string()],
        )?;
        fs::create_dir_all(&mounted).map_err(|e| e.to_string())?;
        run(
            "mount",
            &[
                "-o",
                "loop",
                &image.display().to_string(),
                &mounted.display().to_string(),
            ],
        )?;
        Ok(SmallDisk { mounted })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mounted.display().to_string()]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// R-HOST-10: below 1 GiB free creates are refused and VMs held still; both end by themselves.
#[test]
fn a_full_disk_holds_vms_still_and_loses_nothing() {
    let Some((home, disk)) = home_on_a_small_disk() else {
        return;
    };
    home.guest_sh("dev", "echo kept >/root/work; sync").exits(0);
    home.guest_sh("dev", "date -s '+1 hour'").exits(0);

    let mut events = Lines::ask(&home, "events", "", b"{}");
    let ballast = fill_disk(&home);
    until_state(&home, "paused");
    let told = events.until("a VM", |e| e["event"] == "vm");
    assert_eq!(
        (&told["change"], &told["reason"]["kind"]),
        (&"paused".into(), &"disk-full".into())
    );
    let refused = home.banger(&["vm", "create", "--name", "other"]).exits(125);
    assert!(refused.err().contains("free"), "{}", refused.err());
    let refused = home.guest_sh("dev", "true").exits(125);
    assert!(refused.err().contains("held still"), "{}", refused.err());
    let unwell = home.banger(&["vm", "health", "dev"]).exits(1).err();
    assert!(unwell.contains("paused: disk full"), "{unwell}");

    fs::remove_file(&ballast).expect("ballast");
    until_state(&home, "running");
    let told = events.until("a VM", |e| e["event"] == "vm");
    assert_eq!(
        (&told["change"], &told["state"]),
        (&"resumed".into(), &"running".into())
    );
    // R-GUEST-9: the first that is asked of it knows the time again.
    let said = home.guest_sh("dev", "date +%s").exits(0).out();
    let now = UNIX_EPOCH.elapsed().expect("now").as_secs();
    let off = now.abs_diff(said.trim().parse().expect("a time"));
    assert!(off <= 5, "{off} s off");
    assert_eq!(
        home.guest_sh("dev", "cat /root/work").exits(0).out(),
        "kept"
    );
    end_on_a_small_disk(home, disk);
}

/// R-HOST-10: a guest that fills the disk faster than anyone looks, to the last byte, is held still in the middle of a
/// write and goes on with it: nothing is lost, and it sees no error.
#[test]
fn a_guest_that_fills_the_disk_is_held_and_goes_on() {
    let Some((home, disk)) = home_on_a_small_disk() else {
        return;
    };
    const WRITE: &str = "yes 0123456789abcdef | head -c 250M";
    let words = format!(
        "{WRITE} | dd of=/root/big bs=1M iflag=fullblock oflag=direct status=none && sync && cksum </root/big; echo $?"
    );
    let mut events = Lines::ask(&home, "events", "", b"{}");
    let writing = home.start(&["vm", "exec", "dev", "--", "sh", "-c", &words], b"");
    let free = || {
        let seen = rustix::fs::statvfs(home.state()).expect("the small disk");
        seen.f_bavail * seen.f_frsize
    };
    let before = free();
    wait_until("the guest to write", Duration::from_secs(60), || {
        let written = before.saturating_sub(free()) >> 20;
        if written >= 20 {
            Ok(())
        } else {
            Err(format!("{written} MiB"))
        }
    });
    // Nobody looks: the daemon stands still.
    let daemon = home.daemon_pid().expect("a daemon");
    signal(daemon, Signal::STOP);
    let ballast = home.state().join("ballast");
    let size = free().saturating_sub(20 << 20).to_string();
    run("fallocate", &["-l", &size, &ballast.display().to_string()]).expect("ballast");
    wait_until(
        "the disk to be full",
        Duration::from_secs(90),
        || match free() {
            0..0x10_0000 => Ok(()),
            free => Err(format!("{free} bytes free")),
        },
    );
    // Room comes before anyone has seen that there was none.
    std::thread::sleep(Duration::from_secs(1));
    fs::remove_file(&ballast).expect("ballast");
    signal(daemon, Signal::CONT);
    let expected = Command::new("sh")
        .args(["-c", &format!("{WRITE} | cksum")])
        .output();
    let expected = String::from_utf8(expected.expect("cksum").stdout).expect("text");
    let said = writing.finish_within(Duration::from_secs(180)).exits(0);
    assert_eq!(said.out(), format!("{expected}0"));
    for change in ["paused", "resumed"] {
        let told = events.until("a VM", |e| e["event"] == "vm");
        assert_eq!(told["change"], change);
    }
    end_on_a_small_disk(home, disk);
}

/// R-HOST-10: a command that runs does not see that its VM was held still for longer than its session lived.
#[test]
fn a_command_outlives_a_long_hold() {
    let Some((home, disk)) = home_on_a_small_disk() else {
        return;
    };
    let words = "sleep 15; echo went on; exit 3";
    let running = home.start(&["vm", "exec", "dev", "--", "sh", "-c", words], b"");
    let ballast = fill_disk(&home);
    until_state(&home, "paused");
    // Longer than a session lives without an answer, and than a command waits for the next one.
    std::thread::sleep(Duration::from_secs(30));
    fs::remove_file(&ballast).expect("ballast");
    assert_eq!(running.finish().exits(3).out(), "went on");
    end_on_a_small_disk(home, disk);
}

/// A home on a disk of 3 GiB, with a VM.
fn home_on_a_small_disk() -> Option<(Home, SmallDisk)> {
    if !rustix::process::getuid().is_root() {
        skip("mounting a small file system needs root");
        return None;
    }
    let home = Home::bare();
    let disk = match SmallDisk::mount(&home, 3 << 30) {
        Ok(disk) => disk,
        Err(why) => {
            skip(&format!("no small file system: {why}"));
            return None;
        }
    };
    home.share_images();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    Some((home, disk))
}

fn end_on_a_small_disk(home: Home, disk: SmallDisk) {
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    drop(disk);
    home.finish();
}

/// Leaves less than 1 GiB free; what is given is to be removed.
fn fill_disk(home: &Home) -> PathBuf {
    let ballast = home.state().join("ballast");
    let path = ballast.display().to_string();
    run("fallocate", &["-l", "2200M", &path]).expect("ballast");
    ballast
}

#[track_caller]
fn until_state(home: &Home, wanted: &str) {
    let what = format!("the VM to be {wanted}");
    wait_until(&what, Duration::from_secs(30), || {
        match home.show("dev")["state"].as_str() {
            Some(state) if state == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// A file system whose superblock is overwritten: no kernel mounts it.
struct Damaged {
    path: PathBuf,
    superblock: Vec<u8>,
}

/// Where ext4 has its superblock, and how long that is.
const SUPERBLOCK: (u64, usize) = (1024, 1024);

impl Damaged {
    /// Damages the file, which must be the test's own.
    fn of(path: PathBuf) -> Damaged {
        let file = fs::File::open(&path).expect("a file system");
        let mut superblock = vec![0; SUPERBLOCK.1];
        file.read_exact_at(&mut superblock, SUPERBLOCK.0)
            .expect("a superblock");
        overwrite(&path, &vec![0; SUPERBLOCK.1]);
        Damaged { path, superblock }
    }

    fn mend(self) {
        overwrite(&self.path, &self.superblock);
    }
}

fn overwrite(path: &Path, superblock: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path);
    let file = file.expect("a writable file system");
    file.write_all_at(superblock, SUPERBLOCK.0)
        .expect("a superblock");
}

/// The home's image, as a copy of its own.
fn own_image(home: &Home) -> PathBuf {
    let images = fs::read_dir(home.state().join("images")).expect("images");
    let mut images = images.flatten().map(|e| e.path().join("rootfs.ext4"));
    let image = images.find(|path| path.exists()).expect("an image");
    let copy = image.with_extension("own");
    let paths = [&image, &copy].map(|p| p.display().to_string());
    run("cp", &["--sparse=always", &paths[0], &paths[1]]).expect("a copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).expect("a writable copy");
    fs::rename(&copy, &image).expect("a copy in its place");
    image
}

/// R-HOST-7: a guest that says hello and cannot mount its root was never made, however it was asked for: the reason
/// is told, its console kept, and nothing is left.
#[test]
fn a_guest_without_a_root_is_not_created() {
    let home = Home::new();
    let damaged = Damaged::of(own_image(&home));
    for args in [
        &["vm", "create", "--name", "dev"][..],
        &["vm", "run", "--name", "dev", "--", "true"],
        &["vm", "run", "--rm", "--name", "dev", "--", "true"],
        &["vm", "run", "-d", "--name", "dev"],
    ] {
        let began = Instant::now();
        let said = home.banger(args).exits(125).err();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(60), "{args:?} took {took:?}");
        assert!(
            said.contains("VM 'dev' could not be created")
                && said.contains("cannot be mounted at /base"),
            "{args:?}: {said}"
        );
        let console = fs::read_to_string(kept_logs(&said).join("console.log"));
        let console = console.expect("a kept console");
        assert!(console.contains("cannot be mounted at /base"), "{console}");
        let list = home.banger(&["vm", "list", "--json"]).exits(0);
        assert_eq!(list.json(), serde_json::json!([]), "{args:?}");
        assert_eq!(home.leftovers(), [""; 0], "{args:?}");
    }
    // What was kept belongs to the failed ones only: the same name is made when the image is whole.
    damaged.mend();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.finish();
}

/// R-HOST-7: a start whose guest cannot mount its disks is undone: stopped, with the reason, its data as it was.
#[test]
fn a_guest_that_lost_its_root_is_stopped_again() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    let write = "echo kept >/root/work; echo kept >/opt/system; sync";
    home.banger(&["vm", "exec", "dev", "--", "sh", "-c", write])
        .exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let id = home.show("dev")["id"].as_str().expect("an id").to_owned();
    let dir = home.state().join("vms").join(id);
    for disk in ["overlay.ext4", "work.ext4"] {
        let damaged = Damaged::of(dir.join(disk));
        let said = home.banger(&["vm", "start", "dev"]).exits(125).err();
        assert!(
            said.contains("VM 'dev' could not be started") && said.contains("cannot be mounted"),
            "{disk}: {said}"
        );
        assert!(said.contains("banger vm logs dev"), "{disk}: {said}");
        let logs = home.banger(&["vm", "logs", "dev"]).exits(0).out();
        assert!(logs.contains("cannot be mounted"), "{disk}: {logs}");
        let vm = home.show("dev");
        assert_eq!(
            (&vm["state"], &vm["goal"]),
            (&"stopped".into(), &"stopped".into())
        );
        let reason = vm["reason"]["text"].as_str().unwrap_or_default();
        assert!(reason.contains("cannot be mounted"), "{disk}: {vm}");
        assert_eq!(home.vmms(), [0; 0], "{disk}: no VMM is left");
        damaged.mend();
    }
    home.banger(&["vm", "start", "dev"]).exits(0);
    let read = [
        "vm",
        "exec",
        "dev",
        "--",
        "cat",
        "/root/work",
        "/opt/system",
    ];
    assert_eq!(home.banger(&read).exits(0).out(), "kept\nkept");
    home.finish();
}
