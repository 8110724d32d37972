//! The kernel itself refuses, while a VM on a dm snapshot is made: the error says why, and the machine is as before.
//! A device of the VM's name is refused in `host_dm_vm`. That loop devices run out cannot be had: Linux makes a new one
//! for as long as there are minor numbers, a million; the driver being away takes the same path.

mod dm;

use banger_testkit::Home;
use dm::Host;
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
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
