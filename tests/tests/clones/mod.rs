//! The life of VMs whose root is a clone of their image (`drivers.root = "reflink"`), on a file system of its own that
//! shares blocks between files.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use banger_testkit::{Home, wait_until};
use banger_wire::api::{DoctorRow, Standing};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

/// Longest time a death or a background deletion may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a VM may take on the disk besides what its guest writes: logs, an initramfs, the journals' first blocks.
const SLACK: u64 = 32 << 20;

/// Small, so that a boot under emulation costs little.
const CONFIG: &str = "boot_timeout = 120\n[drivers]\nroot = \"reflink\"\n[vm_defaults]\nvcpus = 1\n\
                      memory = \"256M\"\ndisk_size = \"64M\"\nsystem_overlay_size = \"64M\"\n";

/// Runs a tool of the machine to its end.
#[allow(
    clippy::disallowed_methods,
    reason = "a test drives the machine's own tools"
)]
fn tool(program: &str, args: &[&str]) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).trim().to_owned()),
        false => Err(format!(
            "{program} {args:?}: {status}\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        )),
    }
}

/// A file system on a loop device, mounted where a home keeps its state.
struct Mounted(PathBuf);

impl Mounted {
    fn make(home: &Home, mkfs: &[&str]) -> Result<Mounted, String> {
        let (disk, at) = (home.scratch().join("disk.img"), home.state());
        let file = fs::File::create(&disk).map_err(|e| e.to_string())?;
        file.set_len(6 << 30).map_err(|e| e.to_string())?;
        let disk = disk.display().to_string();
        tool(mkfs[0], &[&mkfs[1..], &[disk.as_str()]].concat())?;
        fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        tool("mount", &["-o", "loop", &disk, &at.display().to_string()])?;
        Ok(Mounted(at))
    }

    /// Bytes that are taken, once everything is where it will be.
    fn used(&self) -> u64 {
        tool("sync", &["-f", &self.0.display().to_string()]).expect("sync");
        let seen = rustix::fs::statvfs(&self.0).expect("the file system");
        (seen.f_blocks - seen.f_bfree) * seen.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(why) = tool("umount", &[&self.0.display().to_string()]) {
            eprintln!("cannot undo: {why}");
        }
    }
}

/// A home on a file system that shares blocks, with the image in it.
struct Clones {
    home: Home,
    disk: Mounted,
    image: PathBuf,
}

impl Clones {
    fn path_of(&self, vm: &str) -> PathBuf {
        let id = self.home.show(vm)["id"].as_str().expect("an id").to_owned();
        self.home.state().join("vms").join(id).join("cow.img")
    }

    fn digest(&self) -> String {
        tool("sha256sum", &[&self.image.display().to_string()]).expect("a digest")
    }

    #[track_caller]
    fn is_whole(&self, vm: &str) {
        let path = self.path_of(vm);
        tool("e2fsck", &["-fn", &path.display().to_string()]).expect("a whole file system");
    }

    #[track_caller]
    fn has(&self, vm: &str, words: &str) {
        let read = "cat /opt/mark /root/mark";
        assert_eq!(self.home.guest_sh(vm, read).exits(0).out(), words);
    }

    fn end(self) {
        let Clones { home, disk, .. } = self;
        home.banger(&["daemon", "stop"]).exits(0);
        drop(disk);
        // A test beside this one that has mounts of its own has this one among them, as long as it runs.
        let backed = home.scratch().join("disk.img").display().to_string();
        wait_until("the loop device to be let go", PATIENCE, || {
            let left = home.leftovers();
            match left.iter().any(|thing| thing.contains(&backed)) {
                false => Ok(()),
                true => Err(left.join(", ")),
            }
        });
        home.finish();
    }
}

/// A home whose state is on a file system that this command makes; why not, else.
fn clones(mkfs: &[&str]) -> Result<Clones, String> {
    let home = Home::bare();
    let disk = Mounted::make(&home, mkfs)?;
    home.share_images();
    // Templates of another home are none of this one's; there may be none.
    let _ = fs::remove_dir_all(home.state().join("templates"));
    fs::write(home.config(), CONFIG).expect("the configuration");
    let mut images = fs::read_dir(home.state().join("images"))
        .expect("images")
        .flatten()
        .map(|entry| entry.path().join("rootfs.ext4"));
    let image = images.find(|path| path.exists()).expect("an image");
    Ok(Clones { home, disk, image })
}

/// The life of one such VM, on a file system that this command makes: created, written to, stopped and started under
/// another daemon, deleted.
///
/// # Errors
/// There is no such file system here.
pub fn live_shortly(mkfs: &[&str]) -> Result<(), String> {
    let clones = clones(mkfs)?;
    let base = clones.digest();
    let create = ["vm", "create", "--name", "dev"];
    clones.home.banger(&create).exits(0);
    the_root_is_one_ext4_with_a_journal(&clones);
    what_is_written_is_kept(&clones);
    assert_eq!(clones.digest(), base, "the image was written to");
    let delete = ["vm", "delete", "--force", "dev"];
    clones.home.banger(&delete).exits(0);
    clones.end();
    Ok(())
}

/// All that is promised of such VMs, on a file system that this command makes; whether it could be tried.
///
/// # Errors
/// There is no such file system here.
pub fn live(mkfs: &[&str]) -> Result<(), String> {
    let mut clones = clones(mkfs)?;
    let base = clones.digest();
    doctor_tells(
        &clones.home,
        Standing::Pass,
        "reflink, because drivers.root says so",
    );
    a_create_that_dies_leaves_nothing(&mut clones);

    clones
        .home
        .banger(&["vm", "create", "--name", "dev"])
        .exits(0);
    the_root_is_one_ext4_with_a_journal(&clones);
    a_second_vm_costs_no_copy(&clones);
    what_is_written_is_kept(&clones);
    a_killed_vmm_loses_nothing_that_was_synced(&clones);
    the_room_grows(&clones);
    assert_eq!(clones.digest(), base, "the image was written to");
    the_image_may_go(&clones);
    clones.end();
    Ok(())
}

fn doctor_tells(home: &Home, standing: Standing, seen: &str) {
    let status = i32::from(standing == Standing::Fail);
    let run = home.banger(&["doctor", "--json"]).exits(status);
    let rows: Vec<DoctorRow> = serde_json::from_slice(&run.stdout).expect("rows");
    let row = rows.iter().find(|row| row.what == "root disk");
    let row = row.expect("a row of the root disk");
    assert_eq!(row.status, standing, "{row:?}");
    assert!(row.seen.contains(seen), "{row:?}");
}

/// The daemon dies before and after each effect that makes a disk: nothing is left of the VM.
fn a_create_that_dies_leaves_nothing(clones: &mut Clones) {
    const CREATE: [&str; 4] = ["vm", "create", "--name", "dev"];
    let programs = banger_testkit::binaries();
    if !programs.join("crash/bangerd").exists() {
        banger_testkit::skip("the programs were not built: scripts/build --crash-points");
        return;
    }
    let log = clones.home.scratch().join("effects");
    let home = &mut clones.home;
    // The template is made, so that every disk that is made from now on is the VM's.
    home.banger(&CREATE).exits(0);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    home.set_programs(&programs.join("crash"));
    home.set_env("BANGER_EFFECT_LOG", log.to_str());
    home.banger(&CREATE).exits(0);
    home.set_env("BANGER_EFFECT_LOG", None);
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    let text = fs::read_to_string(&log).expect("the log of effects");
    let numbers = text
        .lines()
        .filter_map(|line| line.strip_suffix(" MakeDisk"));
    let numbers: Vec<_> = numbers.collect();
    assert_eq!(numbers.len(), 2, "root and work disk are made: {text}");
    // The file system itself is this test's.
    let before = home.leftovers();
    for point in numbers
        .iter()
        .flat_map(|n| [(*n).to_owned(), format!("{n}:after")])
    {
        home.banger(&["daemon", "stop"]).exits(0);
        home.set_env("BANGER_CRASH_AT", Some(&point));
        let died = home.banger(&CREATE);
        home.set_env("BANGER_CRASH_AT", None);
        assert!(died.status != 0, "it did not die at {point}");
        wait_until(&format!("nothing left at {point}"), PATIENCE, || {
            home.banger(&["vm", "list"]).exits(0);
            match home.leftovers() {
                left if left == before => Ok(()),
                left => Err(left.join(", ")),
            }
        });
    }
    home.banger(&["daemon", "stop"]).exits(0);
    home.set_programs(&programs);
}

fn the_root_is_one_ext4_with_a_journal(clones: &Clones) {
    let mounts = clones.home.guest_sh("dev", "grep ' / ' /proc/mounts");
    let root = mounts.exits(0).out();
    assert!(root.contains(" / ext4 rw"), "{root}");
    let path = clones.path_of("dev").display().to_string();
    let told = tool("dumpe2fs", &["-h", &path]).expect("a superblock");
    assert!(told.contains("has_journal"), "{told}");
    // 64 MiB more than the image, which has 32 MiB, less what the file system itself and its journal take.
    let room = "df -Pm / | awk 'NR == 2 { print $4 }'";
    let free = clones.home.guest_sh("dev", room).exits(0).out();
    let free: u64 = free.parse().expect("a number");
    assert!((78..97).contains(&free), "{free} MiB of room");
}

fn a_second_vm_costs_no_copy(clones: &Clones) {
    let home = &clones.home;
    let image = fs::metadata(&clones.image).expect("image").blocks() * 512;
    assert!(image > 3 * SLACK, "an image too small to tell: {image}");
    let before = clones.disk.used();
    home.banger(&["vm", "create", "--name", "two"]).exits(0);
    let cost = clones.disk.used().saturating_sub(before);
    println!(
        "a create took {} KiB of disk, the image has {}",
        cost >> 10,
        image >> 10
    );
    assert!(cost < SLACK, "a create took {cost} bytes of disk");
    home.banger(&["vm", "stop", "two"]).exits(0);
    // What would be given back is what nobody shares.
    let prune = ["vm", "prune", "--dry-run", "--json"];
    let told = home.banger(&prune).exits(0).json();
    let bytes = told["vms"][0]["bytes"].as_u64().expect("bytes");
    assert!(bytes < 2 * SLACK, "{told}");
    home.banger(&["vm", "delete", "two"]).exits(0);
    wait_until("the room to be given back", PATIENCE, || {
        match clones.disk.used().saturating_sub(before) {
            // The first VM runs on.
            left if left < SLACK / 4 => Ok(()),
            left => Err(format!("{left} bytes more than before")),
        }
    });
}

fn what_is_written_is_kept(clones: &Clones) {
    let home = &clones.home;
    let write = "echo kept >/opt/mark; echo kept >/root/mark; sync";
    home.guest_sh("dev", write).exits(0);
    home.kill_daemon();
    clones.has("dev", "kept\nkept");
    home.banger(&["vm", "stop", "dev"]).exits(0);
    clones.is_whole("dev");
    home.banger(&["vm", "start", "dev"]).exits(0);
    clones.has("dev", "kept\nkept");
}

/// A VMM that is killed takes the guest's cache with it, and nothing that was synced; its file system is whole again.
fn a_killed_vmm_loses_nothing_that_was_synced(clones: &Clones) {
    let home = &clones.home;
    let write = "cp -r /usr/share/doc /opt/tree; echo synced >/opt/mark; echo synced >/root/mark; sync; \
                 (while :; do cp -r /opt/tree /opt/more; rm -r /opt/more; done) >/dev/null 2>&1 & sleep 1";
    home.guest_sh("dev", write).exits(0);
    let pid = home.show("dev")["handles"]["processes"]["vmm"]["pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a VMM to kill");
    wait_until(
        "the VM to be down",
        PATIENCE,
        || match home.show("dev")["state"].as_str() {
            Some("stopped") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    let path = clones.path_of("dev").display().to_string();
    let told = tool("dumpe2fs", &["-h", &path]).expect("a superblock");
    assert!(
        told.contains("needs_recovery"),
        "nothing to recover: {told}"
    );
    home.banger(&["vm", "start", "dev"]).exits(0);
    clones.has("dev", "synced\nsynced");
    home.guest_sh("dev", "rm -rf /opt/more /opt/tree").exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    clones.is_whole("dev");
}

/// More room at the next start, beyond what the image's group descriptors have place for; less is refused.
fn the_room_grows(clones: &Clones) {
    let home = &clones.home;
    home.banger(&["vm", "set", "dev", "--system-overlay-size", "20G"])
        .exits(0);
    home.banger(&["vm", "start", "dev"]).exits(0);
    let room = "df -Pm / | awk 'NR == 2 { print $4 }'";
    let free = home.guest_sh("dev", room).exits(0).out();
    let free: u64 = free.parse().expect("a number");
    assert!((19_000..20_600).contains(&free), "{free} MiB of room");
    clones.has("dev", "synced\nsynced");
    home.banger(&["vm", "stop", "dev"]).exits(0);
    clones.is_whole("dev");
    let less = ["vm", "set", "dev", "--system-overlay-size", "1G"];
    let refused = home.banger(&less).exits(125).err();
    assert!(refused.contains("20 GiB"), "{refused}");
}

/// A clone does not need what it is a clone of.
fn the_image_may_go(clones: &Clones) {
    let home = &clones.home;
    let id = home.show("dev")["image_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    home.banger(&["image", "delete", "--force", &id]).exits(0);
    assert!(!clones.image.exists());
    home.banger(&["vm", "start", "dev"]).exits(0);
    clones.has("dev", "synced\nsynced");
    home.banger(&["vm", "delete", "--force", "dev"]).exits(0);
    wait_until("the image's blocks to be given back", PATIENCE, || {
        match clones.disk.used() {
            // What is left: the kernel and its modules.
            used if used < 512 << 20 => Ok(()),
            used => Err(format!("{used} bytes")),
        }
    });
}

/// Where blocks are not shared a create is refused before anything exists, and `doctor` says the same.
pub fn is_refused_without_sharing() {
    let home = Home::new();
    fs::write(home.config(), CONFIG).expect("the configuration");
    if file_system(&home.state()) != "ext2/ext3" {
        banger_testkit::skip("the tests' own directory is not on ext4");
        return;
    }
    doctor_tells(
        &home,
        Standing::Fail,
        "is on ext4, which does not share blocks between files",
    );
    let said = home
        .banger(&["vm", "create", "--name", "dev"])
        .exits(125)
        .err();
    assert!(
        said.contains("is on ext4, which does not share blocks between files")
            && said.contains("drivers.root = \"overlay\""),
        "why, and the way out: {said}"
    );
    home.assert_no_vms();
    assert_eq!(home.leftovers(), [""; 0]);
    // The way out is one.
    let text = CONFIG.replace("reflink", "overlay");
    fs::write(home.config(), text).expect("the configuration");
    home.banger(&["daemon", "stop"]).exits(0);
    doctor_tells(&home, Standing::Pass, "reflink could not be had");
    home.finish();
}

fn file_system(path: &Path) -> String {
    let path = path.display().to_string();
    tool("stat", &["-f", "-c", "%T", &path]).expect("a file system")
}
