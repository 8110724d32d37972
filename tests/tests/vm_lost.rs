//! A directory without a row (R-STATE-10): nothing but an explicit delete removes it.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use banger_testkit::Home;
use std::{fs, path::PathBuf};

const ID: &str = "00c0ffee0000";

/// A VM's directory as a lost database leaves it: it describes itself, and holds a disk.
fn leave(home: &Home) -> PathBuf {
    let dir = home.state().join("vms").join(ID);
    fs::create_dir_all(&dir).expect("make the directory");
    let said = serde_json::json!({
        "format": 1, "id": ID, "name": "dev", "owner_uid": 0, "goal": "stopped", "generation": 2,
        "spec": {
            "image": "debian", "image_id": "0", "kernel": "none", "vcpus": 1,
            "memory": 1_u64 << 30, "overlay_size": 1_u64 << 30, "disk_size": 1_u64 << 30,
            "nat": true, "remove_on_exit": false, "channel_token": "00".repeat(16),
            "drivers": {
                "vmm": "qemu", "root": "overlay", "network": "user",
                "jail": false, "cgroup": false, "helper": false,
            },
        },
        "lease": { "ip": "172.16.0.2", "mac": "02:c0:ff:ee:00:00", "cid": 3 },
        "runtime": {
            "api_socket": "/nowhere/vmm.sock", "vsock_path": "/nowhere/agent.sock",
            "log_path": dir.join("console.log"), "metrics_path": null, "dns_name": "dev.vm",
            "vm_dir": dir, "system_overlay": dir.join("overlay.ext4"),
            "work_disk": dir.join("work.ext4"),
        },
        "created_at": 1, "last_used_at": 1,
    });
    fs::write(dir.join("vm.json"), said.to_string()).expect("describe it");
    fs::write(dir.join("work.ext4"), b"precious").expect("its disk");
    dir
}

#[test]
fn a_lost_vm_is_removed_by_its_whole_id_and_by_nothing_else() {
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    let dir = leave(&home);
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
