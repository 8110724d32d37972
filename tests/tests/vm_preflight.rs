//! Preflight (R-SVC-8) where VMs are: a start looks before it leaps, and memory is promised once.

use banger_testkit::Home;
use std::fs;

/// A VM that lacks its disk and a VMM stays stopped, and both are told; put back, it starts.
#[test]
fn a_start_tells_all_that_is_missing_and_changes_nothing() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    let id = home.show("dev")["id"].as_str().expect("an id").to_owned();
    home.banger(&["daemon", "stop"]).exits(0);

    let disk = home.state().join("vms").join(&id).join("work.ext4");
    let aside = home.scratch().join("aside");
    fs::rename(&disk, &aside).expect("the work disk");
    fs::write(home.config(), "qemu_bin = \"/no/such/qemu\"\n").expect("config");
    let run = home.banger(&["vm", "start", "dev"]).exits(125);
    let told = run.err();
    for says in [
        "qemu_bin /no/such/qemu is no program",
        "hint: correct qemu_bin",
        &format!("of VM 'dev' is not at {}", disk.display()),
        "hint: put it back, or banger vm delete dev",
    ] {
        assert!(told.contains(says), "no {says:?} in {told}");
    }
    assert_eq!(home.show("dev")["state"], "stopped");
    assert!(!disk.exists(), "no empty one in its place");
    home.banger(&["daemon", "stop"]).exits(0);

    fs::rename(&aside, &disk).expect("the work disk");
    fs::remove_file(home.config()).expect("config");
    home.banger(&["vm", "start", "dev"]).exits(0);
    let again = home.banger(&["vm", "start", "dev"]).exits(125);
    assert!(
        again.err().contains("hint: banger vm exec dev -- sh"),
        "{}",
        again.err()
    );
    home.finish();
}
