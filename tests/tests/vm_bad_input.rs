//! Bad input is refused with a hint before a row or a file exists (R-HOST-7).

use banger_testkit::Home;
use std::{fs, path::Path};

/// Each of these names what is wrong and leaves no VM, row or directory.
#[test]
fn bad_input_is_refused_before_anything_exists() {
    let home = Home::new();
    for (args, says) in [
        (&["vm", "create", "--name", "Not_A_Name"][..], "a-z, 0-9"),
        (
            &["vm", "create", "--name", "00ab12cd34ef"],
            "form of a VM id",
        ),
        (&["vm", "create", "--memory", "0"], "greater than zero"),
        (&["vm", "create", "--memory", "lots"], "512M, 4G"),
        (&["vm", "create", "--disk-size=-4G"], "greater than zero"),
        (&["vm", "create", "--vcpu", "0"], "1..=64"),
        (
            &["vm", "create", "--image", "0123456789ab"],
            "no image is called",
        ),
        (&["vm", "create", "--no-such-flag"], "--no-such-flag"),
        (&["vm", "exec", "nobody", "--", "true"], "no VM"),
        (&["vm", "start", "nobody"], "no VM"),
        (&["vm", "show", "ab"], "no VM"),
    ] {
        let run = home.banger(args);
        assert!(
            matches!(run.status, 2 | 125),
            "{args:?} exits {}: {}",
            run.status,
            run.err()
        );
        assert!(
            run.err().contains(says),
            "{args:?} does not say '{says}': {}",
            run.err()
        );
        assert!(
            run.stdout.is_empty(),
            "{args:?} writes errors to stderr only"
        );
    }
    home.assert_no_vms();
    home.finish();
}

/// R-OPS-4: unknown keys are refused with a suggestion.
#[test]
fn unknown_config_keys_are_refused_with_a_suggestion() {
    let home = Home::bare();
    fs::write(home.config(), "qemu_bni = \"/x\"\n").expect("config");
    let run = home.banger(&["vm", "list"]).exits(125);
    assert!(
        run.err().contains("qemu_bni") && run.err().contains("qemu_bin"),
        "{}",
        run.err()
    );
    fs::remove_file(home.config()).expect("config");
    home.finish();
}

/// A VMM that is missing or dies at start: a clear error in bounded time that names the kept log;
/// the machine as before.
#[test]
fn a_vmm_that_fails_leaves_a_log_and_nothing_else() {
    let home = Home::new();
    fs::write(home.config(), "qemu_bin = \"/no/such/qemu\"\n").expect("config");
    let missing = home.banger(&["vm", "run", "--rm", "--", "true"]).exits(125);
    assert!(missing.err().contains("/no/such/qemu"), "{}", missing.err());
    home.banger(&["daemon", "stop"]).exits(0);

    fs::write(home.config(), "qemu_bin = \"/bin/false\"\n").expect("config");
    let dying = home.banger(&["vm", "run", "--rm", "--", "true"]).exits(125);
    // R-HOST-7: the place that is named is where the logs are now, not where they were.
    let told = dying.err();
    let kept = told
        .lines()
        .find_map(|line| line.strip_prefix("hint: its console and logs were kept in "))
        .unwrap_or_else(|| panic!("names no kept logs: {told}"));
    assert!(
        fs::exists(Path::new(kept).join("vmm.log")).unwrap(),
        "{told}"
    );
    assert!(!told.contains("/vms/"), "a place that is gone: {told}");
    home.assert_no_vms();
    home.banger(&["daemon", "stop"]).exits(0);
    fs::remove_file(home.config()).expect("config");
    home.finish();
}

/// R-STATE-10: database damaged or missing while VMs exist: read-only, nothing removed, the way out
/// named; `recover` brings the VM back.
#[test]
fn a_lost_database_loses_no_vm() {
    let home = Home::new();
    home.banger(&["vm", "create", "--name", "dev"]).exits(0);
    home.guest_sh("dev", "echo kept >/root/work; sync").exits(0);
    home.banger(&["vm", "stop", "dev"]).exits(0);
    home.banger(&["daemon", "stop"]).exits(0);
    for damage in ["missing", "damaged"] {
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(home.state().join(name));
        }
        if damage == "damaged" {
            fs::write(
                home.state().join("state.db"),
                b"not a database at all, just text",
            )
            .expect("damage");
        }
        let refused = home.banger(&["vm", "create", "--name", "other"]).exits(125);
        assert!(
            refused.err().contains("banger recover"),
            "{damage}: {}",
            refused.err()
        );
        home.banger(&["recover"]).exits(0);
        assert_eq!(home.show("dev")["state"], "stopped", "{damage}");
        home.banger(&["vm", "start", "dev"]).exits(0);
        assert_eq!(
            home.banger(&["vm", "exec", "dev", "--", "cat", "/root/work"])
                .exits(0)
                .out(),
            "kept"
        );
        home.banger(&["vm", "stop", "dev"]).exits(0);
        home.banger(&["daemon", "stop"]).exits(0);
    }
    home.finish();
}
