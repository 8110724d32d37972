//! The **reflink** root driver on this machine, where it can make an XFS; `host_clone` does a part of it in the test host.

mod clones;

use banger_testkit::skip;

/// Create, run, write, stop, start, death of daemon and VMM, growth, delete: on XFS.
#[test]
fn a_vm_on_a_clone_lives_on_xfs() {
    if !rustix::process::getuid().is_root() {
        skip("mounting a file system needs root");
        return;
    }
    if let Err(why) = clones::live(&["mkfs.xfs", "-q"]) {
        skip(&format!("no XFS: {why}"));
    }
}

#[test]
fn without_sharing_a_clone_is_refused_with_the_way_out() {
    clones::is_refused_without_sharing();
}
