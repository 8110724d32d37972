//! `doctor` and `config` (R-OPS-1, R-OPS-4): what they say of a machine in known states, without a daemon.

use banger_testkit::Home;
use banger_wire::api::{DoctorRow, Standing};
use std::{fs, os::unix::fs::PermissionsExt};

fn rows(home: &Home, status: i32) -> Vec<DoctorRow> {
    let run = home.banger(&["doctor", "--json"]).exits(status);
    let rows: Vec<DoctorRow> = serde_json::from_slice(&run.stdout).expect("rows");
    for row in &rows {
        let told = row.hint.as_ref().is_some_and(|hint| !hint.is_empty());
        assert!(told || row.status == Standing::Pass, "no way out: {row:?}");
    }
    rows
}

fn of<'a>(rows: &'a [DoctorRow], what: &str) -> &'a DoctorRow {
    let found = rows.iter().find(|row| row.what == what);
    found.unwrap_or_else(|| panic!("no row '{what}' in {rows:?}"))
}

/// A fresh install passes, and is fresh afterwards.
#[test]
fn a_fresh_install_passes_and_stays_fresh() {
    let home = Home::bare();
    let before = home.banger(&["daemon", "status"]).exits(3).out();
    let told = rows(&home, 0);
    for (area, what) in [
        ("programs", "daemon"),
        ("machine", "architecture"),
        ("state", "database"),
        ("vmm", "QEMU"),
        ("vmm", "agent"),
        ("drivers", "root disk"),
        ("images", "default image"),
        ("images", "default kernel"),
        ("defaults", "a new VM"),
    ] {
        let row = of(&told, what);
        assert_eq!(
            (row.area.as_str(), row.status),
            (area, Standing::Pass),
            "{row:?}"
        );
    }
    assert_eq!(home.banger(&["daemon", "status"]).exits(3).out(), before);
    for dir in [home.state(), home.runtime()] {
        let made = fs::read_dir(&dir).map_or(0, |entries| entries.count());
        assert_eq!(made, 0, "it made something in {}", dir.display());
    }
    // For people: a line per row, then the ways out.
    let text = home.banger(&["doctor"]).exits(0).out();
    assert!(text.starts_with("STATUS"), "{text}");
    assert!(
        text.lines().filter(|l| l.starts_with("PASS")).count() > 10,
        "{text}"
    );
    home.finish();
}

#[test]
fn what_is_wrong_fails_with_its_way_out() {
    let mut home = Home::bare();
    fs::write(home.config(), "qemu_bin = \"/no/such/qemu\"\n").expect("config");
    let told = rows(&home, 1);
    assert_eq!(of(&told, "QEMU").status, Standing::Fail);
    assert!(of(&told, "QEMU").seen.contains("/no/such/qemu"));

    fs::write(home.config(), "[vm_defaults]\nmemroy = \"1G\"\n").expect("config");
    let told = rows(&home, 1);
    let row = of(&told, "configuration");
    assert_eq!(row.status, Standing::Fail);
    assert!(row.seen.contains("did you mean 'memory'?"), "{row:?}");
    // The rest is looked at all the same.
    assert_eq!(of(&told, "QEMU").status, Standing::Pass);
    fs::remove_file(home.config()).expect("config");

    fs::create_dir_all(home.state()).expect("a state directory");
    fs::set_permissions(home.state(), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(home.state().join("state.db"), "no database at all, by far").expect("a database");
    let told = rows(&home, 1);
    assert_eq!(of(&told, "database").status, Standing::Fail);
    assert_eq!(
        of(&told, "database").hint.as_deref(),
        Some("banger recover")
    );
    fs::remove_file(home.state().join("state.db")).expect("a database");

    fs::set_permissions(home.state(), fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(
        of(&rows(&home, 0), "state directory").status,
        Standing::Warn
    );
    fs::set_permissions(home.state(), fs::Permissions::from_mode(0o700)).expect("a mode");

    let empty = home.scratch().join("bin");
    fs::create_dir(&empty).expect("a PATH");
    home.set_env("PATH", Some(&empty.display().to_string()));
    let told = rows(&home, 1);
    assert!(of(&told, "default image").seen.contains("mmdebstrap"));
    assert!(of(&told, "default kernel").seen.contains("apt-get"));
    home.set_env("PATH", None);
    home.finish();
}

/// What a dead daemon left is told, and gone after `--fix`; the same look passes then.
#[test]
fn what_is_left_over_is_told_and_fixed() {
    let home = Home::bare();
    home.banger(&["vm", "list"]).exits(0);
    assert_eq!(of(&rows(&home, 0), "leaks").status, Standing::Pass);
    assert!(of(&rows(&home, 0), "daemon").seen.starts_with("runs, pid"));
    home.banger(&["daemon", "stop"]).exits(0);

    let left = home.state().join("vms/.trash-00ab12cd34ef");
    fs::create_dir_all(&left).expect("a rest");
    fs::write(left.join("work.ext4"), "data of a deleted VM").expect("a rest");
    let told = rows(&home, 0);
    let row = of(&told, "leaks");
    assert_eq!(row.status, Standing::Warn);
    assert!(row.seen.contains("00ab12cd34ef"), "{row:?}");
    assert_eq!(row.hint.as_deref(), Some("banger doctor --fix"));
    assert!(left.exists(), "it only looks");

    let fixed = home.banger(&["doctor", "--fix", "--json"]).exits(0);
    let fixed: Vec<DoctorRow> = serde_json::from_slice(&fixed.stdout).expect("rows");
    assert_eq!(of(&fixed, "leaks").status, Standing::Pass, "{fixed:?}");
    assert!(!left.exists());
    home.finish();
}

/// `recover` and `doctor --fix` ask the same of the daemon, and tell its answer in the same words.
#[test]
fn what_cannot_be_adopted_is_told_with_its_way_out() {
    let home = Home::bare();
    let lost = home.state().join("vms/00ab12cd34ef");
    fs::create_dir_all(&lost).expect("a directory");
    fs::set_permissions(home.state(), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(lost.join("vm.json"), "no description at all").expect("a description");
    let told = format!(
        "banger: {dir} could not be adopted: its vm.json is missing or damaged\n\
         hint: mend it, or move {dir} away; then: banger recover\n",
        dir = lost.display()
    );
    let recover = home.banger(&["recover"]).exits(125);
    assert_eq!(
        (recover.out().as_str(), recover.err()),
        ("0 VMs adopted", told.clone())
    );
    let fix = home.banger(&["doctor", "--fix"]).exits(125);
    assert_eq!(fix.err(), format!("0 VMs adopted\n{told}"));
    assert!(fix.out().starts_with("STATUS"), "{}", fix.out());
    assert!(lost.join("vm.json").exists());
    fs::remove_dir_all(&lost).expect("a clean end");
    home.finish();
}

/// The same file is shown, checked and used.
#[test]
fn the_configuration_is_shown_and_checked_without_a_daemon() {
    let home = Home::bare();
    let path = home.banger(&["config", "path"]).exits(0).out();
    assert_eq!(path.trim_end(), home.config().display().to_string());
    assert!(
        home.banger(&["config", "check"])
            .exits(0)
            .out()
            .contains("not there")
    );

    fs::write(home.config(), "[vm_defaults]\nmemory = \"1G\"\nvcpus = 2\n").expect("config");
    assert!(
        home.banger(&["config", "check"])
            .exits(0)
            .out()
            .trim_end()
            .ends_with("good")
    );
    let shown = home.banger(&["config", "show", "--json"]).exits(0);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("settings");
    let memory = shown.as_array().expect("an array").iter();
    let memory = memory
        .clone()
        .find(|s| s["key"] == "vm_defaults.memory")
        .expect("memory");
    assert_eq!(
        (&memory["value"], &memory["origin"]),
        (&"1G".into(), &"config".into())
    );
    let doctor = rows(&home, 0);
    let seen = &of(&doctor, "a new VM").seen;
    assert!(
        seen.contains("vcpus 2 (config)") && seen.contains("memory 1 GiB (config)"),
        "{seen}"
    );

    let other = home.scratch().join("new.toml");
    fs::write(&other, "stop_timeout = \"soon\"\n").expect("another");
    let told = home
        .banger(&["config", "check", &other.display().to_string()])
        .exits(125);
    assert!(
        told.err().contains("stop_timeout: 'soon'"),
        "{}",
        told.err()
    );
    assert!(told.err().contains("hint: "), "{}", told.err());
    home.banger(&["config", "check", "/no/such/file"])
        .exits(125);
    // Neither needed a daemon.
    home.banger(&["daemon", "status"]).exits(3);
    home.finish();
}
