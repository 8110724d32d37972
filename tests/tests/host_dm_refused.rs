//! The kernel itself refuses, while a VM on a dm snapshot is made: the error says why, and the machine is as before.
//! A device of the VM's name is refused in `host_dm_vm`. That loop devices run out cannot be had: Linux makes a new one
//! for as long as there are minor numbers, a million; the driver being away takes the same path.

mod dm;

use banger_testkit::Home;
use dm::Host;
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// What a test did to the machine, undone in reverse order at its end, also a failed one's.
struct Undo(Vec<Vec<String>>);

impl Undo {
    fn later(&mut self, command: &[&str]) {
        self.0
            .push(command.iter().map(|s| (*s).to_owned()).collect());
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(command) = self.0.pop() {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            if !dm::succeeds(words[0], &words[1..]) {
                eprintln!("cannot undo: {}", words.join(" "));
            }
        }
    }
}

/// Creates a VM, which fails, and returns what was said; nothing of it is left.
#[track_caller]
fn refused(home: &Home, args: &[&str]) -> String {
    let create = [&["vm", "create", "--name", "dev"], args].concat();
    let said = home.banger(&create).exits(125).err();
    let listed = home.banger(&["vm", "list", "-q"]).exits(0).out();
    assert_eq!(listed, "", "no VM is left of: {said}");
    assert_eq!(home.leftovers(), [""; 0], "after: {said}");
    let ours: Vec<_> = dm::loops()
        .into_iter()
        .filter(|l| l.label.starts_with("banger1/"))
        .collect();
    assert_eq!(ours, [], "after: {said}");
    said
}

#[test]
fn without_a_loop_driver_a_create_is_undone() {
    let Some(host) = Host::here() else { return };
    let home = host.home();
    let rule = "/etc/modprobe.d/no-loop.conf";
    let mut undo = Undo(vec![]);
    undo.later(&["modprobe", "loop"]);
    undo.later(&["rm", rule]);
    fs::write(rule, "install loop /bin/false\n").expect("a rule");
    dm::run("rmmod", &["loop"]);

    let said = refused(&home, &[]);
    assert!(
        said.contains("attach a loop device") && said.contains("No such device"),
        "the error says what is missing: {said}"
    );
    drop(undo);
    home.finish();
    host.is_as_before("refused");
}

/// R-HOST-10: refused before anything is made, with the room there is and the room that is wanted.
#[test]
fn on_a_full_disk_a_create_is_refused() {
    let Some(host) = Host::here() else { return };
    let home = host.home();
    home.banger(&["vm", "list"]).exits(0);
    let scratch = tempfile::tempdir().expect("a directory");
    let mut undo = Undo(vec![]);
    small_disk(&mut undo, &home, scratch.path());

    let said = refused(&home, &[]);
    assert!(
        said.contains("0 MiB are free") && said.contains("a VM is created only with"),
        "the error says what is free and what is wanted: {said}"
    );
    home.banger(&["daemon", "stop"]).exits(0);
    fs::remove_file(home.state().join("vms")).expect("the link");
    drop(undo);
    home.finish();
    host.is_as_before("refused");
}

/// R-HOST-7: the guest says hello, and then the kernel cannot read the base below its snapshot.
#[test]
fn over_an_unreadable_base_a_create_is_undone() {
    let Some(host) = Host::here() else { return };
    let home = host.home();
    home.banger(&["vm", "list"]).exits(0);
    let scratch = tempfile::tempdir().expect("a directory");
    let mut undo = Undo(vec![]);
    let image = base(&home);
    let held = unreadable(&mut undo, &image, scratch.path());
    let seen = fs::metadata(&image).map(|m| m.len());
    let read = fs::read(&image).map(|bytes| bytes.len());
    assert!(
        seen.is_ok() && read.is_err(),
        "the base is there and cannot be read: {seen:?}, {read:?}"
    );

    let said = refused(&home, &[]);
    assert!(
        said.contains("VM 'dev' could not be created")
            && said.contains("cannot be mounted at /root-fs as ext4: Input/output error"),
        "the error is the guest's: {said}"
    );
    let kept = said.split_whitespace().find(|w| w.contains("/failed/"));
    let console = Path::new(kept.expect("a kept log")).join("console.log");
    let console = fs::read_to_string(console).expect("a kept console");
    assert!(
        console.contains("cannot be mounted at /root-fs"),
        "{console}"
    );
    assert_eq!(
        dm::dm_devices().len(),
        1,
        "only the test's own device is left"
    );
    home.banger(&["daemon", "stop"]).exits(0);
    drop(held);
    drop(undo);
    home.finish();
    host.is_as_before("undone");
}

/// The home's default image.
fn base(home: &Home) -> PathBuf {
    let images = fs::read_dir(home.state().join("images")).expect("images");
    let mut images = images.flatten().map(|e| e.path().join("rootfs.ext4"));
    images.find(|path| path.exists()).expect("an image")
}

/// Puts a file of the image's length, with its first MiB, in the image's place: on a file system whose device then
/// answers every read with an error. Open, it is at least there: its inode need not be read.
fn unreadable(undo: &mut Undo, image: &Path, scratch: &Path) -> File {
    const DEVICE: &str = "/dev/mapper/unreadable";
    let (disk, original) = (
        scratch.join("disk.img"),
        fs::metadata(image).expect("image"),
    );
    let path = disk.to_str().expect("a path");
    File::create(&disk)
        .and_then(|f| f.set_len(16 << 20))
        .expect("a disk");
    let below = dm::run("losetup", &["--find", "--show", path]);
    undo.later(&["losetup", "-d", &below]);
    let sectors = (16 << 20) / 512;
    let whole = format!("0 {sectors} linear {below} 0");
    dm::run("dmsetup", &["create", "unreadable", "--table", &whole]);
    undo.later(&["dmsetup", "remove", "--retry", "unreadable"]);
    dm::run(
        "mke2fs",
        &["-q", "-t", "ext4", "-O", "^has_journal", DEVICE],
    );
    dm::run("mount", &[DEVICE, "/mnt"]);
    undo.later(&["umount", "/mnt"]);
    let from = format!("if={}", image.display());
    dm::run(
        "dd",
        &[
            &from,
            "of=/mnt/base",
            "bs=1M",
            "count=1",
            "conv=fsync",
            "status=none",
        ],
    );
    let file = File::options().write(true).open("/mnt/base");
    file.and_then(|f| f.set_len(original.len()))
        .expect("a base");
    fs::remove_file(image).expect("the home's link to the image");
    symlink("/mnt/base", image).expect("a link");
    // Mounted read-only there is nothing the file system has to write while its device fails.
    dm::run("mount", &["-o", "remount,ro", "/mnt"]);
    let held = File::open(image).expect("a base");
    let failing = format!("0 {sectors} error");
    undo.later(&["dmsetup", "resume", "unreadable"]);
    undo.later(&["dmsetup", "load", "unreadable", "--table", &whole]);
    dm::run("dmsetup", &["load", "unreadable", "--table", &failing]);
    dm::run("dmsetup", &["resume", "unreadable"]);
    fs::write("/proc/sys/vm/drop_caches", "1").expect("dropping what was read");
    held
}

/// A full file system on a loop device, where the VMs' directories of this home will be.
fn small_disk(undo: &mut Undo, home: &Home, scratch: &Path) {
    let (image, at) = (scratch.join("small.img"), Path::new("/mnt"));
    let path = image.to_str().expect("a path");
    File::create(&image)
        .and_then(|f| f.set_len(16 << 20))
        .expect("an image");
    dm::run(
        "mke2fs",
        &["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", path],
    );
    dm::run("mount", &["-o", "loop", path, "/mnt"]);
    undo.later(&["umount", "/mnt"]);
    let vms = home.state().join("vms");
    fs::create_dir(at.join("vms")).expect("vms");
    let _ = fs::remove_dir(&vms);
    symlink(at.join("vms"), &vms).expect("a link");
    let room = rustix::fs::statvfs(at).expect("statvfs");
    let bytes = (room.f_bavail * room.f_frsize).to_string();
    dm::run("fallocate", &["-l", &bytes, "/mnt/filler"]);
}
