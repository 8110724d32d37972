//! `vm set`, and disks of other sizes than the usual (R-CLI-3).

use banger_testkit::Home;
use serde_json::json;

/// KiB of the file systems at `/root` and below the root's overlay.
const SIZES: &str =
    "df -k --output=size /root /var/lib/docker | tail -n +2 | tr -d ' ' | tr '\\n' ' '";

/// The sizes that a guest sees, in whole GiB, rounded up: a file system keeps some of its disk to itself.
fn sizes(home: &Home, vm: &str) -> Vec<u64> {
    let said = home.guest_sh(vm, SIZES).exits(0).out();
    let kib = said
        .split_whitespace()
        .map(|n| n.parse::<u64>().expect("a number"));
    kib.map(|kib| kib.div_ceil(1 << 20)).collect()
}

#[test]
fn a_new_vm_has_the_disks_it_was_given() {
    let home = Home::new();
    home.banger(&[
        "vm",
        "create",
        "--name",
        "dev",
        "--disk-size",
        "12G",
        "--system-overlay-size",
        "1T",
    ])
    .exits(0);
    assert_eq!(sizes(&home, "dev")[0], 12);
    assert!(sizes(&home, "dev")[1] > 1000);
    home.finish();
}

/// Numbers and sizes change while the VM is down, the file systems grow with their disks and keep what is on them, and
/// what is not said stays; a killed daemon forgets none of it.
#[test]
fn a_stopped_vm_takes_another_shape() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev", "--memory", "512M"])
        .exits(0);
    assert_eq!(sizes(&home, "dev"), [8, 8]);
    let write = "echo kept >/root/f; echo kept >/var/f; seq 100000 >/var/lib/docker/n; nproc";
    assert_eq!(home.guest_sh("dev", write).exits(0).out(), "1");

    let refused = home
        .banger(&["vm", "set", "dev", "--memory", "1G"])
        .exits(125);
    for word in ["VM 'dev' is running", "banger vm stop dev"] {
        assert!(refused.err().contains(word), "{}", refused.err());
    }
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let set = [
        "vm",
        "set",
        "dev",
        "--json",
        "--vcpu",
        "2",
        "--memory",
        "700M",
        "--disk-size",
        "130G",
        "--system-overlay-size",
        "9G",
    ];
    let told = home.banger(&set).exits(0).json();
    assert_eq!(told[0]["vcpus"], 2);
    assert_eq!(told[0]["state"], "stopped");
    home.kill_daemon();
    home.banger(&["vm", "start", "dev"]).exits(0);
    assert_eq!(sizes(&home, "dev"), [128, 9]);
    let read = "cat /root/f /var/f; tail -n 1 /var/lib/docker/n; nproc; \
                awk '/MemTotal/ { print ($2 > 600000) }' /proc/meminfo";
    let kept = home.guest_sh("dev", read).exits(0).out();
    assert_eq!(kept, "kept\nkept\n100000\n2\n1");
    let health = home.banger(&["vm", "health", "dev", "--json"]).exits(0);
    assert_eq!(health.json()[0]["warnings"], json!([]));

    // Once more, and only what is named.
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["vm", "set", "dev", "--vcpu", "1"]).exits(0);
    let shown = home.show("dev");
    assert_eq!(
        [&shown["vcpus"], &shown["memory"], &shown["disk_size"]],
        [&json!(1), &json!(700_u64 << 20), &json!(130_u64 << 30)]
    );
    home.finish();
}

/// What cannot be is refused, all of it at once, and changes nothing.
#[test]
fn a_shape_that_no_vm_can_have_is_refused() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    let before = home.show("dev");
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--disk-size", "1G"],
            &["the work disk of VM 'dev' has 8 GiB and cannot shrink to 1 GiB"],
        ),
        (
            &["--system-overlay-size", "7G"],
            &["the overlay disk of VM 'dev'", "cannot shrink"],
        ),
        (
            &["--memory", "1M", "--disk-size", "9000001K"],
            &["at least 128 MiB of memory", "whole number of MiB"],
        ),
        (&["--memory", "900T"], &["more than this host's", "--force"]),
        (&[], &["--vcpu"]),
    ];
    for (flags, words) in cases {
        let mut args = vec!["vm", "set", "dev"];
        args.extend(flags);
        let refused = home.banger(&args);
        assert_ne!(refused.status, 0, "{flags:?}");
        for word in words {
            assert!(refused.err().contains(word), "{}", refused.err());
        }
    }
    home.banger(&["vm", "set", "nobody", "--vcpu", "1"])
        .exits(125);
    assert_eq!(home.show("dev"), before);
    home.finish();
}
