//! A directory without a row (R-STATE-10): nothing but an explicit delete removes it.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use banger_testkit::{Home, leave_lost};
use std::fs;

const ID: &str = "00c0ffee0000";

#[test]
fn a_lost_vm_is_removed_by_its_whole_id_and_by_nothing_else() {
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    let dir = leave_lost(&home, ID, "none");
    for other in ["dev", &ID[..6]] {
        home.banger(&["vm", "delete", "--force", other]).exits(125);
    }
    home.kill_daemon();
    home.banger(&["vm", "list"]).exits(0);
    assert!(dir.join("work.ext4").exists(), "a daemon's start swept it");

    // While its VMM lives, which its log's lock tells, it goes by force only.
    let log = fs::File::create(dir.join("vmm.log")).expect("its log");
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&log, exclusive).expect("lock it");
    let refused = home.banger(&["vm", "delete", ID]).exits(125);
    assert!(refused.err().contains("--force"), "{}", refused.err());
    drop(log);
    assert!(dir.join("work.ext4").exists());

    home.banger(&["vm", "delete", ID]).exits(0);
    assert!(!dir.exists());
    home.finish();
}

/// R-STATE-8: recovery asked of a daemon that works undoes nothing that is coming up, and runs beside what is up.
#[test]
fn recovery_undoes_no_create_under_way() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "up"]).exits(0);
    let making = home.start(&["vm", "create", "--name", "coming"], b"");
    banger_testkit::wait_until(
        "it to come up",
        std::time::Duration::from_secs(30),
        || match home.banger(&["vm", "show", "coming", "--json"]).status {
            0 => Ok(()),
            _ => Err("not there yet".to_owned()),
        },
    );
    let refused = home.banger(&["recover"]).exits(125);
    assert!(
        refused.err().contains("'coming' is coming up"),
        "{}",
        refused.err()
    );
    making.finish().exits(0);
    home.banger(&["recover"]).exits(0);
    for vm in ["up", "coming"] {
        home.banger(&["vm", "exec", vm, "--", "true"]).exits(0);
    }
    home.finish();
}
