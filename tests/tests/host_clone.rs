//! The real programs with the **reflink** root driver: the state directory on XFS and on Btrfs, a real guest whose root
//! is a clone of its image.

mod clones;
mod dm;

use dm::Host;

/// A file system that this command makes is there in the test host, or the test fails.
fn lives_on(module: &str, mkfs: &[&str]) {
    let Some(host) = Host::here() else { return };
    dm::run("modprobe", &[module]);
    clones::live(mkfs).expect("a file system");
    host.is_as_before("deleted");
}

#[test]
fn a_vm_on_a_clone_lives_on_xfs() {
    lives_on("xfs", &["mkfs.xfs", "-q"]);
}

#[test]
fn a_vm_on_a_clone_lives_on_btrfs() {
    lives_on("btrfs", &["mkfs.btrfs", "-q"]);
}

#[test]
fn without_sharing_a_clone_is_refused_with_the_way_out() {
    if Host::here().is_some() {
        clones::is_refused_without_sharing();
    }
}
