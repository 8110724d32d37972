//! A VM that the database does not know.

use crate::Home;
use std::{fs, path::PathBuf};

/// Makes a VM's directory as a lost database leaves it: it describes itself, names a kernel, and holds a disk.
///
/// # Panics
/// It cannot be made.
pub fn leave_lost(home: &Home, id: &str, kernel: &str) -> PathBuf {
    let dir = home.state().join("vms").join(id);
    fs::create_dir_all(&dir).expect("make the directory");
    let said = serde_json::json!({
        "format": 1, "id": id, "name": "dev", "owner_uid": 0, "goal": "stopped", "generation": 2,
        "spec": {
            "image": "debian", "image_id": "0", "kernel": kernel, "vcpus": 1,
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
