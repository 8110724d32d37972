//! The real programs with the **reflink** root driver: the state directory on XFS, a real guest whose root is a clone of its
//! image. `vm_clone` tries more of it, on the machine's own kernel.

mod clones;
mod dm;

use dm::Host;

#[test]
#[ignore = "one guest more under emulated AMD-V can stop the machine; ./soak runs it, vm_clone tries the same outside"]
fn a_vm_on_a_clone_lives_in_the_test_host() {
    let Some(host) = Host::here() else { return };
    dm::run("modprobe", &["xfs"]);
    clones::live_shortly(&["mkfs.xfs", "-q"]).expect("an XFS");
    host.is_as_before("deleted");
}

#[test]
fn without_sharing_a_clone_is_refused_with_the_way_out() {
    if Host::here().is_some() {
        clones::is_refused_without_sharing();
    }
}
