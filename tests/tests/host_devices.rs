//! The test host has what the core needs for real: device-mapper, loops, taps and bridges, nftables, KVM.

use std::path::Path;
use std::process::Command;

/// Runs a program to its end and returns its output; fails the test with what it said.
#[allow(
    clippy::disallowed_methods,
    reason = "a test drives the machine's own tools"
)]
fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout)
        .expect("UTF-8 output")
        .trim()
        .to_owned()
}

/// True when this is the test host; otherwise says so, and the test is over.
fn here() -> bool {
    if !banger_testkit::in_test_host() {
        banger_testkit::skip("needs the test host: cargo xtask testhost run");
    }
    banger_testkit::in_test_host()
}

#[test]
fn a_dm_snapshot_over_two_loops_takes_writes_and_leaves_the_base_alone() {
    if !here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (base, cow) = (dir.path().join("base"), dir.path().join("cow"));
    std::fs::write(&base, vec![7u8; 4 << 20]).expect("base");
    std::fs::File::create(&cow)
        .and_then(|f| f.set_len(4 << 20))
        .expect("cow");
    let base_loop = run(
        "losetup",
        &["-r", "-f", "--show", base.to_str().expect("path")],
    );
    let cow_loop = run("losetup", &["-f", "--show", cow.to_str().expect("path")]);
    let table = format!("0 8192 snapshot {base_loop} {cow_loop} P 8");
    run("dmsetup", &["create", "devices-test", "--table", &table]);
    // The node is udev's work.
    run("udevadm", &["settle", "--timeout=20"]);
    let node = "/dev/mapper/devices-test";
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={node}"),
            "bs=64k",
            "count=1",
            "oflag=direct",
        ],
    );
    let first = run("od", &["-An", "-tu1", "-N1", node]);
    assert_eq!(first, "0", "the snapshot took the write");
    run("dmsetup", &["remove", "--retry", "devices-test"]);
    run("losetup", &["-d", &base_loop, &cow_loop]);
    assert_eq!(
        std::fs::read(&base).expect("base")[0],
        7,
        "the base is as it was"
    );
    assert!(
        std::fs::read(&cow).expect("cow").starts_with(b"SnAp"),
        "the cow file holds the change"
    );
}

#[test]
fn a_tap_joins_a_bridge_and_nftables_takes_a_masquerade() {
    if !here() {
        return;
    }
    run("ip", &["link", "add", "devbr", "type", "bridge"]);
    run("ip", &["tuntap", "add", "devtap", "mode", "tap"]);
    run(
        "ip",
        &[
            "link",
            "set",
            "devtap",
            "master",
            "devbr",
            "alias",
            "banger1/test/tap",
        ],
    );
    let shown = run("ip", &["-d", "link", "show", "devtap"]);
    assert!(
        shown.contains("master devbr") && shown.contains("banger1/test/tap"),
        "{shown}"
    );
    run(
        "nft",
        &[
            "add table ip devtest; add chain ip devtest post { type nat hook postrouting priority 100; }; \
         add rule ip devtest post ip saddr 172.16.0.0/24 masquerade",
        ],
    );
    assert!(run("nft", &["list table ip devtest"]).contains("masquerade"));
    run("nft", &["delete table ip devtest"]);
    run("ip", &["link", "del", "devtap"]);
    run("ip", &["link", "del", "devbr"]);
}

#[test]
fn kvm_makes_a_vm_because_the_processor_has_svm() {
    if !here() {
        return;
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo").expect("cpuinfo");
    assert!(cpu.contains(" svm "), "the emulated processor has AMD-V");
    assert!(Path::new("/dev/kvm").exists());
    // A nested machine that runs a little of its firmware under KVM: no other proof is one.
    run(
        "timeout",
        &[
            "60",
            "sh",
            "-c",
            "printf '%s\\n' '{\"execute\":\"qmp_capabilities\"}' '{\"execute\":\"quit\"}' | \
         qemu-system-x86_64 -M microvm -accel kvm -cpu host -m 64 -nodefaults -display none -qmp stdio",
        ],
    );
}
